//! The queue in memory: the model that the databases are compared with, and a queue for tests and for trying things out.
//!
//! It is written for reading, not for speed, and shares no code with the databases' operations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use queue::{
    Ask, Attempt, AttemptKey, Budgets, Change, Day, Endpoint, Entry, EntryKind, HoldAsk, Job, JobId, JobState, Lease,
    LeaseError, MicroUsd, Mode, Model, NewJob, Outcome, Owner, Progress, RoomName, Source, Spending, Status, Step,
    Stepped, UnixMs, UserName,
};
use tokio::sync::broadcast;

use crate::limits::{CHANGES_KEPT, EXPIRED_MAX, Limits, MEASURED_JOBS, SPENT_MAX, TELLERS_MAX};
use crate::store::{
    Beat, Claimed, Held, JobStore, Offer, Report, StoreError, Submitted, Taken, Totals, is_nonce, without_cost,
};

mod money;

/// A queue that is gone with its process.
#[derive(Debug)]
pub struct Memory {
    limits: Limits,
    records: Mutex<Records>,
    changes: broadcast::Sender<Arc<JobId>>,
}

/// Everything a queue knows.
#[derive(Debug, Default)]
struct Records {
    jobs: BTreeMap<JobId, Job>,
    chunks: BTreeMap<JobId, Vec<String>>,
    attempts: BTreeMap<AttemptKey, Attempt>,
    ledger: Vec<Entry>,
    breakers: BTreeMap<Endpoint, String>,
    told: BTreeMap<Owner, (UnixMs, String)>,
    /// Jobs completed, also those that are forgotten.
    completed: BTreeMap<(RoomName, Source), u64>,
}

impl Memory {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        Self { limits, records: Mutex::default(), changes: broadcast::Sender::new(CHANGES_KEPT) }
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, id: &JobId) {
        // Fails where nobody listens, and never waits.
        let _ = self.changes.send(Arc::new(id.clone()));
    }

    /// Changes a job; announces it if its version rose.
    fn change<T>(&self, records: &mut Records, id: &JobId, change: impl FnOnce(&mut Job) -> T) -> Option<T> {
        let job = records.jobs.get_mut(id)?;
        let before = job.version;
        let value = change(job);
        if job.version != before {
            self.announce(id);
        }
        Some(value)
    }
}

impl Records {
    fn of_room<'a>(&'a self, room: Option<&'a RoomName>, status: Status) -> impl Iterator<Item = &'a Job> {
        let jobs = self.jobs.values();
        jobs.filter(move |job| job.status() == status && room.is_none_or(|room| job.order.room == *room))
    }

    fn by_rank<'a>(&'a self, room: Option<&'a RoomName>, status: Status) -> Vec<&'a Job> {
        let mut jobs: Vec<_> = self.of_room(room, status).collect();
        jobs.sort_by_key(|job| (job.rank(), &job.id));
        jobs
    }

    fn submit(&mut self, id: JobId, order: NewJob, limits: &Limits, now: UnixMs) -> Result<Submitted, StoreError> {
        let is_same = |job: &&Job| {
            let theirs = &job.order;
            order.key.is_some() && (&theirs.room, &theirs.user, &theirs.key) == (&order.room, &order.user, &order.key)
        };
        let known = self.jobs.values().find(is_same).or_else(|| self.jobs.get(&id));
        if let Some(job) = known {
            return Ok(Submitted { job: job.clone(), is_new: false });
        }
        self.admit(&order.room, limits)?;
        let job = Job::new(id.clone(), order, now);
        self.jobs.insert(id, job.clone());
        Ok(Submitted { job, is_new: true })
    }

    /// Whether the room may have one more.
    fn admit(&self, room: &RoomName, limits: &Limits) -> Result<(), StoreError> {
        let unfinished = self.of_room(Some(room), Status::Queued).chain(self.of_room(Some(room), Status::Processing));
        let max = limits.unfinished_per_room_max;
        if unfinished.count() >= max { Err(StoreError::Full(max)) } else { Ok(()) }
    }

