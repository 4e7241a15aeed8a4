//! What a RunPod client posts: an input, and how long it is wanted.

use std::str::FromStr;
use std::time::Duration;

use queue::{Ask, Catalogue, Deadlines, Submission};
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::facade::limits::{DEADLINE_MAX, EXECUTION_MIN, TTL_MIN, WEBHOOK_BYTES_MAX};
use crate::submit::OF_THE_RELAY;

/// The body of `/run` and `/runsync`, read.
pub(crate) struct RunRequest {
    /// What is asked for.
    pub asked: Asked,
    /// Kept and never called.
    pub webhook: Option<String>,
    /// How long it is wanted.
    pub deadlines: Deadlines,
    /// Higher goes first.
    pub priority: i32,
    /// What was accepted and has no effect, for the client's developer.
    pub notes: Vec<&'static str>,
}

/// An input.
pub(crate) enum Asked {
    /// Of one of our job types.
    Typed(Box<Submission>),
    /// As workers of some kind understand it.
    Raw(Value),
}

/// The priority of `policy.lowPriority`: a minute later than others.
const LOW_PRIORITY: i32 = -1;

/// What is said of webhooks.
const NO_WEBHOOK: &str = "webhooks are kept and not called: the relay fetches no address of its users; poll /status";

/// What is said of credentials for a store.
const NO_S3: &str = "s3Config is not passed on: members of the room would read its secret; results are in /status";

/// What is said of fields that a client may not give.
const NO_RELAY_FIELDS: &str =
    "_claim, _output, _put and _client_ref are left out: only a relay says them to its workers";

impl RunRequest {
    /// Reads the body of `/run` or `/runsync`.
    pub fn read(body: Value, catalogue: &Catalogue) -> Result<Self, ApiError> {
        let Value::Object(mut fields) = body else { return Err(ApiError::wrong("the body is not an object")) };
        let input = fields.remove("input").filter(|input| !input.is_null());
        let input = input.ok_or_else(|| ApiError::wrong("the body has no input; send {\"input\": {…}}"))?;
        let mut notes = Vec::new();
        let webhook = fields.get("webhook").or_else(|| fields.get("webhookV2")).and_then(Value::as_str);
        if webhook.is_some() {
            notes.push(NO_WEBHOOK);
        }
        if fields.get("s3Config").is_some_and(|config| !config.is_null()) {
            notes.push(NO_S3);
        }
        if OF_THE_RELAY.iter().any(|name| input.get(name).is_some()) {
            notes.push(NO_RELAY_FIELDS);
        }
        let webhook = webhook.filter(|webhook| webhook.len() <= WEBHOOK_BYTES_MAX).map(str::to_owned);
        let (deadlines, priority) = match fields.get("policy") {
            None | Some(Value::Null) => (Deadlines::default(), 0),
            Some(Value::Object(policy)) => read_policy(policy)?,
            Some(_) => return Err(ApiError::wrong("policy is not an object")),
        };
        let asked = match read_typed(&input, catalogue, deadlines, priority)? {
            Some(submission) => Asked::Typed(Box::new(submission)),
            None => Asked::Raw(input),
        };
        Ok(Self { asked, webhook, deadlines, priority, notes })
    }
}

fn read_policy(policy: &Map<String, Value>) -> Result<(Deadlines, i32), ApiError> {
    let time = |name: &str, least: Duration| match policy.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let time = value.as_u64().map(Duration::from_millis);
            let wrong = || {
                let (least, most) = (least.as_millis(), DEADLINE_MAX.as_millis());
                ApiError::wrong(format!("policy.{name} is {least} to {most} milliseconds"))
            };
            time.filter(|time| (least..=DEADLINE_MAX).contains(time)).map(Some).ok_or_else(wrong)
        }
    };
    let deadlines = Deadlines { ttl: time("ttl", TTL_MIN)?, execution: time("executionTimeout", EXECUTION_MIN)? };
    let is_low = policy.get("lowPriority").and_then(Value::as_bool).unwrap_or_default();
    Ok((deadlines, if is_low { LOW_PRIORITY } else { 0 }))
}

/// A submission, if the input names one of our job types: then it must be a whole one. Other workers have types of their own.
fn read_typed(
    input: &Value,
    catalogue: &Catalogue,
    deadlines: Deadlines,
    priority: i32,
) -> Result<Option<Submission>, ApiError> {
    let named = input.get("type").and_then(Value::as_str).and_then(|name| Ask::new(name).ok());
    if named.and_then(|ask| catalogue.find(&ask).map(|_| ())).is_none() {
        return Ok(None);
    }
    let read = serde_json::from_value::<Submission>(input.clone());
    let mut submission = read.map_err(|error| ApiError::wrong(format!("input: {error}")))?;
    if submission.images != 1 {
        return Err(ApiError::wrong("input.images: one request is one job with one picture; send one for each"));
    }
    submission.deadlines = deadlines;
    if submission.priority == 0 {
        submission.priority = priority;
    }
    Ok(Some(submission))
}

