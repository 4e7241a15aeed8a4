//! What every store of the queue does, as one trait.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use queue::{
    Ask, Attempt, AttemptKey, Budgets, Change, Day, Endpoint, Entry, HoldAsk, Job, JobId, Lease, LeaseError, MicroUsd,
    Model, NewJob, Outcome, OverBudget, Owner, Progress, RoomName, Source, Spending, Step, Stepped, UnixMs, UserName,
};
use tokio::sync::broadcast;

use crate::limits::NONCE_BYTES_MAX;

/// Why a call has no answer: nothing of it has happened, unless it says so.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or refuses.
    #[error("the queue's database failed: {0}")]
    Database(String),
    /// A row is not what this version writes.
    #[error("the queue's database holds what this version cannot read: {0}")]
    Unreadable(String),
    /// Too many calls wait already; nothing happened.
    #[error("the queue's database is behind; try again in a moment")]
    Busy,
    /// A room has as many unfinished jobs as it may.
    #[error("the queue of this room is full ({0} jobs); wait for some to end")]
    Full(usize),
    /// Nobody fetches what a job streams.
    #[error("{0} items that this job streamed wait to be fetched; nothing more is kept until they are")]
    Unfetched(usize),
}

/// A job that was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The job, as it is now.
    pub job: Job,
    /// Whether it is new: an idempotency key that its room and user have used gives the job of that time.
    pub is_new: bool,
}

/// Whoever asks for work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The room it serves; `None` for a worker that serves every room.
    pub room: Option<RoomName>,
    /// Its id.
    pub owner: Owner,
    /// What it is.
    pub source: Source,
    /// Models it has; `None` if it takes whatever the room has. Jobs that name no model go to either.
    pub models: Option<Vec<Model>>,
}

/// A job and the lease it is to be done under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The job.
    pub job: Job,
    /// The lease.
    pub lease: Lease,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Go on.
    Renewed,
    /// Stop: nothing of it is wanted.
    Over(LeaseError),
    /// There is no such job.
    Unknown,
}

/// The answer to an attempt at holding money for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Held, and the job is the cloud's under this lease.
    Taken(Box<Taken>, Box<Attempt>),
    /// A budget is in the way.
    Refused(OverBudget),
    /// The job does not wait any more, is [`queue::Mode::Local`], has an attempt that is not settled, or has had as many as it
    /// may; or the nonce was used before.
    NotNow,
}

/// The answer to a worker of the cloud that wants to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It may; the job is this one.
    Granted(Box<Job>),
    /// Somebody has begun already, it came too late, or the job was called off.
    Refused,
}

/// Numbers of a room or of all, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Jobs of each status.
    pub queued: u64,
    /// See [`Self::queued`].
    pub processing: u64,
    /// See [`Self::queued`].
    pub completed: u64,
    /// See [`Self::queued`].
    pub failed: u64,
    /// See [`Self::queued`].
    pub cancelled: u64,
}

/// The savings report: what was paid, and what the room did itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Charged in all.
    pub charged: MicroUsd,
    /// Held at the moment.
    pub held: MicroUsd,
    /// What the cloud would have charged for what workers of rooms did.
    pub saved: MicroUsd,
    /// Jobs done by each.
    pub local_jobs: u64,
    /// See [`Self::local_jobs`].
    pub peer_jobs: u64,
    /// See [`Self::local_jobs`].
    pub cloud_jobs: u64,
}