    fn is_pinned(&self, id: &JobId) -> bool {
        self.attempts.values().any(|attempt| attempt.key.job == *id && attempt.state != queue::AttemptState::Settled)
    }

    fn count_completed(&mut self, id: &JobId) {
        let job = &self.jobs[id];
        if let (Status::Completed, Some(source)) = (job.status(), job.source) {
            *self.completed.entry((job.order.room.clone(), source)).or_default() += 1;
        }
    }
}

#[async_trait]
impl JobStore for Memory {
    async fn submit(&self, id: JobId, order: NewJob, now: UnixMs) -> Result<Submitted, StoreError> {
        let submitted = self.records().submit(id, order, &self.limits, now)?;
        if submitted.is_new {
            self.announce(&submitted.job.id);
        }
        Ok(submitted)
    }

    async fn submit_all(&self, orders: Vec<(JobId, NewJob)>, now: UnixMs) -> Result<Vec<Submitted>, StoreError> {
        let mut records = self.records();
        let mut submitted: Vec<Submitted> = Vec::new();
        for (id, order) in orders {
            match records.submit(id, order, &self.limits, now) {
                Ok(one) => submitted.push(one),
                Err(error) => {
                    for new in submitted.iter().filter(|one| one.is_new) {
                        records.jobs.remove(&new.job.id);
                    }
                    return Err(error);
                }
            }
        }
        drop(records);
        for new in submitted.iter().filter(|one| one.is_new) {
            self.announce(&new.job.id);
        }
        Ok(submitted)
    }

