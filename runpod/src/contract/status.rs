//! Where a job is, as its endpoint says.

use std::time::Duration;

use serde_json::Value;

use crate::contract::{Complaint, RemoteId, Unreadable, count, cut};
use crate::limits::{MESSAGE_BYTES_MAX, REMOTE_ID_BYTES_MAX};

/// A job's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Waits for a worker.
    InQueue,
    /// A worker has it.
    InProgress,
    /// It ended with a result.
    Completed,
    /// It ended without one.
    Failed,
    /// It was called off.
    Cancelled,
    /// It ran or waited too long.
    TimedOut,
}

impl Status {
    /// Reads a status; `None` for an unknown one.
    pub fn read(text: &str) -> Option<Self> {
        Some(match text {
            "IN_QUEUE" => Self::InQueue,
            "IN_PROGRESS" | "RUNNING" => Self::InProgress,
            "COMPLETED" => Self::Completed,
            "FAILED" => Self::Failed,
            "CANCELLED" => Self::Cancelled,
            "TIMED_OUT" => Self::TimedOut,
            _ => return None,
        })
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InQueue => "IN_QUEUE",
            Self::InProgress => "IN_PROGRESS",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::TimedOut => "TIMED_OUT",
        }
    }

    /// Whether nothing changes any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::InQueue | Self::InProgress => false,
            Self::Completed | Self::Failed | Self::Cancelled | Self::TimedOut => true,
        }
    }
}

/// What an endpoint says of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobStatus {
    /// Which job.
    pub id: RemoteId,
    /// Where it is.
    pub status: Status,
    /// A status that nobody has heard of, read as in progress; worth a warning.
    pub unknown_status: Option<String>,
    /// The result; while it runs, what it tells of its progress.
    pub output: Option<Value>,
    /// What went wrong.
    pub error: Option<Complaint>,
    /// How long it waited: in the queue and for its worker to start.
    pub delay: Option<Duration>,
    /// How long it ran. Endpoints err: a price is bounded elsewhere.
    pub execution: Option<Duration>,
    /// Who ran it.
    pub worker: Option<String>,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// With this result.
    Completed(Value),
    /// Without one.
    Failed(Failure),
    /// It was called off.
    Cancelled,
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub kind: FailureKind,
    /// What was said.
    pub complaint: Complaint,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The worker says so.
    Worker,
    /// It took longer than its policy allows.
    TimedOut,
    /// It is said to be completed, and there is nothing.
    ResultMissing,
}

impl FailureKind {
    /// A word for APIs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker_failed",
            Self::TimedOut => "timed_out",
            Self::ResultMissing => "result_missing",
        }
    }
}

impl JobStatus {
    /// Reads a reply about `asked`; `None` where the reply itself is to name the job, as that of `/run` is.
    pub fn read(reply: &Value, asked: Option<&RemoteId>) -> Result<Self, Unreadable> {
        let Value::Object(fields) = reply else { return Err(Unreadable::NotAnObject) };
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        // Which job a reply is about was decided by the question.
        let said = || text("id").and_then(|id| RemoteId::new(id).ok());
        let id = asked.cloned().or_else(said).ok_or(Unreadable::NoId)?;
        let written = text("status").ok_or(Unreadable::NoStatus)?;
        let status = Status::read(written);
        let present = |name: &str| fields.get(name).filter(|value| !value.is_null());
        let time = |name: &str| count(fields.get(name)).map(Duration::from_millis);
        Ok(Self {
            id,
            status: status.unwrap_or(Status::InProgress),
            unknown_status: status.is_none().then(|| cut(written, MESSAGE_BYTES_MAX / 8)),
            output: present("output").cloned(),
            error: present("error").map(Complaint::read),
            delay: time("delayTime"),
            execution: time("executionTime"),
            worker: text("workerId").map(|worker| cut(worker, REMOTE_ID_BYTES_MAX)),
        })
    }