/// A durable queue with its money. All implementations behave the same, which `tests/conformance.rs` checks against the one
/// in memory.
#[async_trait]
pub trait JobStore: Send + Sync + 'static {
    /// Queues a job under `id`, or finds the one that its room and user submitted under the same idempotency key; else the one
    /// under this id, so that a call whose answer was lost may be repeated. A room that is full ([`StoreError::Full`]) still
    /// answers for jobs it has. Submissions at the same moment may pass the limit by as many as they are.
    async fn submit(&self, id: JobId, order: NewJob, now: UnixMs) -> Result<Submitted, StoreError>;

    /// The same for several jobs, in their order: all of them are queued or none.
    async fn submit_all(&self, orders: Vec<(JobId, NewJob)>, now: UnixMs) -> Result<Vec<Submitted>, StoreError>;

    /// One job.
    async fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError>;

    /// The unfinished jobs of a room (of all rooms if `None`): those being done first, then those waiting, each by rank; then
    /// the finished ones, the newest first; `count_max` in all. Where these are equal, the lower id goes first. Their heads only
    /// ([`Job::head`]): a job may be a hundred times as long.
    async fn list(&self, room: Option<&RoomName>, count_max: usize) -> Result<Vec<Job>, StoreError>;

    /// How many waiting jobs of its room stand before it; `None` unless it waits.
    async fn position(&self, id: &JobId) -> Result<Option<u64>, StoreError>;

    /// The waiting jobs of every room by rank, for the router; where there are more than `count_max`, the first of every room
    /// before the second of any, so that no full room keeps others from being looked at. Their heads only ([`Job::head`]).
    async fn waiting(&self, count_max: usize) -> Result<Vec<Job>, StoreError>;

    /// Gives the first waiting job that fits the offer and is not [`queue::Mode::Cloud`]. Nothing for the cloud, which gets jobs
    /// by [`Self::hold`] alone. A worker that already holds `id`
    /// of a lease keeps it: one offer, one new lease.
    async fn take(&self, offer: &Offer, now: UnixMs) -> Result<Option<Taken>, StoreError>;

    /// Renews a lease, of a worker or of the cloud.
    async fn beat(&self, id: &JobId, fence: u64, progress: Option<Progress>, now: UnixMs) -> Result<Beat, StoreError>;

    /// Ends a lease of a worker. `saving` goes into the ledger if the job is completed by it and it is not nothing: what the
    /// cloud would have charged. `None` if there is no such job. What the outcome says about cost is not believed: a worker
    /// charges nothing. The cloud's lease ends by [`Self::settle`] alone, so its fence is stale here.
    async fn finish(
        &self,
        id: &JobId,
        fence: u64,
        outcome: Outcome,
        saving: MicroUsd,
        now: UnixMs,
    ) -> Result<Option<Result<Job, LeaseError>>, StoreError>;

    /// Calls a job off; `None` if there is none. An open attempt of it stays open until its end is known.
    async fn cancel(&self, id: &JobId, now: UnixMs) -> Result<Option<Job>, StoreError>;

    /// Fails a job that waits ([`Job::refuse`]).
    async fn refuse(&self, id: &JobId, reason: &str, now: UnixMs) -> Result<Change, StoreError>;

    /// Has a failed job wait again, unless its room is full; `None` if there is none.
    async fn retry(&self, id: &JobId) -> Result<Option<Change>, StoreError>;

    /// Makes a waiting job one of another type, model, input and expected time; remembers what it was first.
    async fn fall_back(
        &self,
        id: &JobId,
        to: Ask,
        model: Option<Model>,
        input: String,
        expected: Duration,
    ) -> Result<bool, StoreError>;

    /// Writes down why a waiting job goes where it goes; the version rises only if the text differs. Any other job stays as
    /// it is.
    async fn explain(&self, id: &JobId, route: &str) -> Result<(), StoreError>;

    /// Removes all waiting jobs of a room by cancelling them; says how many. A large room takes several transactions, so some
    /// may be taken meanwhile.
    async fn purge(&self, room: &RoomName, now: UnixMs) -> Result<u64, StoreError>;

    /// Ends the workers' leases that are over, the oldest first; gives the jobs that changed, which are as many as
    /// [`crate::limits::EXPIRED_MAX`] at most: the rest are the next call's.
    async fn expire(&self, now: UnixMs) -> Result<Vec<Job>, StoreError>;

    /// Hands back every lease of this worker; those of the cloud are left to their attempts.
    async fn hand_back(&self, owner: &Owner, now: UnixMs) -> Result<u64, StoreError>;

    /// Appends to what a job streams (JSON text of one item); does not renew the lease. Nothing is dropped unseen: see
    /// [`StoreError::Unfetched`].
    async fn push_chunk(&self, id: &JobId, fence: u64, chunk: String) -> Result<Beat, StoreError>;

    /// Takes what a job has streamed since it was last asked, in order: one item at least, and no further one that brings it
    /// past [`crate::limits::DRAINED_BYTES_MAX`]; the rest is the next call's.
    async fn drain_chunks(&self, id: &JobId) -> Result<Vec<String>, StoreError>;

    /// Forgets jobs that ended before `before`, and the oldest of more than [`crate::limits::FINISHED_MAX`], with their chunks
    /// and idempotency keys, and what was told before `before`; says how many jobs. Attempts, ledger and the report's counts
    /// stay, and so does every job of an attempt that is not settled. Many jobs take several transactions.
    async fn forget(&self, before: UnixMs) -> Result<u64, StoreError>;

    /// In one transaction: asks the budgets, holds the worst case, and gives the waiting job to the cloud. `nonce` is 128
    /// random bits. No budget reaches further than [`crate::limits::SPENT_MAX`]. Attempts of one job are counted even if it
    /// was forgotten and its id used again.
    async fn hold(
        &self,
        id: &JobId,
        ask: HoldAsk,
        budgets: &Budgets,
        nonce: [u8; 16],
        now: UnixMs,
    ) -> Result<Held, StoreError>;

    /// Takes a step of an attempt and writes the entries it gives; `None` if there is none. [`Step::Settle`] is refused: only
    /// [`Self::settle`] ends the job's lease with it.
    async fn step(&self, key: &AttemptKey, step: Step, now: UnixMs) -> Result<Option<(Stepped, Attempt)>, StoreError>;

    /// Settles an ended attempt and ends the cloud's lease with this outcome, if that lease is still the job's; the
    /// outcome's cost is replaced by the attempt's, which the job bears even if it was called off. All in one transaction, so
    /// that nothing is charged twice or lost. Changes nothing if the attempt is open or settled; gives the job as it is then,
    /// `None` if there is no such attempt.
    async fn settle(&self, key: &AttemptKey, outcome: Outcome, now: UnixMs) -> Result<Option<Job>, StoreError>;

    /// Lets a worker of the cloud begin, once: by nonce alone, which names one attempt. Refused without a trace unless the job
    /// is still under the attempt's lease.
    async fn claim(&self, nonce: &str, remote: Option<String>, now: UnixMs) -> Result<Claimed, StoreError>;

    /// One attempt.
    async fn attempt(&self, key: &AttemptKey) -> Result<Option<Attempt>, StoreError>;

    /// The attempt with this nonce.
    async fn attempt_by_nonce(&self, nonce: &str) -> Result<Option<Attempt>, StoreError>;

    /// Renews the attempts that `driver` drives and takes over those whose driver is not heard of: all unsettled ones that
    /// it is to drive now, by key.
    async fn adopt(&self, driver: &Owner, now: UnixMs) -> Result<Vec<Attempt>, StoreError>;

    /// What is held or charged, for these.
    async fn spending(&self, room: &RoomName, user: &UserName, day: Day) -> Result<Spending, StoreError>;

    /// The ledger's entries after `after` (0 for all), with their numbers, which count from 1 without a gap; `count_max` at
    /// most. Who has read up to a number has read all that will ever be before it.
    async fn ledger(&self, after: u64, count_max: usize) -> Result<Vec<(u64, Entry)>, StoreError>;

    /// What was spent and saved; of one room if given.
    async fn report(&self, room: Option<&RoomName>) -> Result<Report, StoreError>;

    /// How many jobs there are that are not forgotten; of one room if given.
    async fn totals(&self, room: Option<&RoomName>) -> Result<Totals, StoreError>;

    /// The mean time that completed jobs of a type took lately (of the newest [`crate::limits::MEASURED_JOBS`]), by who did
    /// them, in whole milliseconds; `None` where none did.
    async fn measured(&self, ask: &Ask, source: Source) -> Result<Option<Duration>, StoreError>;

    /// Remembers the newest failures of an endpoint for its breaker, across restarts and relays: JSON text of its state.
    async fn breaker(&self, endpoint: &Endpoint) -> Result<Option<String>, StoreError>;

    /// See [`Self::breaker`].
    async fn set_breaker(&self, endpoint: &Endpoint, state: String) -> Result<(), StoreError>;

    /// Tells the other relays on this queue something of this one, instead of what it told before: which workers it has heard of.
    async fn tell(&self, relay: &Owner, text: String, now: UnixMs) -> Result<(), StoreError>;

    /// What relays other than `relay` told at `since` or later; the newest first, where these are equal the lower name, and
    /// [`crate::limits::TELLERS_MAX`] at most.
    async fn told(&self, relay: &Owner, since: UnixMs) -> Result<Vec<String>, StoreError>;

    /// Ids of jobs as they change or stream, also where another relay changed them; who lags loads anew. A hint: an id may come
    /// twice, and the last ones of a relay that dies may not reach the others, so who waits looks again now and then.
    fn changes(&self) -> broadcast::Receiver<Arc<JobId>>;

    /// Waits until everything accepted is durable, and closes.
    async fn close(&self);
}

/// `outcome` as a worker may say it, or as it is before the attempt's cost is known: without a cost.
pub(crate) fn without_cost(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Completed { output, cost: _ } => Outcome::Completed { output, cost: MicroUsd::default() },
        Outcome::Failed { reason, is_final, cost: _ } => {
            Outcome::Failed { reason, is_final, cost: MicroUsd::default() }
        }
        Outcome::HandedBack => Outcome::HandedBack,
    }
}

/// Whether a nonce can be one of ours; anything else is no business of a database.
pub(crate) fn is_nonce(text: &str) -> bool {
    text.len() <= NONCE_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
