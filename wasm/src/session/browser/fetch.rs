//! Small things from the network, within a time and a length.

use std::time::Duration;

use futures_timer::Delay;
use js_sys::{Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, ReadableStreamDefaultReader, RequestCache, RequestInit, Response, Url};

/// The address of a folder, ending in a slash; that of the document if `base` is empty.
pub fn folder(base: &str) -> Result<String, String> {
    let document = web_sys::window().and_then(|window| window.document()).and_then(|document| document.base_uri().ok());
    let document = document.flatten().ok_or("a session needs a document, and there is none here")?;
    let base = if base.is_empty() || base.ends_with('/') { base.to_owned() } else { format!("{base}/") };
    let relative = if base.is_empty() { "./" } else { &base };
    let url = Url::new_with_base(relative, &document).map_err(|_| format!("{base} is not a web address"))?;
    url.set_hash("");
    url.set_search("");
    Ok(url.href())
}

/// Gets `url`, at most `bytes_max` bytes within `time_max`; an error says what happened, without the address.
pub async fn get(url: &str, bytes_max: usize, time_max: Duration, cache: RequestCache) -> Result<Vec<u8>, String> {
    let control = AbortController::new().map_err(|error| words(&error))?;
    let init = RequestInit::new();
    init.set_signal(Some(&control.signal()));
    init.set_cache(cache);
    let answer = async {
        let window = web_sys::window().ok_or("there is no window")?;
        let answer = JsFuture::from(window.fetch_with_str_and_init(url, &init)).await.map_err(|error| words(&error))?;
        let answer: Response = answer.dyn_into().map_err(|error| words(&error))?;
        if !answer.ok() {
            return Err(format!("HTTP status {}", answer.status()));
        }
        read(&answer, bytes_max).await
    };
    tokio::select! {
        answer = answer => {
            if answer.is_err() {
                control.abort();
            }
            answer
        }
        () = Delay::new(time_max) => {
            control.abort();
            Err(format!("no answer within {} s", time_max.as_secs()))
        }
    }
}

/// What a JavaScript error says.
pub fn words(error: &JsValue) -> String {
    let message = Reflect::get(error, &"message".into()).ok().and_then(|message| message.as_string());
    message.or_else(|| error.as_string()).unwrap_or_else(|| "an error without words".into())
}

/// The body, piece by piece, so that a longer one is given up as soon as it is too long.
async fn read(answer: &Response, bytes_max: usize) -> Result<Vec<u8>, String> {
    let Some(body) = answer.body() else { return Ok(Vec::new()) };
    let reader: ReadableStreamDefaultReader = body.get_reader().dyn_into().map_err(|error| words(&error))?;
    let mut bytes = Vec::new();
    loop {
        let piece = JsFuture::from(reader.read()).await.map_err(|error| words(&error))?;
        let is_done = Reflect::get(&piece, &"done".into()).is_ok_and(|done| done.is_truthy());
        if is_done {
            return Ok(bytes);
        }
        let piece = Reflect::get(&piece, &"value".into()).map_err(|error| words(&error))?;
        let piece: Uint8Array = piece.dyn_into().map_err(|error| words(&error))?;
        if bytes.len() + piece.length() as usize > bytes_max {
            return Err(format!("more than {bytes_max} bytes"));
        }
        bytes.extend(piece.to_vec());
    }
}
