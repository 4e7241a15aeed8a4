//! A job of the queue and its life: queued, leased, and ended in exactly one way.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{AGEING_EVERY, LEASE_TIME, REASON_BYTES_MAX, TRIES_MAX};
use crate::money::MicroUsd;
use crate::names::{Ask, IdempotencyKey, JobId, Model, Owner, RoomName, UserName};
use crate::time::UnixMs;

/// Who may do a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Whoever is best; the cloud if peers are too slow and money allows.
    #[default]
    Auto,
    /// Peers and the relay's own machine only.
    Local,
    /// The cloud only.
    Cloud,
}

/// How good the picture must be: drafts stay with peers, final ones may overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// Soon and cheap; never overflows under [`Mode::Auto`].
    Draft,
    /// As the job type says.
    #[default]
    Final,
}

/// Who did a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A worker on the relay's own machine.
    Local,
    /// A member of the room.
    Peer,
    /// A cloud endpoint, paid.
    Cloud,
}

/// What the API calls a job's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waits for somebody to take it.
    Queued,
    /// Somebody works on it.
    Processing,
    /// There is a result.
    Completed,
    /// There will be no result.
    Failed,
    /// Called off by its user.
    Cancelled,
}

impl Status {
    /// Whether nothing changes any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Processing => false,
            Self::Completed | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// How long a submitter wants a job (RunPod's `policy`); as long as it takes, where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadlines {
    /// From its submission, whatever becomes of it: afterwards nobody knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// Of one lease of a worker: afterwards the job has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Duration>,
}

/// What is over of a job's [`Deadlines`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// Its time as a whole.
    Gone,
    /// The time of the present lease.
    TooSlow,
}

/// The reason of a job that failed by [`Overdue::TooSlow`].
pub const TOO_SLOW: &str = "it took longer than its submitter wanted";

/// What is to be kept of a submission; what it asks for has been checked against the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewJob {
    /// Where it is asked for.
    pub room: RoomName,
    /// By whom.
    pub user: UserName,
    /// So that asking again is no second job; counts within one room and user.
    pub key: Option<IdempotencyKey>,
    /// Its type; `None` for a job that came through the RunPod facade with an input of its own.
    pub ask: Option<Ask>,
    /// What a worker must have; `None` if any worker of the room may take it.
    pub model: Option<Model>,
    /// JSON text that the worker is given: an order of a job type, or a facade's input as it came.
    pub input: String,
    /// Who may do it.
    pub mode: Mode,
    /// How good it must be.
    pub quality: Quality,
    /// Higher goes first; 0 is usual.
    pub priority: i32,
    /// How long it takes as its type says, until rates are measured.
    pub expected: Duration,
    /// Where to tell that it has ended (a RunPod client's `webhook`); a hint only.
    pub webhook: Option<String>,
    /// How long its submitter wants it at all.
    #[serde(default)]
    pub deadlines: Deadlines,
    /// Whether its submitter had the right to spend when it was submitted: without it no money is ever held for the job.
    #[serde(default)]
    pub may_spend: bool,
}

/// The right to deliver one job, until it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who holds it.
    pub owner: Owner,
    /// What kind of worker that is.
    pub source: Source,
    /// Rises with every lease of the job: what comes under an older one is late and changes nothing.
    pub fence: u64,
    /// When it ends unless a heartbeat comes; `None` if a paid attempt decides.
    pub until: Option<UnixMs>,
    /// Since when.
    pub since: UnixMs,
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits.
    Queued,
    /// Somebody has it.
    Leased(Lease),
    /// There is a result.
    Completed(Output),
    /// Every try failed, or one said that no other would succeed.
    Failed(String),
    /// Called off.
    Cancelled,
}

/// A result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// JSON text as the worker gave it, without the pictures that are kept as files.
    pub json: Option<String>,
    /// Pictures and clips in the result store, as `bucket/user/file`.
    pub files: Vec<String>,
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Thousandths done.
    pub permille: u16,
    /// Whatever JSON text the worker told, for RunPod's clients.
    pub note: Option<String>,
}

/// How a lease ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a result.
    Completed {
        /// It.
        output: Output,
        /// What the cloud charged for it.
        cost: MicroUsd,
    },
    /// Without one.
    Failed {
        /// Why, for people.
        reason: String,
        /// Whether another try would fail as well.
        is_final: bool,
        /// What the cloud charged nevertheless.
        cost: MicroUsd,
    },
    /// The holder stops, and no try is lost.
    HandedBack,
}

