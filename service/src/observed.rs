//! A store that tells what happens to jobs, whoever causes it: numbers for every call, and a span for every stage of a job.
//!
//! What is logged of a job is its id; never what it asks for, nor what a worker said about it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use queue::{
    Ask, Attempt, AttemptKey, Budgets, Change, Day, Endpoint, Entry, HoldAsk, Job, JobId, LeaseError, MicroUsd, Model,
    NewJob, Outcome, Owner, Progress, RoomName, Source, Spending, Status, Step, Stepped, UnixMs, UserName,
};
use store::{Beat, Claimed, Held, JobStore, Offer, Report, StoreError, Submitted, Taken, Totals};
use tokio::sync::broadcast;
use tracing::{debug_span, info};

use crate::metrics::{Delivery, Metrics};

/// The store, observed.
pub struct Observed {
    inner: Arc<dyn JobStore>,
    metrics: Arc<Metrics>,
}

impl Observed {
    /// Observes a store.
    pub fn new(inner: Arc<dyn JobStore>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }

    async fn timed<T>(&self, operation: &'static str, call: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let outcome = call.await;
        self.metrics.stored(operation, start.elapsed());
        outcome
    }

    fn submitted(&self, submitted: &Submitted) {
        if submitted.is_new {
            self.metrics.submitted();
            let job = &submitted.job.id;
            debug_span!("submitted", %job).in_scope(|| info!(%job, "job submitted"));
        }
    }

    fn taken(&self, taken: &Taken) {
        self.metrics.taken(&taken.job);
        let job = &taken.job.id;
        let (source, wait_ms) = (taken.lease.source, taken.lease.since.since(taken.job.created).as_millis());
        debug_span!("taken", %job).in_scope(|| info!(%job, ?source, wait_ms, "job taken"));
    }

    fn delivered(&self, job: &Job, delivery: Delivery) {
        self.metrics.delivered(delivery);
        debug_span!("delivered", job = %job.id).in_scope(|| info!(job = %job.id, ?delivery, "job delivered"));
        self.ended(job);
    }

    /// Tells that a job has ended, if it has: to be called once for each end.
    fn ended(&self, job: &Job) {
        let status = job.status();
        if !status.is_final() {
            return;
        }
        self.metrics.ended(job);
        let time_ms = job.finished.map(|finished| finished.since(job.created).as_millis());
        let cost = job.cost.0;
        debug_span!("ended", job = %job.id).in_scope(
            || info!(job = %job.id, ?status, source = ?job.source, time_ms, cost_micro_usd = cost, "job ended"),
        );
    }
}

fn delivery_of(outcome: &Outcome) -> Delivery {
    match outcome {
        Outcome::Completed { .. } => Delivery::Completed,
        Outcome::Failed { .. } => Delivery::Failed,
        Outcome::HandedBack => Delivery::HandedBack,
    }
}

#[async_trait]
impl JobStore for Observed {
    async fn submit(&self, id: JobId, order: NewJob, now: UnixMs) -> Result<Submitted, StoreError> {
        let submitted = self.timed("submit", self.inner.submit(id, order, now)).await?;
        self.submitted(&submitted);
        Ok(submitted)
    }

    async fn submit_all(&self, orders: Vec<(JobId, NewJob)>, now: UnixMs) -> Result<Vec<Submitted>, StoreError> {
        let submitted = self.timed("submit_all", self.inner.submit_all(orders, now)).await?;
        submitted.iter().for_each(|one| self.submitted(one));
        Ok(submitted)
    }

