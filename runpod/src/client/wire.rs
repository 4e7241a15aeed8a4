//! One HTTP call: what was sent, what came back, and what is known if nothing did.

use std::error::Error;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, Url};
use serde_json::Value;

use crate::client::{BaseError, CallError, ClientLimits, RunError};
use crate::contract::{Complaint, Unreadable, message};
use crate::key::Key;
use crate::limits::REFUSAL_BYTES_MAX;

/// A connection to one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    base: Url,
    key: Key,
    http: reqwest::Client,
    reply_bytes_max: usize,
}

/// A call.
pub(crate) struct Ask {
    method: Method,
    url: Url,
    body: Option<Vec<u8>>,
    time_max: Duration,
}

/// What a 404 is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// A job, which may be forgotten.
    Job,
    /// The endpoint, which should be there.
    Endpoint,
}

/// A whole reply; of a refusal its beginning.
pub(crate) struct Reply {
    status: u16,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

/// No whole reply came.
pub(crate) enum Loss {
    /// There was no connection: nothing was sent.
    NotSent(String),
    /// Something was sent, and what became of it is not known.
    Lost(String),
    /// The reply is larger than so many bytes.
    TooLarge(usize),
}

impl Ask {
    pub(crate) fn get(url: Url, time_max: Duration) -> Self {
        Self { method: Method::GET, url, body: None, time_max }
    }

