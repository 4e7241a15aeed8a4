//! How an endpoint is: its queue and its workers.

use serde_json::Value;

use crate::contract::{Unreadable, count};

/// A reply of `/health`. Which numbers there are differs between pages and SDKs, so all may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Its jobs.
    pub jobs: JobCounts,
    /// Its workers.
    pub workers: WorkerCounts,
}

/// Jobs by where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Ended with a result.
    pub completed: Option<u64>,
    /// Ended without one.
    pub failed: Option<u64>,
    /// Being run.
    pub in_progress: Option<u64>,
    /// Waiting.
    pub in_queue: Option<u64>,
    /// Run again by the endpoint itself.
    pub retried: Option<u64>,
}

/// Workers by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    /// Paid, without work.
    pub idle: Option<u64>,
    /// At work.
    pub running: Option<u64>,
    /// Starting.
    pub initializing: Option<u64>,
    /// Could start at once.
    pub ready: Option<u64>,
    /// Cannot be had at the moment.
    pub throttled: Option<u64>,
    /// Broken.
    pub unhealthy: Option<u64>,
}

impl Health {
    /// Reads a reply.
    pub fn read(reply: &Value) -> Result<Self, Unreadable> {
        if !reply.is_object() {
            return Err(Unreadable::NotAnObject);
        }
        let job = |name: &str| count(reply.get("jobs").and_then(|jobs| jobs.get(name)));
        let worker = |name: &str| count(reply.get("workers").and_then(|workers| workers.get(name)));
        let jobs = JobCounts {
            completed: job("completed"),
            failed: job("failed"),
            in_progress: job("inProgress"),
            in_queue: job("inQueue"),
            retried: job("retried"),
        };
        let workers = WorkerCounts {
            idle: worker("idle"),
            running: worker("running"),
            initializing: worker("initializing"),
            ready: worker("ready"),
            throttled: worker("throttled"),
            unhealthy: worker("unhealthy"),
        };
        Ok(Self { jobs, workers })
    }

    /// Why nothing should be sent there, for people; `None` if it seems well. `queued_max`: jobs that may wait there while it
    /// has no worker at all, because it starts from none.
    pub fn trouble(&self, queued_max: u64) -> Option<&'static str> {
        let WorkerCounts { idle, running, initializing, ready, throttled, unhealthy } = self.workers;
        let none = |counts: &[Option<u64>]| counts.iter().all(|count| count.unwrap_or(0) == 0);
        if !none(&[throttled, unhealthy]) && none(&[running, idle, ready]) {
            return Some("its workers are throttled or broken");
        }
        let has_no_worker = none(&[idle, running, initializing, ready]);
        let has_queue = self.jobs.in_queue.unwrap_or(0) > queued_max;
        (has_no_worker && has_queue).then_some("jobs wait there and it has no workers")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_numbers_may_be_missing() {
        let documented = json!({"jobs": {"completed": 1, "failed": 5, "inProgress": 0, "inQueue": 2, "retried": 0},
            "workers": {"idle": 0, "running": 0}});
        let health = Health::read(&documented).unwrap();
        assert_eq!((health.jobs.completed, health.jobs.in_queue), (Some(1), Some(2)));
        assert_eq!((health.workers.idle, health.workers.throttled), (Some(0), None));
        assert_eq!(Health::read(&json!({})).unwrap(), Health::default());
        assert!(Health::read(&json!([])).is_err());
    }

    #[test]
    fn a_queue_without_workers_is_trouble_and_so_are_broken_ones() {
        let trouble = |workers: Value, queued: u64| {
            let reply = json!({"jobs": {"inQueue": queued}, "workers": workers});
            Health::read(&reply).unwrap().trouble(3).is_some()
        };
        assert!(!trouble(json!({"idle": 0, "running": 0}), 3), "it starts from none");
        assert!(trouble(json!({"idle": 0, "running": 0}), 4));
        assert!(!trouble(json!({"initializing": 1}), 4));
        assert!(trouble(json!({"running": 0, "throttled": 1}), 0));
        assert!(trouble(json!({"running": 0, "unhealthy": 2}), 0));
        assert!(!trouble(json!({"running": 1, "unhealthy": 2}), 0));
    }
}