/// Why what came under a lease changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Another lease has been granted since, or this one has ended.
    #[error("this lease has ended")]
    Stale,
    /// The job was called off.
    #[error("the job was cancelled")]
    Cancelled,
}

/// What a transition changed, for whoever keeps count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It waits again.
    Requeued,
    /// It has ended.
    Ended,
}

/// A job, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What was asked.
    pub order: NewJob,
    /// When.
    pub created: UnixMs,
    /// Where it is.
    pub state: JobState,
    /// Rises with every change: what an event stream has told already.
    pub version: u64,
    /// The fence of the newest lease.
    pub fence: u64,
    /// Leases that ended without a result.
    pub tries: u32,
    /// What they said, one each.
    pub reasons: Vec<String>,
    /// How far the present lease is.
    pub progress: Progress,
    /// When the newest lease began, and when the job ended.
    pub started: Option<UnixMs>,
    /// See [`Self::started`].
    pub finished: Option<UnixMs>,
    /// Who did it, or does.
    pub source: Option<Source>,
    /// All that the cloud charged for it.
    pub cost: MicroUsd,
    /// Paid attempts so far.
    pub attempts: u32,
    /// What it was before it fell back to its present type.
    pub fallback_of: Option<Ask>,
    /// Why it goes where it goes.
    pub route: Option<String>,
}

impl Job {
    /// A job that waits.
    pub fn new(id: JobId, order: NewJob, now: UnixMs) -> Self {
        Self {
            id,
            order,
            created: now,
            state: JobState::Queued,
            version: 1,
            fence: 0,
            tries: 0,
            reasons: Vec::new(),
            progress: Progress::default(),
            started: None,
            finished: None,
            source: None,
            cost: MicroUsd::default(),
            attempts: 0,
            fallback_of: None,
            route: None,
        }
    }

    /// Gives it to `owner`; `None` unless it waits. A worker's lease ends by itself, the cloud's with its paid attempt.
    pub fn lease(&mut self, owner: Owner, source: Source, now: UnixMs) -> Option<Lease> {
        if self.state != JobState::Queued {
            return None;
        }
        self.fence += 1;
        let until = match source {
            Source::Local | Source::Peer => Some(now.after(LEASE_TIME)),
            Source::Cloud => None,
        };
        let lease = Lease { owner, source, fence: self.fence, until, since: now };
        self.state = JobState::Leased(lease.clone());
        self.source = Some(source);
        self.started = Some(now);
        self.progress = Progress::default();
        self.version += 1;
        Some(lease)
    }

    /// Renews the lease with this fence, and takes note of progress, which never goes back.
    pub fn beat(&mut self, fence: u64, progress: Option<Progress>, now: UnixMs) -> Result<(), LeaseError> {
        let lease = self.held(fence)?;
        lease.until = lease.until.map(|_| now.after(LEASE_TIME));
        if let Some(progress) = progress.filter(|progress| progress.permille >= self.progress.permille) {
            self.progress = progress;
            self.version += 1;
        }
        Ok(())
    }

    /// Ends the lease with this fence.
    pub fn finish(&mut self, fence: u64, outcome: Outcome, now: UnixMs) -> Result<Change, LeaseError> {
        self.held(fence)?;
        Ok(match outcome {
            Outcome::Completed { output, cost } => {
                self.cost = self.cost.plus(cost);
                self.progress.permille = 1000;
                self.end(JobState::Completed(output), now)
            }
            Outcome::Failed { reason, is_final, cost } => {
                self.cost = self.cost.plus(cost);
                self.fail(reason, is_final, now)
            }
            Outcome::HandedBack => self.requeue(),
        })
    }

    /// Ends a lease that nobody renewed in time.
    pub fn expire(&mut self, now: UnixMs) -> Change {
        match &self.state {
            JobState::Leased(Lease { until: Some(until), owner, .. }) if *until <= now => {
                let reason = format!("{owner} was not heard of for {} s", LEASE_TIME.as_secs());
                self.fail(reason, false, now)
            }
            _ => Change::None,
        }
    }

    /// Calls it off; a job that has ended stays as it is.
    pub fn cancel(&mut self, now: UnixMs) -> Change {
        if self.status().is_final() {
            return Change::None;
        }
        self.end(JobState::Cancelled, now)
    }

    /// Gives it up while it waits, for a reason that no worker caused.
    pub fn refuse(&mut self, reason: &str, now: UnixMs) -> Change {
        if self.state != JobState::Queued {
            return Change::None;
        }
        self.end(JobState::Failed(cut(reason)), now)
    }

