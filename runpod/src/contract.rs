//! The words of the contract: what is sent to an endpoint, and what it says, read leniently.

mod complaint;
mod health;
mod status;
mod streamed;

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::Value;

pub use self::complaint::Complaint;
pub use self::health::{Health, JobCounts, WorkerCounts};
pub use self::status::{End, Failure, FailureKind, JobStatus, Status};
pub use self::streamed::Streamed;
use crate::limits::{MESSAGE_BYTES_MAX, REMOTE_ID_BYTES_MAX};

/// A job to run: the body of `/run` and `/runsync`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunRequest {
    /// What the worker is given; a JSON object.
    pub input: Value,
    /// Told when the job ends. Nobody signs what comes there, so it is a hint to ask for the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// How long it may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

impl RunRequest {
    /// A job with the endpoint's own limits.
    pub fn new(input: Value) -> Self {
        Self { input, webhook: None, policy: None }
    }
}

/// How long a job may take, and whether it is worth a new worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// The longest it may run; 5 s to 7 days.
    #[serde(rename = "executionTimeout", serialize_with = "ms", skip_serializing_if = "Option::is_none")]
    pub execution_timeout: Option<Duration>,
    /// The longest the endpoint knows it, counted from its submission, running or not; 10 s to 7 days.
    #[serde(serialize_with = "ms", skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// Whether no worker is started for it.
    #[serde(rename = "lowPriority", skip_serializing_if = "is_false")]
    pub is_low_priority: bool,
}

/// What an endpoint calls a job: opaque, but plain enough to stand in a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteId(String);

/// A text is no job id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an endpoint's job id is 1 to {REMOTE_ID_BYTES_MAX} letters, digits, '-', '_', '.' or ':'")]
pub struct RemoteIdError;

impl RemoteId {
    /// Checks length and characters.
    pub fn new(text: impl Into<String>) -> Result<Self, RemoteIdError> {
        let text = text.into();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        let fits = (1..=REMOTE_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain);
        let leads_away = text.bytes().all(|byte| byte == b'.');
        if fits && !leads_away { Ok(Self(text)) } else { Err(RemoteIdError) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RemoteId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A reply is not what the contract says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not JSON.
    #[error("it is not JSON")]
    NotJson,
    /// It is JSON of another shape.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// It says nothing of the job's status.
    #[error("it names no status")]
    NoStatus,
    /// It names no job, or in a way that could not stand in a path.
    #[error("it names no job")]
    NoId,
    /// It holds more items than a stream may.
    #[error("it holds too many items")]
    TooMany,
}

/// `text` on one line, up to `bytes_max` bytes.
pub(crate) fn cut(text: &str, bytes_max: usize) -> String {
    let plain = text.chars().map(|character| if character.is_control() { ' ' } else { character });
    take(plain, bytes_max).trim().to_owned()
}

/// `text` as people are shown it.
pub(crate) fn message(text: &str) -> String {
    cut(text, MESSAGE_BYTES_MAX)
}

/// As many `characters` as fit into `bytes_max` bytes.
fn take(characters: impl Iterator<Item = char>, bytes_max: usize) -> String {
    let mut kept = String::new();
    for character in characters {
        if kept.len() + character.len_utf8() > bytes_max {
            break;
        }
        kept.push(character);
    }
    kept
}

/// A count that may be a float, a text, negative or missing.
fn count(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::Number(number) => number.as_u64().or_else(|| {
            let float = number.as_f64().filter(|float| *float >= 0.0)?;
            Some(float as u64) // Saturates.
        }),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn ms<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let ms = time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    ms.serialize(serializer)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_says_what_it_must_and_no_more() {
        let mut request = RunRequest::new(json!({"prompt": "a boat"}));
        assert_eq!(serde_json::to_value(&request).unwrap(), json!({"input": {"prompt": "a boat"}}));
        let (execution_timeout, ttl) = (Some(Duration::from_secs(120)), Some(Duration::from_secs(300)));
        request.policy = Some(Policy { execution_timeout, ttl, is_low_priority: true });
        request.webhook = Some("https://relay/hook".to_owned());
        let policy = json!({"executionTimeout": 120_000, "ttl": 300_000, "lowPriority": true});
        let expected = json!({"input": {"prompt": "a boat"}, "webhook": "https://relay/hook", "policy": policy});
        assert_eq!(serde_json::to_value(&request).unwrap(), expected);
    }

    #[test]
    fn an_id_never_leads_to_another_path() {
        for text in ["", "..", "a/b", "a?b", "a%2fb", "ä", &"a".repeat(REMOTE_ID_BYTES_MAX + 1)] {
            assert!(RemoteId::new(text).is_err(), "{text}");
        }
        for text in ["c80ffee4-f315-4e25-a146-0f3d98cf024b-u1", "sync-1e5-e2"] {
            assert_eq!(RemoteId::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn texts_are_cut_at_characters_and_stay_on_one_line() {
        assert_eq!(cut("aä\nb", 3), "aä");
        assert_eq!(cut(" a\r\nb ", 9), "a  b");
    }

    #[test]
    fn counts_are_read_in_every_way_they_are_written() {
        let read = |value: Value| count(Some(&value));
        assert_eq!([read(json!(5)), read(json!(5.9)), read(json!("5"))], [Some(5); 3]);
        assert_eq!([read(json!(-5)), read(json!(null)), read(json!("x")), read(json!([5]))], [None; 4]);
        assert_eq!(read(json!(1e300)), Some(u64::MAX));
        assert_eq!(count(None), None);
    }
}
