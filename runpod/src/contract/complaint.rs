//! Why a worker failed: one sentence for people, and what is no business of theirs.

use serde_json::Value;

use crate::contract::{cut, message, take};
use crate::limits::{MESSAGE_BYTES_MAX, TRACEBACK_BYTES_MAX};

/// What is said where nothing was.
const NOTHING: &str = "the endpoint gave no reason";

/// An `error` of a reply, in whichever shape it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// For people: one line.
    pub message: String,
    /// The kind of exception, if it was one.
    pub kind: Option<String>,
    /// Paths and host names of the worker, and often the prompt: for neither people nor logs.
    pub traceback: Option<String>,
}

impl Complaint {
    /// A complaint of one sentence.
    pub fn new(text: &str) -> Self {
        let text = message(text);
        Self { message: if text.is_empty() { NOTHING.to_owned() } else { text }, kind: None, traceback: None }
    }

    /// Reads a text, a JSON text of an object (as the Python SDK writes exceptions), an object, or a list of these.
    pub fn read(error: &Value) -> Self {
        match error {
            Value::String(text) => match serde_json::from_str(text) {
                Ok(inner @ Value::Object(_)) => Self::of_object(&inner),
                Ok(_) | Err(_) => Self::of_text(text),
            },
            Value::Object(_) => Self::of_object(error),
            Value::Array(errors) => {
                let texts: Vec<String> = errors.iter().take(8).map(Self::read_shallow).collect();
                Self::new(&texts.join("; "))
            }
            Value::Null | Value::Bool(_) => Self::new(""),
            Value::Number(number) => Self::new(&number.to_string()),
        }
    }

    /// `handler: message traceback: Traceback …`, as generators' errors are written, or a plain text.
    fn of_text(text: &str) -> Self {
        let at = text.find("Traceback (most recent call last)");
        let (said, traceback) = at.map_or((text, None), |at| (&text[..at], Some(long(&text[at..]))));
        let said = said.trim().trim_end_matches("traceback:");
        Self { traceback, ..Self::new(said) }
    }

    fn of_object(object: &Value) -> Self {
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let said = ["error_message", "message", "error", "detail"].into_iter().find_map(text);
        let kind = text("error_type").map(|kind| cut(kind, MESSAGE_BYTES_MAX / 4));
        Self { kind, traceback: text("error_traceback").map(long), ..Self::new(said.unwrap_or_default()) }
    }

    /// One of a list, of which lists inside are not read.
    fn read_shallow(error: &Value) -> String {
        match error {
            Value::String(text) => Self::of_text(text).message,
            Value::Object(_) => Self::of_object(error).message,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => NOTHING.to_owned(),
        }
    }
}

/// A traceback keeps its lines.
fn long(text: &str) -> String {
    let plain = text.chars().filter(|character| *character == '\n' || !character.is_control());
    take(plain, TRACEBACK_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_exception_of_the_sdk_shows_its_message_and_keeps_its_traceback_apart() {
        let exception = json!({
            "error_type": "<class 'ValueError'>", "error_message": "no such model",
            "error_traceback": "Traceback (most recent call last):\n  File \"/app/secret.py\"", "hostname": "pod-64",
            "worker_id": "w1", "runpod_version": "1.12.0",
        });
        for error in [json!(exception.to_string()), exception] {
            let complaint = Complaint::read(&error);
            assert_eq!(complaint.message, "no such model");
            assert_eq!(complaint.kind.as_deref(), Some("<class 'ValueError'>"));
            assert!(complaint.traceback.unwrap().contains("\n  File \"/app/secret.py\""));
        }
    }

    #[test]
    fn every_other_shape_is_one_line_for_people() {
        let said = |error: Value| Complaint::read(&error).message;
        assert_eq!(said(json!("Unknown task: dance\n")), "Unknown task: dance");
        assert_eq!(said(json!(["prompt is a required input.", {"message": "b"}])), "prompt is a required input.; b");
        assert_eq!(said(json!({"error": "no space"})), "no space");
        assert_eq!(said(json!("42")), "42");
        for nothing in [json!(null), json!(""), json!({}), json!([[["deep"]]])] {
            assert_eq!(said(nothing), NOTHING);
        }
        assert_eq!(said(json!("x".repeat(9999))).len(), MESSAGE_BYTES_MAX);
    }

    #[test]
    fn a_generators_error_hides_its_traceback_too() {
        let text = "handler: it broke traceback: Traceback (most recent call last):\n File \"/app/x.py\"";
        let complaint = Complaint::read(&json!(text));
        assert_eq!(complaint.message, "handler: it broke");
        assert!(complaint.traceback.unwrap().ends_with("/app/x.py\""));
    }
}
