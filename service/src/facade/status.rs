//! A job in RunPod's words.

use queue::{Job, JobState, Lease, TOO_SLOW};
use runpod::Status;
use serde_json::{Map, Value, json};

use crate::delivery;
use crate::error::ApiError;
use crate::facade::dialect;
use crate::state::App;

/// The status of a job.
pub(crate) fn of(job: &Job) -> Status {
    match &job.state {
        JobState::Queued => Status::InQueue,
        JobState::Leased(_) => Status::InProgress,
        JobState::Completed(_) => Status::Completed,
        JobState::Failed(reason) if reason.ends_with(TOO_SLOW) => Status::TimedOut,
        JobState::Failed(_) => Status::Failed,
        JobState::Cancelled => Status::Cancelled,
    }
}

/// What is said of a job that was just queued, or called off.
pub(crate) fn brief(job: &Job) -> Value {
    json!({ "id": job.id, "status": of(job).as_str() })
}

/// All that is said of a job, its result included.
pub(crate) async fn full(app: &App, job: &Job) -> Result<Value, ApiError> {
    let mut fields = timed(job);
    match &job.state {
        JobState::Queued | JobState::Cancelled => {}
        JobState::Leased(lease) => {
            fields.insert("workerId".to_owned(), json!(worker(lease)));
            // While a job runs, its output is what the worker last said of its progress.
            let note = job.progress.note.as_deref().and_then(|note| serde_json::from_str(note).ok());
            if let Some(note) = note {
                fields.insert("output".to_owned(), note);
            }
        }
        JobState::Completed(output) => {
            if let Some(output) = delivery::whole(app, output).await? {
                fields.insert("output".to_owned(), dialect::answer(job, output));
            }
        }
        JobState::Failed(reason) => {
            fields.insert("error".to_owned(), json!(reason));
        }
    }
    Ok(Value::Object(fields))
}

/// Id, status, and how long it waited and ran.
fn timed(job: &Job) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("id".to_owned(), json!(job.id));
    fields.insert("status".to_owned(), json!(of(job).as_str()));
    if let Some(started) = job.started {
        fields.insert("delayTime".to_owned(), json!(started.0.saturating_sub(job.created.0)));
        if let Some(finished) = job.finished {
            fields.insert("executionTime".to_owned(), json!(finished.0.saturating_sub(started.0)));
        }
    }
    fields
}

/// A worker's own name, without what tells it from others of its name.
fn worker(lease: &Lease) -> &str {
    let owner = lease.owner.as_str();
    owner.rsplit_once('.').map_or(owner, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use queue::{
        Deadlines, JobId, LeaseError, MicroUsd, Mode, NewJob, Outcome, Owner, Quality, RoomName, Source, UnixMs,
        UserName,
    };

    use super::*;

    const START: UnixMs = UnixMs(1_000);

    fn job() -> Job {
        let order = NewJob {
            room: RoomName::new("room").unwrap(),
            user: UserName::new("ada").unwrap(),
            key: None,
            ask: None,
            model: None,
            input: "{}".to_owned(),
            mode: Mode::Local,
            quality: Quality::Final,
            priority: 0,
            expected: Duration::from_secs(1),
            webhook: None,
            deadlines: Deadlines::default(),
            may_spend: false,
        };
        Job::new(JobId::from_random([1; 16]), order, START)
    }

    fn fail(job: &mut Job, reason: &str) -> Result<(), LeaseError> {
        let outcome = Outcome::Failed { reason: reason.to_owned(), is_final: true, cost: MicroUsd::default() };
        let fence = job.fence;
        job.finish(fence, outcome, START.after(Duration::from_millis(700))).map(|_| ())
    }

    #[test]
    fn a_job_s_times_are_milliseconds_of_waiting_and_of_running() {
        let mut job = job();
        assert_eq!(Value::Object(timed(&job)), json!({"id": job.id, "status": "IN_QUEUE"}));
        job.lease(Owner::new("w.abc").unwrap(), Source::Peer, START.after(Duration::from_millis(200))).unwrap();
        assert_eq!(Value::Object(timed(&job)), json!({"id": job.id, "status": "IN_PROGRESS", "delayTime": 200}));
        fail(&mut job, "no").unwrap();
        let ended = json!({"id": job.id, "status": "FAILED", "delayTime": 200, "executionTime": 500});
        assert_eq!(Value::Object(timed(&job)), ended);
    }

    #[test]
    fn a_job_that_took_too_long_timed_out() {
        let mut job = job();
        job.lease(Owner::new("w.abc").unwrap(), Source::Peer, START).unwrap();
        fail(&mut job, TOO_SLOW).unwrap();
        assert_eq!(of(&job), Status::TimedOut);
    }

    #[test]
    fn a_worker_is_shown_by_its_own_name() {
        let mut job = job();
        let lease = job.lease(Owner::new("pod.7.k3f9a2bc").unwrap(), Source::Peer, START).unwrap();
        assert_eq!(worker(&lease), "pod.7");
    }
}
