//! Small things from the network, within a time and a length.

use std::time::Duration;

use futures_timer::Delay;
use js_sys::{Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, Headers, ReadableStreamDefaultReader, RequestCache, RequestInit, Response, Url};

/// A request with more than an address.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// `GET`, `POST`, …
    pub method: &'static str,
    /// Where.
    pub url: &'a str,
    /// The token that goes with it.
    pub token: Option<&'a str>,
    /// JSON text to send.
    pub json: Option<&'a str>,
}

/// What was answered, whatever the status.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// When to ask again, if the answer says so and this page may read it.
    pub retry_after_s: Option<u64>,
    /// The body.
    pub bytes: Vec<u8>,
}

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
    let init = RequestInit::new();
    init.set_cache(cache);
    let read = async |answer: Response| match answer.ok() {
        true => body(&answer, bytes_max).await,
        false => Err(format!("HTTP status {}", answer.status())),
    };
    within(url, &init, time_max, read).await
}

/// Makes a request, past every cache; an answer of any status is no error.
pub async fn send(call: Call<'_>, bytes_max: usize, time_max: Duration) -> Result<Reply, String> {
    let init = RequestInit::new();
    init.set_method(call.method);
    init.set_cache(RequestCache::NoStore);
    let headers = Headers::new().map_err(|error| words(&error))?;
    let token = call.token.map(|token| ("authorization", format!("Bearer {token}")));
    let kind = call.json.map(|_| ("content-type", "application/json".to_owned()));
    for (name, value) in [token, kind].into_iter().flatten() {
        headers.set(name, &value).map_err(|error| words(&error))?;
    }
    init.set_headers(&headers);
    if let Some(json) = call.json {
        init.set_body(&json.into());
    }
    let read = async |answer: Response| {
        let retry_after = answer.headers().get("retry-after").ok().flatten();
        let retry_after_s = retry_after.and_then(|text| text.trim().parse().ok());
        Ok(Reply { status: answer.status(), retry_after_s, bytes: body(&answer, bytes_max).await? })
    };
    within(call.url, &init, time_max, read).await
}

/// What a JavaScript error says.
pub fn words(error: &JsValue) -> String {
    let message = Reflect::get(error, &"message".into()).ok().and_then(|message| message.as_string());
    message.or_else(|| error.as_string()).unwrap_or_else(|| "an error without words".into())
}

/// Makes a request and reads its answer; whatever fails or takes too long is called off.
async fn within<T>(
    url: &str,
    init: &RequestInit,
    time_max: Duration,
    read: impl AsyncFn(Response) -> Result<T, String>,
) -> Result<T, String> {
    let control = AbortController::new().map_err(|error| words(&error))?;
    init.set_signal(Some(&control.signal()));
    let answer = async {
        let window = web_sys::window().ok_or("there is no window")?;
        let answer = JsFuture::from(window.fetch_with_str_and_init(url, init)).await.map_err(|error| words(&error))?;
        read(answer.dyn_into().map_err(|error| words(&error))?).await
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

/// The body, piece by piece, so that a longer one is given up as soon as it is too long.
async fn body(answer: &Response, bytes_max: usize) -> Result<Vec<u8>, String> {
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
