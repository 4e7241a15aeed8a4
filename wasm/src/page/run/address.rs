//! What the page reads from its address and the browser's memory when it opens, and writes back.
//!
//! Storage may be missing or full, as in private windows: then nothing is remembered, and the page works all the same.

use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Storage, Url, Window};

use crate::page::form::Form;
use crate::page::jobs::{JOBS_MAX, Kept};
use crate::page::settings::{Remembered, Start};
use crate::page::state::Underway;
use crate::page::view::random_name;

const REMEMBERED: &str = "manyhands";
const FORM: &str = "manyhands-form";
const UNDERWAY: &str = "manyhands-underway";

/// Each room's jobs stand under this and the room's name in its queue.
const JOBS: &str = "manyhands-queue-";

/// Longest entry read back: two prompts of 4 KiB, escaped, of as many jobs as a page has.
const ENTRY_BYTES_MAX: usize = JOBS_MAX * 64 * 1024;

/// What the page finds when it opens.
pub fn start(window: &Window) -> Start {
    let href = window.location().href().unwrap_or_default();
    let document = window.document();
    let mut start = Start {
        remembered: read(local(window), REMEMBERED).unwrap_or_default(),
        form: read(session(window), FORM),
        underway: read(session(window), UNDERWAY),
        save_data: saves_data(window),
        hidden: document.is_some_and(|document| document.hidden()),
        visit: random_name(),
        ..Start::default()
    };
    if let Ok(url) = Url::new(&href) {
        let path = url.pathname();
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        start.base = format!("{}{folder}", url.origin());
        start.fragment = url.hash();
        let query = url.search_params();
        for name in ["engine", "lend", "relayed", "name", "relay", "hidden", "stun"] {
            start.query.extend(query.get(name).map(|value| (name.to_owned(), value)));
        }
    }
    start
}

/// Shows a room in the address, so that a reload and the Back button find it.
pub fn show(window: &Window, fragment: &str, relay: Option<&str>) {
    let Ok(url) = window.location().href().and_then(|href| Url::new(&href)) else { return };
    match relay {
        Some(relay) => url.search_params().set("relay", relay),
        None => url.search_params().delete("relay"),
    }
    url.set_hash(fragment);
    let history = window.history();
    // Refused only for another origin, or when called hundreds of times: the room works without it.
    let _ = history.and_then(|history| history.push_state_with_url(&JsValue::NULL, "", Some(&url.href())));
}

pub fn remember(window: &Window, remembered: &Remembered) {
    write(local(window), REMEMBERED, Some(remembered));
}

pub fn keep_form(window: &Window, form: &Form) {
    write(session(window), FORM, Some(form));
}

pub fn keep_underway(window: &Window, underway: Option<&Underway>) {
    write(session(window), UNDERWAY, underway);
}

/// The jobs that this tab has asked for in a room's queue.
pub fn jobs(window: &Window, room: &str) -> Vec<Kept> {
    read(session(window), &format!("{JOBS}{room}")).unwrap_or_default()
}

pub fn keep_jobs(window: &Window, room: &str, jobs: &[Kept]) {
    write(session(window), &format!("{JOBS}{room}"), (!jobs.is_empty()).then_some(jobs));
}

/// Calls back when the page is closed or left.
pub fn at_farewell(window: &Window, farewell: impl Fn() + 'static) {
    let closure = Closure::<dyn Fn()>::new(farewell).into_js_value();
    // Listening fails for no name of ours; the closure lives as long as the page.
    let _ = window.add_event_listener_with_callback("pagehide", closure.unchecked_ref());
}

fn local(window: &Window) -> Option<Storage> {
    window.local_storage().ok().flatten()
}

fn session(window: &Window) -> Option<Storage> {
    window.session_storage().ok().flatten()
}

fn read<T: DeserializeOwned>(storage: Option<Storage>, key: &str) -> Option<T> {
    let text = storage?.get_item(key).ok().flatten().filter(|text| text.len() <= ENTRY_BYTES_MAX)?;
    serde_json::from_str(&text).ok()
}

fn write<T: Serialize + ?Sized>(storage: Option<Storage>, key: &str, value: Option<&T>) {
    let Some(storage) = storage else { return };
    let text = value.and_then(|value| serde_json::to_string(value).ok());
    // A full or forbidden storage remembers nothing.
    let _ = match text {
        Some(text) => storage.set_item(key, &text),
        None => storage.remove_item(key),
    };
}

/// Whether the person asked the browser to save data; few browsers tell.
fn saves_data(window: &Window) -> bool {
    let property = |object: &JsValue, name: &str| js_sys::Reflect::get(object, &name.into()).ok();
    let connection = property(&window.navigator(), "connection").filter(|connection| connection.is_object());
    connection.and_then(|connection| property(&connection, "saveData")).is_some_and(|saves| saves.is_truthy())
}
