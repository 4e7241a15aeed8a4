//! What a job has yielded since it was last asked.

use serde_json::Value;

use crate::contract::{Status, Unreadable};
use crate::limits::STREAM_ITEMS_MAX;

/// A reply of `/stream`, in either of the two shapes that are seen: an object with a status, or a bare list.
#[derive(Clone, Debug, PartialEq)]
pub struct Streamed {
    /// Where the job is, if it says so.
    pub status: Option<Status>,
    /// What it yielded, in order.
    pub items: Vec<Value>,
}

impl Streamed {
    /// Reads a reply.
    pub fn read(reply: &Value) -> Result<Self, Unreadable> {
        let (status, list) = match reply {
            Value::Array(list) => (None, list.as_slice()),
            Value::Object(fields) => {
                let status = fields.get("status").and_then(Value::as_str);
                // As in a status: what nobody has heard of is progress.
                let status = status.map(|text| Status::read(text).unwrap_or(Status::InProgress));
                let list = fields.get("stream").and_then(Value::as_array);
                (status, list.map(Vec::as_slice).unwrap_or_default())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return Err(Unreadable::NotAnObject),
        };
        if list.len() > STREAM_ITEMS_MAX {
            return Err(Unreadable::TooMany);
        }
        let items = list.iter().map(|item| item.get("output").unwrap_or(item).clone()).collect();
        Ok(Self { status, items })
    }

    /// Whether nothing more comes: the job has ended and everything has been taken.
    pub fn is_over(&self) -> bool {
        self.items.is_empty() && self.status.is_some_and(Status::is_final)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_shapes_are_read() {
        let object = json!({"status": "IN_PROGRESS", "stream": [{"output": 1}, {"output": {"a": 2}}]});
        let read = Streamed::read(&object).unwrap();
        assert_eq!((read.status, read.items), (Some(Status::InProgress), vec![json!(1), json!({"a": 2})]));
        let read = Streamed::read(&json!([{"output": 1, "metrics": {}}, "bare"])).unwrap();
        assert_eq!((read.status, read.items), (None, vec![json!(1), json!("bare")]));
    }

    #[test]
    fn it_is_over_when_the_job_has_ended_and_nothing_is_left() {
        let is_over = |reply: Value| Streamed::read(&reply).unwrap().is_over();
        assert!(is_over(json!({"status": "CANCELLED", "stream": []})));
        assert!(is_over(json!({"status": "COMPLETED"})));
        assert!(!is_over(json!({"status": "COMPLETED", "stream": [{"output": 1}]})));
        assert!(!is_over(json!({"status": "SOMETHING", "stream": []})));
        assert!(!is_over(json!([])), "a bare list does not say");
    }

    #[test]
    fn a_stream_is_bounded() {
        assert!(Streamed::read(&json!(vec![1; STREAM_ITEMS_MAX])).is_ok());
        assert_eq!(Streamed::read(&json!(vec![1; STREAM_ITEMS_MAX + 1])), Err(Unreadable::TooMany));
        assert_eq!(Streamed::read(&json!("x")), Err(Unreadable::NotAnObject));
    }
}