    async fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        self.timed("job", self.inner.job(id)).await
    }

    async fn list(&self, room: Option<&RoomName>, count_max: usize) -> Result<Vec<Job>, StoreError> {
        self.timed("list", self.inner.list(room, count_max)).await
    }

    async fn position(&self, id: &JobId) -> Result<Option<u64>, StoreError> {
        self.timed("position", self.inner.position(id)).await
    }

    async fn waiting(&self, count_max: usize) -> Result<Vec<Job>, StoreError> {
        self.timed("waiting", self.inner.waiting(count_max)).await
    }

    async fn take(&self, offer: &Offer, now: UnixMs) -> Result<Option<Taken>, StoreError> {
        let taken = self.timed("take", self.inner.take(offer, now)).await?;
        if let Some(taken) = &taken {
            self.taken(taken);
        }
        Ok(taken)
    }

    async fn beat(&self, id: &JobId, fence: u64, progress: Option<Progress>, now: UnixMs) -> Result<Beat, StoreError> {
        self.timed("beat", self.inner.beat(id, fence, progress, now)).await
    }

    async fn finish(
        &self,
        id: &JobId,
        fence: u64,
        outcome: Outcome,
        saving: MicroUsd,
        now: UnixMs,
    ) -> Result<Option<Result<Job, LeaseError>>, StoreError> {
        let delivery = delivery_of(&outcome);
        let finished = self.timed("finish", self.inner.finish(id, fence, outcome, saving, now)).await?;
        match &finished {
            Some(Ok(job)) => self.delivered(job, delivery),
            Some(Err(_)) => self.metrics.delivered(Delivery::Late),
            None => {}
        }
        Ok(finished)
    }

    async fn cancel(&self, id: &JobId, now: UnixMs) -> Result<Option<Job>, StoreError> {
        let cancelled = self.timed("cancel", self.inner.cancel(id, now)).await?;
        // A job that had ended before stays as it was.
        if let Some(job) =
            cancelled.as_ref().filter(|job| job.status() == Status::Cancelled && job.finished == Some(now))
        {
            self.ended(job);
        }
        Ok(cancelled)
    }

    async fn refuse(&self, id: &JobId, reason: &str, now: UnixMs) -> Result<Change, StoreError> {
        let change = self.timed("refuse", self.inner.refuse(id, reason, now)).await?;
        if change == Change::Ended {
            self.metrics.ended_waiting(Status::Failed, 1);
            debug_span!("ended", job = %id).in_scope(|| info!(job = %id, "job refused"));
        }
        Ok(change)
    }

    async fn retry(&self, id: &JobId) -> Result<Option<Change>, StoreError> {
        self.timed("retry", self.inner.retry(id)).await
    }

    async fn fall_back(
        &self,
        id: &JobId,
        to: Ask,
        model: Option<Model>,
        input: String,
        expected: Duration,
    ) -> Result<bool, StoreError> {
        self.timed("fall_back", self.inner.fall_back(id, to, model, input, expected)).await
    }

    async fn explain(&self, id: &JobId, route: &str) -> Result<(), StoreError> {
        self.timed("explain", self.inner.explain(id, route)).await
    }

    async fn purge(&self, room: &RoomName, now: UnixMs) -> Result<u64, StoreError> {
        let purged = self.timed("purge", self.inner.purge(room, now)).await?;
        self.metrics.ended_waiting(Status::Cancelled, purged);
        Ok(purged)
    }

    async fn expire(&self, now: UnixMs) -> Result<Vec<Job>, StoreError> {
        let expired = self.timed("expire", self.inner.expire(now)).await?;
        for job in &expired {
            self.ended(job);
        }
        Ok(expired)
    }

    async fn hand_back(&self, owner: &Owner, now: UnixMs) -> Result<u64, StoreError> {
        self.timed("hand_back", self.inner.hand_back(owner, now)).await
    }

    async fn push_chunk(&self, id: &JobId, fence: u64, chunk: String) -> Result<Beat, StoreError> {
        self.timed("push_chunk", self.inner.push_chunk(id, fence, chunk)).await
    }

    async fn drain_chunks(&self, id: &JobId) -> Result<Vec<String>, StoreError> {
        self.timed("drain_chunks", self.inner.drain_chunks(id)).await
    }

    async fn forget(&self, before: UnixMs) -> Result<u64, StoreError> {
        self.timed("forget", self.inner.forget(before)).await
    }

    async fn hold(
        &self,
        id: &JobId,
        ask: HoldAsk,
        budgets: &Budgets,
        nonce: [u8; 16],
        now: UnixMs,
    ) -> Result<Held, StoreError> {
        let held = self.timed("hold", self.inner.hold(id, ask, budgets, nonce, now)).await?;
        if let Held::Taken(taken, _) = &held {
            self.taken(taken);
        }
        Ok(held)
    }

    async fn step(&self, key: &AttemptKey, step: Step, now: UnixMs) -> Result<Option<(Stepped, Attempt)>, StoreError> {
        self.timed("step", self.inner.step(key, step, now)).await
    }

    async fn settle(&self, key: &AttemptKey, outcome: Outcome, now: UnixMs) -> Result<Option<Job>, StoreError> {
        let delivery = delivery_of(&outcome);
        let settled = self.timed("settle", self.inner.settle(key, outcome, now)).await?;
        // A job that was called off meanwhile, or was settled before, has ended at another time.
        if let Some(job) = settled.as_ref().filter(|job| job.finished == Some(now)) {
            self.delivered(job, delivery);
        }
        Ok(settled)
    }

    async fn claim(&self, nonce: &str, remote: Option<String>, now: UnixMs) -> Result<Claimed, StoreError> {
        self.timed("claim", self.inner.claim(nonce, remote, now)).await
    }

    async fn attempt(&self, key: &AttemptKey) -> Result<Option<Attempt>, StoreError> {
        self.timed("attempt", self.inner.attempt(key)).await
    }

    async fn attempt_by_nonce(&self, nonce: &str) -> Result<Option<Attempt>, StoreError> {
        self.timed("attempt_by_nonce", self.inner.attempt_by_nonce(nonce)).await
    }

    async fn adopt(&self, driver: &Owner, now: UnixMs) -> Result<Vec<Attempt>, StoreError> {
        self.timed("adopt", self.inner.adopt(driver, now)).await
    }

    async fn spending(&self, room: &RoomName, user: &UserName, day: Day) -> Result<Spending, StoreError> {
        self.timed("spending", self.inner.spending(room, user, day)).await
    }

    async fn ledger(&self, after: u64, count_max: usize) -> Result<Vec<(u64, Entry)>, StoreError> {
        self.timed("ledger", self.inner.ledger(after, count_max)).await
    }

    async fn report(&self, room: Option<&RoomName>) -> Result<Report, StoreError> {
        self.timed("report", self.inner.report(room)).await
    }

    async fn totals(&self, room: Option<&RoomName>) -> Result<Totals, StoreError> {
        self.timed("totals", self.inner.totals(room)).await
    }

    async fn measured(&self, ask: &Ask, source: Source) -> Result<Option<Duration>, StoreError> {
        self.timed("measured", self.inner.measured(ask, source)).await
    }

    async fn breaker(&self, endpoint: &Endpoint) -> Result<Option<String>, StoreError> {
        self.timed("breaker", self.inner.breaker(endpoint)).await
    }

    async fn set_breaker(&self, endpoint: &Endpoint, state: String) -> Result<(), StoreError> {
        self.timed("set_breaker", self.inner.set_breaker(endpoint, state)).await
    }

    async fn tell(&self, relay: &Owner, text: String, now: UnixMs) -> Result<(), StoreError> {
        self.timed("tell", self.inner.tell(relay, text, now)).await
    }

    async fn told(&self, relay: &Owner, since: UnixMs) -> Result<Vec<String>, StoreError> {
        self.timed("told", self.inner.told(relay, since)).await
    }

    fn changes(&self) -> broadcast::Receiver<Arc<JobId>> {
        self.inner.changes()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