    async fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        Ok(self.records().jobs.get(id).cloned())
    }

    async fn list(&self, room: Option<&RoomName>, count_max: usize) -> Result<Vec<Job>, StoreError> {
        let records = self.records();
        let mut jobs = records.by_rank(room, Status::Processing);
        jobs.extend(records.by_rank(room, Status::Queued));
        let mut ended = records.by_rank(room, Status::Completed);
        ended.extend(records.by_rank(room, Status::Failed));
        ended.extend(records.by_rank(room, Status::Cancelled));
        ended.sort_by_key(|job| (std::cmp::Reverse(job.finished), &job.id));
        Ok(jobs.into_iter().chain(ended).take(count_max).map(Job::head).collect())
    }

    async fn position(&self, id: &JobId) -> Result<Option<u64>, StoreError> {
        let records = self.records();
        let Some(job) = records.jobs.get(id) else { return Ok(None) };
        let waiting = records.by_rank(Some(&job.order.room), Status::Queued);
        Ok(waiting.iter().position(|other| other.id == *id).map(|before| before as u64))
    }

    async fn waiting(&self, count_max: usize) -> Result<Vec<Job>, StoreError> {
        let records = self.records();
        let mut places: BTreeMap<&RoomName, usize> = BTreeMap::new();
        let mut placed: Vec<(usize, &Job)> = Vec::new();
        for job in records.by_rank(None, Status::Queued) {
            let place = places.entry(&job.order.room).or_default();
            placed.push((*place, job));
            *place += 1;
        }
        // Stable: those of one place stay in their order.
        placed.sort_by_key(|(place, _)| *place);
        placed.truncate(count_max);
        placed.sort_by_key(|(_, job)| (job.rank(), &job.id));
        Ok(placed.into_iter().map(|(_, job)| job.head()).collect())
    }

    async fn take(&self, offer: &Offer, now: UnixMs) -> Result<Option<Taken>, StoreError> {
        if offer.source == Source::Cloud {
            return Ok(None);
        }
        let mut records = self.records();
        let fits = |job: &&&Job| {
            let has_model = match (&job.order.model, &offer.models) {
                (Some(model), Some(models)) => models.contains(model),
                (None, _) | (_, None) => true,
            };
            job.order.mode != Mode::Cloud && has_model
        };
        let found = records.by_rank(offer.room.as_ref(), Status::Queued).iter().find(fits).map(|job| job.id.clone());
        let Some(id) = found else { return Ok(None) };
        let job = records.jobs.get_mut(&id).expect("it was found");
        let lease = job.lease(offer.owner.clone(), offer.source, now).expect("it waits");
        let taken = Taken { job: job.clone(), lease };
        drop(records);
        self.announce(&id);
        Ok(Some(taken))
    }

    async fn beat(&self, id: &JobId, fence: u64, progress: Option<Progress>, now: UnixMs) -> Result<Beat, StoreError> {
        Ok(match self.change(&mut self.records(), id, |job| job.beat(fence, progress, now)) {
            None => Beat::Unknown,
            Some(Ok(())) => Beat::Renewed,
            Some(Err(error)) => Beat::Over(error),
        })
    }

    async fn finish(
        &self,
        id: &JobId,
        fence: u64,
        outcome: Outcome,
        saving: MicroUsd,
        now: UnixMs,
    ) -> Result<Option<Result<Job, LeaseError>>, StoreError> {
        let mut records = self.records();
        let Some(job) = records.jobs.get_mut(id) else { return Ok(None) };
        if job.present_lease().is_some_and(|lease| lease.fence == fence && lease.source == Source::Cloud) {
            return Ok(Some(Err(LeaseError::Stale)));
        }
        if let Err(error) = job.finish(fence, without_cost(outcome), now) {
            return Ok(Some(Err(error)));
        }
        let job = job.clone();
        records.count_completed(id);
        if job.status() == Status::Completed && saving > MicroUsd::default() {
            let (user, room) = (job.order.user.clone(), job.order.room.clone());
            let (kind, amount) = (EntryKind::Saving, saving.min(MicroUsd(SPENT_MAX)));
            records.ledger.push(Entry { at: now, job: id.clone(), attempt: None, user, room, kind, amount });
        }
        drop(records);
        self.announce(id);
        Ok(Some(Ok(job)))
    }

    async fn cancel(&self, id: &JobId, now: UnixMs) -> Result<Option<Job>, StoreError> {
        Ok(self.change(&mut self.records(), id, |job| {
            job.cancel(now);
            job.clone()
        }))
    }

    async fn refuse(&self, id: &JobId, reason: &str, now: UnixMs) -> Result<Change, StoreError> {
        Ok(self.change(&mut self.records(), id, |job| job.refuse(reason, now)).unwrap_or(Change::None))
    }

    async fn retry(&self, id: &JobId) -> Result<Option<Change>, StoreError> {
        let mut records = self.records();
        let Some(job) = records.jobs.get(id) else { return Ok(None) };
        if job.status() == Status::Failed {
            records.admit(&job.order.room, &self.limits)?;
        }
        Ok(self.change(&mut records, id, Job::retry))
    }

    async fn fall_back(
        &self,
        id: &JobId,
        to: Ask,
        model: Option<Model>,
        input: String,
        expected: Duration,
    ) -> Result<bool, StoreError> {
        let change = |job: &mut Job| {
            if job.state != JobState::Queued {
                return false;
            }
            let first = job.order.ask.replace(to);
            job.fallback_of = job.fallback_of.take().or(first);
            (job.order.model, job.order.input, job.order.expected) = (model, input, expected);
            job.version += 1;
            true
        };
        Ok(self.change(&mut self.records(), id, change).unwrap_or(false))
    }

    async fn explain(&self, id: &JobId, route: &str) -> Result<(), StoreError> {
        self.change(&mut self.records(), id, |job| {
            if job.state == JobState::Queued && job.route.as_deref() != Some(route) {
                job.route = Some(route.to_owned());
                job.version += 1;
            }
        });
        Ok(())
    }

    async fn purge(&self, room: &RoomName, now: UnixMs) -> Result<u64, StoreError> {
        let mut records = self.records();
        let waiting: Vec<_> = records.of_room(Some(room), Status::Queued).map(|job| job.id.clone()).collect();
        for id in &waiting {
            self.change(&mut records, id, |job| job.cancel(now));
        }
        Ok(waiting.len() as u64)
    }

    async fn expire(&self, now: UnixMs) -> Result<Vec<Job>, StoreError> {
        let mut records = self.records();
        let until = |job: &Job| job.present_lease().and_then(|lease| lease.until);
        let over = |job: &Job| until(job).filter(|until| *until <= now).map(|until| (until, job.id.clone()));
        let mut over: Vec<_> = records.jobs.values().filter_map(over).collect();
        over.sort();
        let end = |job: &mut Job| {
            job.expire(now);
            job.clone()
        };
        let over = over.into_iter().take(EXPIRED_MAX);
        Ok(over.filter_map(|(_, id)| self.change(&mut records, &id, end)).collect())
    }

    async fn hand_back(&self, owner: &Owner, now: UnixMs) -> Result<u64, StoreError> {
        let mut records = self.records();
        let leases = records.jobs.values().filter_map(|job| Some((job.id.clone(), job.present_lease()?.clone())));
        let is_theirs = |lease: &Lease| lease.owner == *owner && lease.source != Source::Cloud;
        let leases: Vec<_> = leases.filter(|(_, lease)| is_theirs(lease)).collect();
        for (id, lease) in &leases {
            self.change(&mut records, id, |job| job.finish(lease.fence, Outcome::HandedBack, now));
        }
        Ok(leases.len() as u64)
    }

    async fn push_chunk(&self, id: &JobId, fence: u64, chunk: String) -> Result<Beat, StoreError> {
        let mut records = self.records();
        let Some(job) = records.jobs.get(id) else { return Ok(Beat::Unknown) };
        if job.present_lease().is_none_or(|lease| lease.fence != fence) {
            let is_cancelled = job.state == JobState::Cancelled;
            return Ok(Beat::Over(if is_cancelled { LeaseError::Cancelled } else { LeaseError::Stale }));
        }
        let chunks = records.chunks.entry(id.clone()).or_default();
        if chunks.len() >= self.limits.chunks_max {
            return Err(StoreError::Unfetched(self.limits.chunks_max));
        }
        chunks.push(chunk);
        drop(records);
        self.announce(id);
        Ok(Beat::Renewed)
    }

    async fn drain_chunks(&self, id: &JobId) -> Result<Vec<String>, StoreError> {
        let mut records = self.records();
        let Some(chunks) = records.chunks.get_mut(id) else { return Ok(Vec::new()) };
        let mut bytes = 0;
        let fits = |(index, chunk): &(usize, &String)| {
            bytes += chunk.len();
            *index == 0 || bytes <= self.limits.drained_bytes_max
        };
        let count = chunks.iter().enumerate().take_while(fits).count();
        Ok(chunks.drain(..count).collect())
    }

    async fn forget(&self, before: UnixMs) -> Result<u64, StoreError> {
        let mut records = self.records();
        records.told.retain(|_, (at, _)| *at >= before);
        let mut ended: Vec<_> = (records.jobs.values())
            .filter(|job| job.status().is_final())
            .map(|job| (job.finished, job.id.clone()))
            .collect();
        ended.sort();
        let mut kept = ended.len();
        let mut forgotten = 0;
        for (finished, id) in ended.into_iter().filter(|(_, id)| !records.is_pinned(id)).collect::<Vec<_>>() {
            if finished.is_some_and(|finished| finished < before) || kept > self.limits.finished_max {
                records.jobs.remove(&id);
                records.chunks.remove(&id);
                kept -= 1;
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }

    async fn hold(
        &self,
        id: &JobId,
        ask: HoldAsk,
        budgets: &Budgets,
        nonce: [u8; 16],
        now: UnixMs,
    ) -> Result<Held, StoreError> {
        let held = self.records().hold(id, ask, budgets, nonce, now);
        if matches!(held, Held::Taken(..)) {
            self.announce(id);
        }
        Ok(held)
    }

    async fn step(&self, key: &AttemptKey, step: Step, now: UnixMs) -> Result<Option<(Stepped, Attempt)>, StoreError> {
        Ok(self.records().step(key, step, now))
    }

    async fn settle(&self, key: &AttemptKey, outcome: Outcome, now: UnixMs) -> Result<Option<Job>, StoreError> {
        let mut records = self.records();
        let before = records.jobs.get(&key.job).map(|job| job.version);
        let job = records.settle(key, outcome, now);
        if job.as_ref().is_some_and(|job| Some(job.version) != before) {
            self.announce(&key.job);
        }
        Ok(job)
    }

    async fn claim(&self, nonce: &str, remote: Option<String>, now: UnixMs) -> Result<Claimed, StoreError> {
        if !is_nonce(nonce) {
            return Ok(Claimed::Refused);
        }
        Ok(self.records().claim(nonce, remote, now).map_or(Claimed::Refused, |job| Claimed::Granted(Box::new(job))))
    }

    async fn attempt(&self, key: &AttemptKey) -> Result<Option<Attempt>, StoreError> {
        Ok(self.records().attempts.get(key).cloned())
    }

    async fn attempt_by_nonce(&self, nonce: &str) -> Result<Option<Attempt>, StoreError> {
        Ok(self.records().attempts.values().find(|attempt| attempt.nonce.is(nonce)).cloned())
    }

    async fn adopt(&self, driver: &Owner, now: UnixMs) -> Result<Vec<Attempt>, StoreError> {
        Ok(self.records().adopt(driver, now))
    }

    async fn spending(&self, room: &RoomName, user: &UserName, day: Day) -> Result<Spending, StoreError> {
        Ok(self.records().spending(room, user, day))
    }

    async fn ledger(&self, after: u64, count_max: usize) -> Result<Vec<(u64, Entry)>, StoreError> {
        let records = self.records();
        let numbered = (1..).zip(&records.ledger).filter(|(number, _)| *number > after);
        Ok(numbered.take(count_max).map(|(number, entry)| (number, entry.clone())).collect())
    }

    async fn report(&self, room: Option<&RoomName>) -> Result<Report, StoreError> {
        Ok(self.records().report(room))
    }

    async fn totals(&self, room: Option<&RoomName>) -> Result<Totals, StoreError> {
        let records = self.records();
        let count = |status| records.of_room(room, status).count() as u64;
        Ok(Totals {
            queued: count(Status::Queued),
            processing: count(Status::Processing),
            completed: count(Status::Completed),
            failed: count(Status::Failed),
            cancelled: count(Status::Cancelled),
        })
    }

    async fn measured(&self, ask: &Ask, source: Source) -> Result<Option<Duration>, StoreError> {
        let records = self.records();
        let mut done: Vec<_> = (records.of_room(None, Status::Completed))
            .filter(|job| job.order.ask.as_ref() == Some(ask) && job.source == Some(source))
            .filter_map(|job| Some((job.finished?, &job.id, job.finished?.since(job.started?))))
            .collect();
        done.sort_by_key(|(finished, id, _)| (std::cmp::Reverse(*finished), *id));
        done.truncate(MEASURED_JOBS);
        let sum: u128 = done.iter().map(|(_, _, time)| time.as_millis()).sum();
        let mean = sum.checked_div(done.len() as u128);
        Ok(mean.map(|mean| Duration::from_millis(u64::try_from(mean).unwrap_or(u64::MAX))))
    }

    async fn breaker(&self, endpoint: &Endpoint) -> Result<Option<String>, StoreError> {
        Ok(self.records().breakers.get(endpoint).cloned())
    }

    async fn set_breaker(&self, endpoint: &Endpoint, state: String) -> Result<(), StoreError> {
        self.records().breakers.insert(endpoint.clone(), state);
        Ok(())
    }

    async fn tell(&self, relay: &Owner, text: String, now: UnixMs) -> Result<(), StoreError> {
        self.records().told.insert(relay.clone(), (now, text));
        Ok(())
    }

    async fn told(&self, relay: &Owner, since: UnixMs) -> Result<Vec<String>, StoreError> {
        let records = self.records();
        let others = records.told.iter().filter(|(teller, (at, _))| *teller != relay && *at >= since);
        let mut told: Vec<_> = others.map(|(_, told)| told).collect();
        // Stable: those of one moment stay in the order of their relays' names.
        told.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        Ok(told.into_iter().take(TELLERS_MAX).map(|(_, text)| text.clone()).collect())
    }

    fn changes(&self) -> broadcast::Receiver<Arc<JobId>> {
        self.changes.subscribe()
    }

    async fn close(&self) {}
}
