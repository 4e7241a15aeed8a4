//! A listener for events of the window, which ends with its owner.

use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;

/// Dropping it ends the listening.
pub struct Listener {
    event: &'static str,
    closure: Closure<dyn FnMut()>,
}

impl Listener {
    /// Calls `heard` for every `event`; `None` where there is no window.
    pub fn on_window(event: &'static str, heard: impl FnMut() + 'static) -> Option<Self> {
        let closure = Closure::<dyn FnMut()>::new(heard);
        let function = closure.as_ref().unchecked_ref();
        web_sys::window()?.add_event_listener_with_callback(event, function).ok()?;
        Some(Self { event, closure })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(window) = web_sys::window() {
            let function = self.closure.as_ref().unchecked_ref();
            let _ = window.remove_event_listener_with_callback(self.event, function);
        }
    }
}
