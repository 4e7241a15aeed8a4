//! Hears what people do in the document and says it as messages.

use std::rc::Rc;

use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use web_sys::{Element, Event, EventTarget, HtmlInputElement, KeyboardEvent};

use super::places::Places;
use crate::page::form::Form;
use crate::page::update::Msg;

type Tell = Rc<dyn Fn(Msg)>;

/// Listens for the life of the page.
pub fn listen(places: &Places, tell: &Tell) {
    listen_to_fields(places, tell);
    listen_to_buttons(places, tell);
    listen_to_lists(places, tell);
    listen_to_keys(places, tell);
    listen_to_window(places, tell);
}

/// A seed that people can read out: 32 bits.
pub fn random_seed() -> u64 {
    let mut bytes = [0; 4];
    random(&mut bytes);
    u64::from(u32::from_le_bytes(bytes))
}

fn listen_to_fields(places: &Places, tell: &Tell) {
    let document = places.document().clone();
    on(places.at("form"), "input", tell, move |_| Some(Msg::Edited(read(&Places::new(document.clone())))));
    let document = places.document().clone();
    on(places.at("form"), "submit", tell, move |event| {
        event.prevent_default();
        Some(paint(&Places::new(document.clone())))
    });
    on(places.at("join-form"), "submit", tell, {
        let document = places.document().clone();
        move |event| {
            event.prevent_default();
            Some(Msg::EnterRoom(Places::new(document.clone()).read("join-link")))
        }
    });
    on(places.at("name-field"), "change", tell, |event| Some(Msg::Rename(input(event)?.value())));
    on(places.at("pledge"), "change", tell, |event| Some(Msg::Pledge(input(event)?.value())));
    on(places.at("lend"), "change", tell, |event| Some(Msg::Lend(input(event)?.checked())));
    on(places.at("pause-hidden"), "change", tell, |event| Some(Msg::PauseHidden(input(event)?.checked())));
    on(places.at("share-link"), "focus", tell, |event| {
        input(event)?.select();
        None
    });
}

fn listen_to_buttons(places: &Places, tell: &Tell) {
    let click = |id: &str, msg: fn() -> Msg| on(places.at(id), "click", tell, move |_| Some(msg()));
    click("cancel", || Msg::Cancel);
    click("reuse-seed", || Msg::ReuseSeed);
    click("recall", || Msg::Recall);
    click("copy-link", || Msg::CopyLink);
    click("copy-recipe", || Msg::CopyRecipe);
    click("gone-paint", || Msg::PaintGone(random_seed()));
    click("gone-forget", || Msg::ForgetGone);
    click("history-clear", || Msg::ClearHistory);
    click("new-room", || {
        let mut secret = [0; protocol::room::SECRET_BYTES];
        random(&mut secret);
        Msg::NewRoom(secret)
    });
}

fn listen_to_lists(places: &Places, tell: &Tell) {
    on(places.at("history"), "click", tell, |event| {
        let (part, id) = clicked(event)?;
        match part.as_str() {
            "remove" => Some(Msg::Delete(id)),
            "open" => Some(Msg::Open(id)),
            _ => None,
        }
    });
    on(places.at("jobs"), "click", tell, |event| {
        let (part, key) = clicked(event)?;
        match part.as_str() {
            "cancel" => Some(Msg::CancelJob(key)),
            "again" => Some(Msg::RepeatJob(key)),
            "away" => Some(Msg::DismissJob(key)),
            _ => None,
        }
    });
    on(places.at("remarks"), "click", tell, |event| {
        let (part, id) = clicked(event)?;
        (part == "dismiss").then(|| id.parse().ok().map(Msg::Dismiss)).flatten()
    });
}

fn listen_to_keys(places: &Places, tell: &Tell) {
    let document = places.document().clone();
    on(Some(places.document().clone()), "keydown", tell, move |event| {
        let key = event.dyn_ref::<KeyboardEvent>()?;
        // A key that ends the writing of a character is not meant for the page.
        if key.is_composing() {
            return None;
        }
        match key.key().as_str() {
            "Enter" if key.ctrl_key() || key.meta_key() => {
                event.prevent_default();
                Some(paint(&Places::new(document.clone())))
            }
            "Escape" => Some(Msg::Cancel),
            _ => None,
        }
    });
}

fn listen_to_window(places: &Places, tell: &Tell) {
    let document = places.document().clone();
    on(Some(places.document().clone()), "visibilitychange", tell, move |_| Some(Msg::Hidden(document.hidden())));
    let window = web_sys::window();
    on(window.clone(), "hashchange", tell, move |_| {
        let fragment = window.as_ref()?.location().hash().ok()?;
        Some(Msg::Fragment(fragment))
    });
}

fn paint(places: &Places) -> Msg {
    Msg::Paint(read(places), random_seed())
}

fn read(places: &Places) -> Form {
    Form {
        prompt: places.read("prompt-field"),
        negative: places.read("negative-field"),
        size: places.read("size-field"),
        steps: places.read("steps-field"),
        guidance: places.read("guidance-field"),
        seed: places.read("seed-field"),
        count: places.read("count-field"),
        is_high: places.is_checked("quality-high"),
        kind: places.read("kind-field"),
    }
}

fn on<T>(target: Option<T>, name: &str, tell: &Tell, heard: impl Fn(&Event) -> Option<Msg> + 'static)
where
    T: AsRef<EventTarget>,
{
    let tell = Rc::clone(tell);
    let closure = Closure::<dyn Fn(Event)>::new(move |event: Event| {
        if let Some(msg) = heard(&event) {
            tell(msg);
        }
    });
    let Some(target) = target else { return };
    // Listening fails for no name of ours; the closure lives as long as the page.
    let _ = target.as_ref().add_event_listener_with_callback(name, closure.into_js_value().unchecked_ref());
}

fn input(event: &Event) -> Option<HtmlInputElement> {
    event.current_target()?.dyn_into().ok()
}

/// The named part that was clicked, and the id of its item.
fn clicked(event: &Event) -> Option<(String, String)> {
    let target: Element = event.target()?.dyn_into().ok()?;
    let button = target.closest("button[data-part]").ok().flatten()?;
    let item = button.closest("[data-id]").ok().flatten()?;
    Some((button.get_attribute("data-part")?, item.get_attribute("data-id")?))
}

/// A name that no other opening of a page has: 128 bits, hexadecimal.
pub fn random_name() -> String {
    let mut bytes = [0; 16];
    random(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn random(bytes: &mut [u8]) {
    let crypto = web_sys::window().and_then(|window| window.crypto().ok());
    let filled = crypto.and_then(|crypto| crypto.get_random_values_with_u8_array(bytes).ok());
    // Every browser with WebAssembly has this, also in pages that are not secure.
    filled.expect("the browser gives random bytes");
}