    pub(crate) fn post(url: Url, body: Option<Vec<u8>>, time_max: Duration) -> Self {
        // Some of the vendor's operations take an empty object where nothing is said.
        Self { method: Method::POST, url, body: Some(body.unwrap_or_else(|| b"{}".to_vec())), time_max }
    }
}

impl Wire {
    pub(crate) fn new(base: &str, key: Key, limits: &ClientLimits) -> Result<Self, BaseError> {
        let base = Url::parse(base).map_err(|_| BaseError::NotAnAddress)?;
        let is_plain = base.username().is_empty() && base.password().is_none();
        if !is_plain || base.query().is_some() || base.fragment().is_some() || base.cannot_be_a_base() {
            return Err(BaseError::NotAnAddress);
        }
        let is_here = matches!(base.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
        match base.scheme() {
            "https" => {}
            "http" if is_here || limits.is_plain_http_allowed => {}
            "http" => return Err(BaseError::NotEncrypted),
            _ => return Err(BaseError::NotAnAddress),
        }
        let builder = reqwest::Client::builder()
            .connect_timeout(limits.connect_time_max)
            // A redirect would carry input and key to somewhere else.
            .redirect(Policy::none())
            .retry(reqwest::retry::never());
        let builder = if is_here { builder.no_proxy() } else { builder };
        let http = builder.build().map_err(|error| BaseError::Client(chain(&error)))?;
        Ok(Self { base, key, http, reply_bytes_max: limits.reply_bytes_max })
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// The address of an operation.
    pub(crate) fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("a base can be extended").pop_if_empty().extend(path);
        url
    }

    pub(crate) async fn call(&self, ask: Ask) -> Result<Reply, Loss> {
        let mut request = self.http.request(ask.method, ask.url).header(AUTHORIZATION, self.key.bearer());
        if let Some(body) = ask.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let sent = request.timeout(ask.time_max).send().await;
        let mut response = sent.map_err(|error| self.loss(error))?;
        let status = response.status().as_u16();
        let retry_after = seconds(&response);
        let body = if response.status().is_success() {
            self.body(&mut response).await?
        } else {
            self.beginning(&mut response).await
        };
        Ok(Reply { status, retry_after, body })
    }

    /// The whole body, if it is not too large.
    async fn body(&self, response: &mut Response) -> Result<Vec<u8>, Loss> {
        let bytes_max = self.reply_bytes_max;
        if response.content_length().is_some_and(|bytes| bytes > bytes_max as u64) {
            return Err(Loss::TooLarge(bytes_max));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| Loss::Lost(self.reason(error)))? {
            if body.len() + chunk.len() > bytes_max {
                return Err(Loss::TooLarge(bytes_max));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The beginning of a refusal's body. Its status has said the rest, so nothing is lost if the body is.
    async fn beginning(&self, response: &mut Response) -> Vec<u8> {
        let mut body = Vec::new();
        while body.len() < REFUSAL_BYTES_MAX {
            let Ok(Some(chunk)) = response.chunk().await else { break };
            body.extend_from_slice(&chunk[..chunk.len().min(REFUSAL_BYTES_MAX - body.len())]);
        }
        body
    }

    fn loss(&self, error: reqwest::Error) -> Loss {
        // A connection that was never there carried nothing. Everything else may have been heard.
        let is_not_sent = error.is_connect() || error.is_builder();
        let reason = self.reason(error);
        if is_not_sent { Loss::NotSent(reason) } else { Loss::Lost(reason) }
    }

    fn reason(&self, error: reqwest::Error) -> String {
        if error.is_timeout() {
            return "it took too long".to_owned();
        }
        message(&self.key.redact(&chain(&error.without_url())))
    }
}

impl Reply {
    /// What a call that starts a job was answered.
    pub(crate) fn started(self, key: &Key) -> Result<Value, RunError> {
        let reason = || self.reason(key);
        match self.status {
            200..=299 => {}
            // The server gave up reading, or waiting: it may have what it needs.
            408 | 425 | 499 => return Err(RunError::Unknown { reason: format!("{} {}", self.status, reason()) }),
            429 => return Err(RunError::Throttled { retry_after: self.retry_after }),
            402 => return Err(RunError::OutOfFunds { reason: reason() }),
            400..=499 if self.says_out_of_funds() => return Err(RunError::OutOfFunds { reason: reason() }),
            401 | 403 => return Err(RunError::Unauthorised),
            status @ 400..=499 => return Err(RunError::Refused { status, reason: reason() }),
            status => return Err(RunError::Unknown { reason: format!("{status} {}", reason()) }),
        }
        self.value(key).map_err(|wrong| RunError::Unknown { reason: wrong.to_string() })
    }

    /// What a call that starts nothing was answered.
    pub(crate) fn answered(self, key: &Key, about: About) -> Result<Value, CallError> {
        let reason = || self.reason(key);
        match self.status {
            200..=299 => Ok(self.value(key)?),
            404 if about == About::Job => Err(CallError::Gone),
            429 => Err(CallError::Throttled { retry_after: self.retry_after }),
            402 => Err(CallError::OutOfFunds { reason: reason() }),
            400..=499 if self.says_out_of_funds() => Err(CallError::OutOfFunds { reason: reason() }),
            401 | 403 => Err(CallError::Unauthorised),
            status @ 500..=599 => Err(CallError::Broken { status }),
            status => Err(CallError::Refused { status, reason: reason() }),
        }
    }

    /// The body, in which the key is redacted wherever a worker's complaint or result may have got it from.
    fn value(&self, key: &Key) -> Result<Value, Unreadable> {
        let text = std::str::from_utf8(&self.body).map_err(|_| Unreadable::NotJson)?;
        serde_json::from_str(&key.redact(text)).map_err(|_| Unreadable::NotJson)
    }

    /// What a refusal says to people: its `error`, or its text unless that is a web page.
    fn reason(&self, key: &Key) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let text = key.redact(&text);
        match serde_json::from_str::<Value>(&text) {
            Ok(value) => Complaint::read(value.get("error").unwrap_or(&value)).message,
            Err(_) if text.trim_start().starts_with('<') => Complaint::new("").message,
            Err(_) => Complaint::new(&text).message,
        }
    }

    /// Which status an empty account leads to is not documented, so the words count too.
    fn says_out_of_funds(&self) -> bool {
        let text = String::from_utf8_lossy(&self.body).to_lowercase();
        let money = ["fund", "balance", "credit"].iter().any(|word| text.contains(word));
        let lack = ["insufficient", "not enough", "out of", "too low", "negative", "exhausted"];
        money && lack.iter().any(|word| text.contains(word))
    }
}

/// The pause asked for in seconds; a date is not read.
fn seconds(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// An error with its causes, which say more than itself.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status, retry_after: None, body: body.as_bytes().to_vec() }
    }

    fn key() -> Key {
        Key::new("rpa_CANARY").unwrap()
    }

    #[test]
    fn only_a_definite_refusal_is_one() {
        let started = |status: u16, body: &str| reply(status, body).started(&key()).unwrap_err();
        for status in [301, 304, 408, 499, 500, 502, 503, 504] {
            assert!(!started(status, "").is_certain(), "{status}");
        }
        assert!(!started(200, "{\"id\":").is_certain(), "a reply cut short");
        let refused = RunError::Refused { status: 400, reason: "no input".to_owned() };
        assert_eq!(started(400, "{\"error\":\"no input\"}"), refused);
        assert_eq!(started(401, ""), RunError::Unauthorised);
        assert_eq!(started(403, ""), RunError::Unauthorised);
        assert_eq!(started(429, ""), RunError::Throttled { retry_after: None });
    }

    #[test]
    fn an_empty_account_is_known_by_status_or_words() {
        for (status, body) in
            [(402, ""), (400, "Insufficient balance"), (403, "{\"error\":\"you are out of credits\"}")]
        {
            assert!(matches!(reply(status, body).started(&key()), Err(RunError::OutOfFunds { .. })), "{status} {body}");
            let answered = reply(status, body).answered(&key(), About::Job);
            assert!(matches!(answered, Err(CallError::OutOfFunds { .. })), "{status} {body}");
        }
        assert!(matches!(reply(400, "unbalanced input").started(&key()), Err(RunError::Refused { .. })));
        assert!(matches!(reply(500, "insufficient funds").started(&key()), Err(RunError::Unknown { .. })));
    }

    #[test]
    fn a_missing_job_is_gone_and_a_missing_endpoint_refuses() {
        assert_eq!(reply(404, "").answered(&key(), About::Job), Err(CallError::Gone));
        let refused = reply(404, "<html>no</html>").answered(&key(), About::Endpoint);
        let reason = "the endpoint gave no reason".to_owned();
        assert_eq!(refused, Err(CallError::Refused { status: 404, reason }));
    }

    #[test]
    fn a_refusal_that_repeats_the_key_is_told_without_it() {
        let error = reply(400, "bad header: Bearer rpa_CANARY").started(&key()).unwrap_err();
        assert!(!error.to_string().contains("CANARY"), "{error}");
        assert!(error.to_string().contains("bad header"));
    }

    #[test]
    fn a_result_that_repeats_the_key_is_read_without_it() {
        let value = reply(200, "{\"status\":\"FAILED\",\"error\":\"401 for rpa_CANARY\"}").answered(&key(), About::Job);
        assert_eq!(value.unwrap()["error"], "401 for (redacted)");
    }

    #[test]
    fn a_base_is_encrypted_or_here() {
        let base = |text: &str, is_plain_http_allowed: bool| {
            let limits = ClientLimits { is_plain_http_allowed, ..ClientLimits::default() };
            Wire::new(text, key(), &limits).map(|wire| wire.url(&["status", "a-u1"]).to_string())
        };
        let expected = Ok("https://api.runpod.ai/v2/abc/status/a-u1".to_owned());
        assert_eq!(base("https://api.runpod.ai/v2/abc", false), expected);
        assert_eq!(base("https://api.runpod.ai/v2/abc/", false), expected);
        for here in ["http://127.0.0.1:9/v2/abc", "http://localhost:9/v2/abc", "http://[::1]:9/v2/abc"] {
            assert!(base(here, false).is_ok(), "{here}");
        }
        assert_eq!(base("http://emulator:9/v2/abc", false), Err(BaseError::NotEncrypted));
        assert!(base("http://emulator:9/v2/abc", true).is_ok());
        for wrong in ["", "abc", "ftp://a/b", "https://user@a/b", "https://a/b?key=c", "https://a/b#c", "mailto:a@b"] {
            assert_eq!(base(wrong, true), Err(BaseError::NotAnAddress), "{wrong}");
        }
    }

    #[test]
    fn a_wire_is_never_printed_with_its_key() {
        let wire = Wire::new("http://127.0.0.1:9/v2/abc", key(), &ClientLimits::default()).unwrap();
        assert!(!format!("{wire:?}").contains("CANARY"));
    }
}
