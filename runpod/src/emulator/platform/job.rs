//! A job of the emulated endpoint.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use crate::contract::Status;
use crate::emulator::behaviour::Behaviour;

/// What the vendor documents where a policy says nothing.
const EXECUTION_MAX: Duration = Duration::from_secs(600);
const TTL: Duration = Duration::from_secs(24 * 3600);

/// Thirty years.
const WRONG_TIME_MS: u64 = 946_080_000_000;

/// What a client asked for.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    pub(crate) body: Value,
    pub(crate) is_sync: bool,
}

pub(crate) struct Job {
    pub(crate) input: Value,
    pub(crate) webhook: Option<String>,
    pub(crate) execution_max: Duration,
    ttl: Duration,
    pub(crate) expires: Duration,
    pub(crate) is_low: bool,
    pub(crate) is_sync: bool,
    pub(crate) behaviours: BTreeSet<Behaviour>,
    pub(crate) status: Status,
    submitted: Duration,
    begun: Option<Duration>,
    ended: Option<Duration>,
    pub(crate) forget: Option<Duration>,
    pub(crate) output: Option<Value>,
    pub(crate) error: Option<Value>,
    pub(crate) chunks: VecDeque<Value>,
    pub(crate) worker: Option<String>,
    /// Workers that died of it.
    pub(crate) deaths: u32,
}

impl Job {
    pub(crate) fn new(submission: Submission, behaviours: BTreeSet<Behaviour>, now: Duration) -> Self {
        let Submission { body, is_sync } = submission;
        let policy = |name: &str| body.get("policy").and_then(|policy| policy.get(name));
        let time =
            |name: &str, default: Duration| policy(name).and_then(Value::as_u64).map_or(default, Duration::from_millis);
        let ttl = time("ttl", TTL);
        Self {
            webhook: body.get("webhook").and_then(Value::as_str).map(str::to_owned),
            execution_max: time("executionTimeout", EXECUTION_MAX),
            ttl,
            expires: now + ttl,
            is_low: policy("lowPriority").and_then(Value::as_bool).unwrap_or(false),
            is_sync,
            behaviours,
            status: Status::InQueue,
            submitted: now,
            begun: None,
            ended: None,
            forget: None,
            output: None,
            error: None,
            chunks: VecDeque::new(),
            worker: None,
            deaths: 0,
            input: body.get("input").cloned().unwrap_or(Value::Null),
        }
    }

    /// Waits again, as if it had just been asked for.
    pub(crate) fn again(&mut self, now: Duration) {
        self.status = Status::InQueue;
        (self.submitted, self.expires) = (now, now + self.ttl);
        (self.begun, self.ended, self.forget, self.output, self.error) = (None, None, None, None, None);
        self.chunks.clear();
    }

    /// A worker has it.
    pub(crate) fn begin(&mut self, worker: &str, now: Duration) {
        if !self.status.is_final() {
            self.status = Status::InProgress;
            self.worker = Some(worker.to_owned());
            self.begun = Some(now);
        }
    }

    /// How long it had to wait for its worker: its `delayTime`.
    pub(crate) fn waited(&self) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| begun.saturating_sub(self.submitted))
    }

    pub(crate) fn end(&mut self, status: Status, now: Duration) {
        self.status = status;
        self.ended = Some(now);
    }

    pub(crate) fn does(&self, behaviour: Behaviour) -> bool {
        self.behaviours.contains(&behaviour)
    }

    /// What `/status` says.
    pub(crate) fn said(&self, id: &str) -> Value {
        let is_odd = self.status == Status::InProgress && self.does(Behaviour::OddStatus);
        let mut said = json!({"id": id, "status": if is_odd { "WARMING_UP" } else { self.status.as_str() }});
        if let Some(begun) = self.begun {
            said["delayTime"] = json!(ms(self.waited()));
            said["workerId"] = json!(self.worker);
            if let Some(ended) = self.ended {
                let is_wrong = self.does(Behaviour::WrongCost);
                said["executionTime"] = json!(if is_wrong { WRONG_TIME_MS } else { ms(ended.saturating_sub(begun)) });
            }
        }
        if let Some(output) = &self.output {
            said["output"] = output.clone();
        }
        if let Some(error) = &self.error {
            said["error"] = error.clone();
        }
        said
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