    /// Has a job that failed wait again, its tries forgotten (RunPod's `retry`).
    pub fn retry(&mut self) -> Change {
        if self.status() != Status::Failed {
            return Change::None;
        }
        self.tries = 0;
        self.reasons.clear();
        self.finished = None;
        self.requeue()
    }

    /// Itself without what may be long: its input, the JSON of its result, and what a worker tells of its progress.
    pub fn head(&self) -> Self {
        let state = match &self.state {
            JobState::Completed(output) => JobState::Completed(Output { json: None, files: output.files.clone() }),
            JobState::Queued | JobState::Leased(_) | JobState::Failed(_) | JobState::Cancelled => self.state.clone(),
        };
        let NewJob { room, user, key, ask, model, webhook, .. } = &self.order;
        let order = NewJob {
            room: room.clone(),
            user: user.clone(),
            key: key.clone(),
            ask: ask.clone(),
            model: model.clone(),
            input: String::new(),
            webhook: webhook.clone(),
            mode: self.order.mode,
            quality: self.order.quality,
            priority: self.order.priority,
            expected: self.order.expected,
            deadlines: self.order.deadlines,
            may_spend: self.order.may_spend,
        };
        Self {
            id: self.id.clone(),
            order,
            state,
            reasons: self.reasons.clone(),
            progress: Progress { permille: self.progress.permille, note: None },
            fallback_of: self.fallback_of.clone(),
            route: self.route.clone(),
            ..*self
        }
    }

    /// What the API calls its state.
    pub fn status(&self) -> Status {
        match self.state {
            JobState::Queued => Status::Queued,
            JobState::Leased(_) => Status::Processing,
            JobState::Completed(_) => Status::Completed,
            JobState::Failed(_) => Status::Failed,
            JobState::Cancelled => Status::Cancelled,
        }
    }

    /// The lease, if somebody has one.
    pub fn present_lease(&self) -> Option<&Lease> {
        match &self.state {
            JobState::Leased(lease) => Some(lease),
            JobState::Queued | JobState::Completed(_) | JobState::Failed(_) | JobState::Cancelled => None,
        }
    }

    /// Which of its deadlines is over.
    pub fn overdue(&self, now: UnixMs) -> Option<Overdue> {
        let Deadlines { ttl, execution } = self.order.deadlines;
        let is_over = |from: UnixMs, time: Option<Duration>| time.is_some_and(|time| now >= from.after(time));
        if is_over(self.created, ttl) {
            return Some(Overdue::Gone);
        }
        let lease = self.present_lease()?;
        (lease.source != Source::Cloud && is_over(lease.since, execution)).then_some(Overdue::TooSlow)
    }

    /// Its place in the queue: the lowest rank goes first, then the lowest id. A step of priority is worth
    /// [`AGEING_EVERY`] of waiting, so a rank never changes and nobody starves.
    pub fn rank(&self) -> i64 {
        let ageing = i64::try_from(AGEING_EVERY.as_millis()).expect("a minute is few milliseconds");
        i64::try_from(self.created.0).unwrap_or(i64::MAX).saturating_sub(i64::from(self.order.priority) * ageing)
    }

    fn held(&mut self, fence: u64) -> Result<&mut Lease, LeaseError> {
        match &mut self.state {
            JobState::Leased(lease) if lease.fence == fence => Ok(lease),
            JobState::Cancelled => Err(LeaseError::Cancelled),
            JobState::Leased(_) | JobState::Queued | JobState::Completed(_) | JobState::Failed(_) => {
                Err(LeaseError::Stale)
            }
        }
    }

    fn fail(&mut self, reason: String, is_final: bool, now: UnixMs) -> Change {
        self.tries += 1;
        self.reasons.push(cut(&reason));
        if !is_final && self.tries < TRIES_MAX {
            return self.requeue();
        }
        let reasons = self.reasons.join("; ");
        self.end(JobState::Failed(reasons), now)
    }

    fn requeue(&mut self) -> Change {
        self.state = JobState::Queued;
        self.source = None;
        self.started = None;
        self.progress = Progress::default();
        self.version += 1;
        Change::Requeued
    }

    fn end(&mut self, state: JobState, now: UnixMs) -> Change {
        self.state = state;
        self.finished = Some(now);
        self.version += 1;
        Change::Ended
    }
}

/// `text` without control characters, up to [`REASON_BYTES_MAX`] bytes.
fn cut(text: &str) -> String {
    let mut kept = String::new();
    for character in text.chars().map(|character| if character.is_control() { ' ' } else { character }) {
        if kept.len() + character.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        kept.push(character);
    }
    kept
}

#[cfg(test)]
mod tests;