    /// How it ended; `None` if it has not.
    pub fn end(&self) -> Option<End> {
        let failed = |kind, nothing: &str| {
            let complaint = self.error.clone().unwrap_or_else(|| Complaint::new(nothing));
            Some(End::Failed(Failure { kind, complaint }))
        };
        match self.status {
            Status::InQueue | Status::InProgress => None,
            Status::Completed => match &self.output {
                Some(output) => Some(End::Completed(output.clone())),
                None => failed(FailureKind::ResultMissing, "the endpoint says it is completed but gave no result"),
            },
            Status::Failed => failed(FailureKind::Worker, ""),
            Status::Cancelled => Some(End::Cancelled),
            Status::TimedOut => failed(FailureKind::TimedOut, "it took longer than it may on this endpoint"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(reply: Value) -> JobStatus {
        JobStatus::read(&reply, Some(&RemoteId::new("job-u1").unwrap())).unwrap()
    }

    #[test]
    fn a_full_reply_is_read_whole() {
        let status = read(json!({
            "id": "job-u1", "status": "COMPLETED", "output": {"seed": 1}, "delayTime": 1500, "executionTime": 2600.7,
            "workerId": "w1", "something": "new",
        }));
        assert_eq!(
            (status.delay, status.execution),
            (Some(Duration::from_millis(1500)), Some(Duration::from_millis(2600)))
        );
        assert_eq!(status.worker.as_deref(), Some("w1"));
        assert_eq!(status.end(), Some(End::Completed(json!({"seed": 1}))));
    }

    #[test]
    fn an_unknown_status_is_progress_and_noticed() {
        let status = read(json!({"status": "WARMING_UP"}));
        assert_eq!((status.status, status.unknown_status.as_deref()), (Status::InProgress, Some("WARMING_UP")));
        assert_eq!(status.end(), None);
        let status = read(json!({"status": "RUNNING"}));
        assert_eq!((status.status, status.unknown_status), (Status::InProgress, None));
    }

    #[test]
    fn completed_without_a_result_is_a_failure_of_its_own_kind() {
        for reply in [json!({"status": "COMPLETED"}), json!({"status": "COMPLETED", "output": null})] {
            let Some(End::Failed(failure)) = read(reply).end() else { panic!("it did not fail") };
            assert_eq!(failure.kind.as_str(), "result_missing");
        }
        assert!(matches!(read(json!({"status": "COMPLETED", "output": false})).end(), Some(End::Completed(_))));
    }

    #[test]
    fn every_other_end_is_itself() {
        let error = json!({"status": "FAILED", "error": "{\"error_message\":\"no\"}"});
        let Some(End::Failed(failure)) = read(error).end() else { panic!("it did not fail") };
        assert_eq!((failure.kind, failure.complaint.message.as_str()), (FailureKind::Worker, "no"));
        let Some(End::Failed(failure)) = read(json!({"status": "TIMED_OUT"})).end() else { panic!("it did not fail") };
        assert_eq!(failure.kind, FailureKind::TimedOut);
        assert_eq!(read(json!({"status": "CANCELLED"})).end(), Some(End::Cancelled));
    }

    #[test]
    fn the_question_decides_which_job_a_reply_is_about() {
        assert_eq!(read(json!({"id": "other", "status": "IN_QUEUE"})).id.as_str(), "job-u1");
        let unasked = |reply: Value| JobStatus::read(&reply, None);
        assert_eq!(unasked(json!({"id": "a-u1", "status": "IN_QUEUE"})).unwrap().id.as_str(), "a-u1");
        assert_eq!(unasked(json!({"status": "IN_QUEUE"})), Err(Unreadable::NoId));
        assert_eq!(unasked(json!({"id": "../../x", "status": "IN_QUEUE"})), Err(Unreadable::NoId));
        assert_eq!(unasked(json!({"id": "a"})), Err(Unreadable::NoStatus));
        assert_eq!(unasked(json!(["a"])), Err(Unreadable::NotAnObject));
    }

    #[test]
    fn statuses_are_written_as_they_are_read() {
        use Status::{Cancelled, Completed, Failed, InProgress, InQueue, TimedOut};
        for status in [InQueue, InProgress, Completed, Failed, Cancelled, TimedOut] {
            assert_eq!(Status::read(status.as_str()), Some(status));
        }
    }
}