/// A query's names and values.
pub(crate) type Pairs = Vec<(String, String)>;

/// A number of a query; `None` unless it is there and a number.
pub(crate) fn number<T: FromStr>(query: &Pairs, name: &str) -> Option<T> {
    text(query, name)?.parse().ok()
}

/// A text of a query; the last one, because clients append theirs to what an address holds already.
pub(crate) fn text<'a>(query: &'a Pairs, name: &str) -> Option<&'a str> {
    query.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// A time in milliseconds of a query, within bounds.
pub(crate) fn wait(query: &Pairs, usual: Duration, least: Duration, most: Duration) -> Duration {
    number(query, "wait").map_or(usual, Duration::from_millis).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: Value) -> Result<RunRequest, ApiError> {
        RunRequest::read(body, &Catalogue::shipped())
    }

    fn refusal(body: Value) -> String {
        read(body).err().expect("it is refused").message
    }

    #[test]
    fn an_input_of_a_type_of_ours_is_a_submission_and_any_other_comes_as_it_is() {
        let Asked::Typed(submission) = read(json!({"input": {"type": "demo_fast", "prompt": "a"}})).unwrap().asked
        else {
            panic!("it names a type")
        };
        assert_eq!(submission.ask.as_str(), "demo_fast");
        for input in [json!({"prompt": "a", "type": "theirs"}), json!({"prompt": "a"}), json!("text"), json!([1])] {
            let Asked::Raw(raw) = read(json!({ "input": input })).unwrap().asked else {
                panic!("{input} names no type")
            };
            assert_eq!(raw, input);
        }
    }

    #[test]
    fn a_submission_that_is_not_whole_says_what_is_wrong() {
        assert!(refusal(json!({"input": {"type": "demo_fast", "prompt": 5}})).contains("expected a string"));
        assert!(refusal(json!({"input": {"type": "demo_fast", "num_steps": 5}})).contains("num_steps"));
        assert!(refusal(json!({"input": {"type": "demo_fast", "prompt": "a", "images": 2}})).contains("images"));
        for body in [json!({}), json!({"input": null}), json!("x"), json!([])] {
            read(body).err().expect("it is refused");
        }
    }

    #[test]
    fn a_policy_bounds_times_and_lowers_the_priority() {
        let policy = json!({"executionTimeout": 5000, "ttl": 10_000, "lowPriority": true});
        let request = read(json!({"input": {}, "policy": policy})).unwrap();
        let deadlines = Deadlines { ttl: Some(Duration::from_secs(10)), execution: Some(Duration::from_secs(5)) };
        assert_eq!((request.deadlines, request.priority), (deadlines, -1));
        let typed = json!({"type": "demo_fast", "prompt": "a"});
        let Asked::Typed(submission) = read(json!({"input": typed, "policy": policy})).unwrap().asked else {
            panic!("it names a type")
        };
        assert_eq!((submission.deadlines, submission.priority), (deadlines, -1));
        for policy in [json!({"executionTimeout": 4999}), json!({"ttl": 604_800_001}), json!({"ttl": "1"}), json!(5)] {
            assert!(refusal(json!({"input": {}, "policy": policy})).contains("policy"));
        }
    }

    #[test]
    fn what_has_no_effect_is_said() {
        let request = read(json!({"input": {}, "webhook": "https://x", "s3Config": {"accessSecret": "s"}})).unwrap();
        assert_eq!((request.webhook.as_deref(), request.notes), (Some("https://x"), vec![NO_WEBHOOK, NO_S3]));
        assert!(read(json!({"input": {}})).unwrap().notes.is_empty());
        for name in OF_THE_RELAY {
            assert_eq!(read(json!({"input": { name: 1 }})).unwrap().notes, [NO_RELAY_FIELDS]);
            assert!(NO_RELAY_FIELDS.contains(name), "{name} is named");
        }
    }

    #[test]
    fn the_last_of_a_query_counts() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let query = vec![pair("a", "1"), pair("wait", "5"), pair("x", ""), pair("wait", "7000")];
        assert_eq!((number(&query, "wait"), text(&query, "a")), (Some(7000_u64), Some("1")));
        assert_eq!((number::<u64>(&query, "x"), text(&query, "b")), (None, None));
        let second = Duration::from_secs(1);
        assert_eq!(wait(&query, second, second, 5 * second), 5 * second);
        assert_eq!(wait(&Vec::new(), 2 * second, second, 5 * second), 2 * second);
    }
}
