//! Lends the units of its jobs on leases, and survives whatever becomes of them.
//!
//! A unit is waiting, leased or delivered. Every grant has a new [`LeaseId`], and only live leases are remembered: a message
//! about any other lease, or from any peer but its worker, changes nothing. That one rule makes late, doubled, stolen and
//! foreign deliveries harmless.

mod grants;
mod job;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use protocol::limits::{
    LEASE_SILENCE_MAX, LEASE_TIME_MAX, REFUSAL_PAUSE, STAGE_UNITS_MAX, UPLOAD_BYTES_PER_SECOND_MIN,
};
use protocol::{
    Capabilities, Hash, Instant, JobId, LeaseId, ModelId, ModelShape, PeerId, RefuseReason, ToRequester, ToWorker,
    Unit, UnitId, tensor,
};

use self::job::{Job, Stage};
use crate::roster::Roster;

/// Coordinates the jobs of one peer over the workers of a room.
///
/// One event costs at most a few passes over the room's peers and one stage's units.
#[derive(Default)]
pub struct Requester {
    connected: BTreeSet<PeerId>,
    roster: Roster,
    jobs: BTreeMap<JobId, Job>,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: u64,
    outputs: VecDeque<RequesterOutput>,
}

/// What the driver of a [`Requester`] has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum RequesterOutput {
    /// Send this to a worker.
    Send {
        /// The worker.
        to: PeerId,
        /// What to say.
        message: ToWorker,
        /// The raw body that follows.
        body: Arc<[u8]>,
    },
    /// A unit is delivered. Its body has the length its work says, and sane finite values.
    Delivered {
        /// The job.
        job: JobId,
        /// The unit.
        unit: UnitId,
        /// Who computed it.
        by: PeerId,
        /// Its output.
        body: Vec<u8>,
        /// Time the worker says it spent; untrusted.
        compute_ms: u32,
    },
    /// Every unit of the job's present stage is delivered. Comes after the last of them.
    StageDone {
        /// The job.
        job: JobId,
    },
    /// The job has ended: one of its units failed on every peer that it could be tried on.
    JobFailed {
        /// The job.
        job: JobId,
        /// Who failed the unit, and how; untrusted text, cut to its limit.
        reasons: Vec<(PeerId, String)>,
    },
    /// A worker failed, and is not asked again for a while.
    WorkerPaused {
        /// The worker.
        peer: PeerId,
        /// Why; partly untrusted text, cut to its limit.
        reason: String,
    },
    /// An offer is not accepted.
    WorkerDropped {
        /// The worker.
        peer: PeerId,
        /// Why.
        reason: String,
    },
}

struct Lease {
    job: JobId,
    unit: UnitId,
    worker: PeerId,
    granted: Instant,
    /// When its worker last spoke of it; at first, when the last byte of its input should have arrived.
    heard: Instant,
}

impl Lease {
    fn deadline(&self) -> Instant {
        (self.heard + LEASE_SILENCE_MAX).min(self.granted + LEASE_TIME_MAX)
    }
}

impl Requester {
    /// A requester that knows nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a job; several may run at once and share the room. A job of the same id that still runs is ended.
    pub fn begin_job(&mut self, job: JobId, model: ModelId, now: Instant) {
        self.cancel(job, now);
        self.jobs.insert(job, Job::new(model));
    }

    /// Begins the next stage of a job: `units` with their inputs, at most [`STAGE_UNITS_MAX`] of them, and the
    /// conditioning that its denoising units name. What is left of the stage before is cancelled. Does nothing for a job
    /// that has ended.
    pub fn begin_stage(
        &mut self,
        job: JobId,
        units: Vec<(Unit, Arc<[u8]>)>,
        conditioning: Option<(Hash, Arc<[u8]>)>,
        shape: &ModelShape,
        now: Instant,
    ) {
        debug_assert!(units.len() <= STAGE_UNITS_MAX, "a plan has no larger stages");
        debug_assert!(units.iter().all(|(unit, _)| unit.job == job), "units carry the name of their job");
        let leases: Vec<LeaseId> = self.leases_where(|lease| lease.job == job);
        for id in leases {
            self.call_off(id);
        }
        let Some(entry) = self.jobs.get_mut(&job) else { return };
        entry.stage = Some(Stage::new(*shape, conditioning, units));
        self.assign(now);
    }

    /// Ends a job, finished or not: nothing of it is accepted any more, and the workers it used are told.
    pub fn cancel(&mut self, job: JobId, now: Instant) {
        self.end_job(job);
        self.assign(now); // Its workers are free for other jobs.
    }

    /// A peer is connected. If it already was, that connection and all that travelled on it are lost.
    pub fn handle_joined(&mut self, peer: PeerId, now: Instant) {
        self.dismiss(&peer);
        self.connected.insert(peer);
        self.assign(now);
    }

    /// A peer's connection is gone. Its units are requeued, and it bears no blame.
    pub fn handle_left(&mut self, peer: &PeerId, now: Instant) {
        self.dismiss(peer);
        self.connected.remove(peer);
        for job in self.jobs.values_mut() {
            job.used.remove(peer);
        }
        self.assign(now);
    }

    /// A connected peer says something. Messages of others are not heard.
    pub fn handle(&mut self, from: &PeerId, message: ToRequester, body: Vec<u8>, now: Instant) {
        if !self.connected.contains(from) {
            return;
        }
        match message {
            ToRequester::Offer(capabilities) => self.admit(from, capabilities, now),
            ToRequester::Heartbeat { lease } => self.renew(from, lease, now),
            ToRequester::Deliver { lease, compute_ms } => self.accept(from, lease, compute_ms, body, now),
            ToRequester::Refuse { lease, reason } => self.give_back(from, lease, reason, now),
            ToRequester::Leave => self.dismiss(from),
        }
        self.assign(now); // Any event may have freed a worker or brought a unit back.
    }

    /// The driver finds a delivered body unsound: that is a failure of its worker, and the unit is requeued. Call it when the
    /// `Delivered` is polled; a `StageDone` already polled will come again. Does nothing for other than delivered units of
    /// the present stage.
    pub fn reject(&mut self, job: JobId, unit: UnitId, reason: &str, now: Instant) {
        let stage = self.jobs.get_mut(&job).and_then(|job| job.stage.as_mut());
        let Some((by, failures_in_row)) = stage.and_then(|stage| stage.undo(unit)) else { return };
        self.count_retry(job);
        if let Some(lender) = self.roster.lender_mut(&by) {
            lender.uncount_delivery(failures_in_row);
        }
        self.fail_unit(job, unit, by, reason, now);
        self.assign(now);
    }

    /// Time has passed: leases of silent or stalled workers end, and pauses end.
    pub fn handle_timeout(&mut self, now: Instant) {
        for id in self.leases_where(|lease| lease.deadline() <= now) {
            // Its worker may have been relieved of it together with an earlier one.
            let Some(lease) = self.leases.get(&id) else { continue };
            let worker = lease.worker.clone();
            let reason = if lease.granted + LEASE_TIME_MAX <= now {
                format!("held a unit for {} s without delivering it", LEASE_TIME_MAX.as_secs())
            } else {
                format!("said nothing of a unit for {} s", (now - lease.heard).as_secs())
            };
            self.relieve(&worker, &reason, now);
        }
        self.roster.end_pauses(now);
        self.assign(now);
    }

    /// When [`Requester::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.leases.values().map(Lease::deadline).chain(self.roster.next_pause_end()).min()
    }

    /// What to do next; `None` until something happens.
    pub fn poll_output(&mut self) -> Option<RequesterOutput> {
        // A finished stage is announced when all else has been seen, so that a delivery may still be rejected.
        self.outputs.pop_front().or_else(|| {
            let mut stages = self.jobs.iter_mut().filter_map(|(id, job)| Some((*id, job.stage.as_mut()?)));
            stages.find_map(|(job, stage)| stage.announce().then_some(RequesterOutput::StageDone { job }))
        })
    }

    /// Who lends, and how each stands.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// How often a unit of a running job was put back because its worker left, stalled, refused or delivered rubbish; zero
    /// for a job that has ended. Prefetched units that an idle worker takes over do not count.
    pub fn retries(&self, job: JobId) -> u64 {
        self.jobs.get(&job).map_or(0, |job| job.retries)
    }

    /// Whether a unit of the job waits for a worker who is not there: nobody present lends the model, or all who do are
    /// paused for their failures or have failed that very unit. Workers that are only busy are there.
    pub fn is_starved(&self, job: JobId) -> bool {
        let Some(job) = self.jobs.get(&job) else { return false };
        let waiting = job.stage.iter().flat_map(Stage::waiting);
        waiting.into_iter().any(|entry| {
            let mut lenders = self.roster.lenders_of(job.model);
            !lenders.any(|(peer, lender)| !lender.is_suspect() && !entry.failed_on(peer))
        })
    }

    fn admit(&mut self, from: &PeerId, capabilities: Capabilities, now: Instant) {
        if let Err(error) = self.roster.admit(from.clone(), capabilities, now) {
            self.dismiss(from);
            self.outputs.push_back(RequesterOutput::WorkerDropped { peer: from.clone(), reason: error.to_string() });
        }
    }

    fn renew(&mut self, from: &PeerId, lease: LeaseId, now: Instant) {
        if let Some(lease) = self.leases.get_mut(&lease).filter(|lease| lease.worker == *from) {
            lease.heard = now;
        }
    }

    fn accept(&mut self, from: &PeerId, id: LeaseId, compute_ms: u32, body: Vec<u8>, now: Instant) {
        let Some((job, unit)) = self.live(from, id) else { return };
        let stage = self.stage_of(job);
        let work = &stage.entry(unit).expect("a leased unit belongs to the present stage").unit.work;
        let sound = tensor::from_bytes(&body, work.output_values(&stage.shape));
        if let Err(error) = sound {
            return self.fail_lease(id, &error.to_string(), now);
        }
        self.end_lease(id);
        let lender = self.roster.lender_mut(from).expect("the worker of a live lease is in the roster");
        let failures_in_row = lender.failures_in_row();
        lender.count_delivery();
        self.stage_of(job).complete(unit, from.clone(), failures_in_row);
        self.outputs.push_back(RequesterOutput::Delivered { job, unit, by: from.clone(), body, compute_ms });
    }

    fn give_back(&mut self, from: &PeerId, id: LeaseId, reason: RefuseReason, now: Instant) {
        let Some((job, _)) = self.live(from, id) else { return };
        let model = self.jobs[&job].model;
        let lender = self.roster.lender_mut(from).expect("the worker of a live lease is in the roster");
        match reason {
            RefuseReason::Busy => {
                lender.pause(REFUSAL_PAUSE, now);
                self.requeue(id);
            }
            RefuseReason::UnknownModel => {
                lender.note_lacking(model);
                self.requeue(id);
            }
            RefuseReason::UnknownBlob(blob) => self.resend(from, id, blob, now),
            RefuseReason::Invalid(text) | RefuseReason::Failed(text) => self.fail_lease(id, &text, now),
        }
    }

    /// A worker does not hold a unit's conditioning: once for each unit that is believed, and the next grant sends it again.
    fn resend(&mut self, from: &PeerId, id: LeaseId, blob: Hash, now: Instant) {
        let Some((job, unit)) = self.live(from, id) else { return };
        let stage = self.stage_of(job);
        let entry = stage.entry(unit).expect("a leased unit belongs to the present stage");
        let is_named = stage.conditioning_of(&entry.unit).is_some_and(|(hash, _)| hash == blob);
        let entry = stage.entry_mut(unit).expect("a leased unit belongs to the present stage");
        if !is_named || !entry.resent_to.insert(from.clone()) {
            return self.fail_lease(id, "it does not keep the conditioning it is sent", now);
        }
        self.roster.lender_mut(from).expect("the worker of a live lease is in the roster").unstore(blob);
        self.requeue(id);
    }

    fn fail_lease(&mut self, id: LeaseId, reason: &str, now: Instant) {
        let Lease { job, unit, worker, .. } = self.requeue(id);
        self.fail_unit(job, unit, worker, reason, now);
    }

    /// Notes that `peer` failed a waiting unit, and ends the job if there is nobody else to try.
    fn fail_unit(&mut self, job: JobId, unit: UnitId, peer: PeerId, reason: &str, now: Instant) {
        let RefuseReason::Failed(reason) = RefuseReason::failed(reason) else {
            unreachable!("failed() makes a Failed")
        };
        let model = self.jobs[&job].model;
        let entry = self.stage_of(job).entry_mut(unit).expect("a failed unit belongs to the present stage");
        entry.failures.push((peer.clone(), reason.clone()));
        let (is_spent, failures) = (entry.is_spent(), entry.failures.clone());
        if let Some(lender) = self.roster.lender_mut(&peer) {
            lender.count_failure(now);
            self.outputs.push_back(RequesterOutput::WorkerPaused { peer, reason });
        }
        // Nobody left to try fails the job; nobody there at all only makes it wait.
        let has_failed = |peer: &PeerId| failures.iter().any(|(failed, _)| failed == peer);
        let lenders = || self.roster.lenders_of(model).map(|(peer, _)| peer);
        let is_hopeless = lenders().next().is_some() && lenders().all(has_failed);
        if is_spent || is_hopeless {
            self.end_job(job);
            self.outputs.push_back(RequesterOutput::JobFailed { job, reasons: failures });
        }
    }

    /// Takes all its leases from a worker that stalls on one, and pauses it.
    fn relieve(&mut self, worker: &PeerId, reason: &str, now: Instant) {
        let lender = self.roster.lender_mut(worker).expect("the worker of a live lease is in the roster");
        lender.count_failure(now);
        let leases = lender.leases.clone();
        for id in leases.into_iter().rev() {
            let Lease { job, unit, .. } = self.call_off(id);
            self.count_retry(job);
            let entry = self.stage_of(job).entry_mut(unit).expect("a leased unit belongs to the present stage");
            entry.stalled_on = Some(worker.clone());
        }
        self.outputs.push_back(RequesterOutput::WorkerPaused { peer: worker.clone(), reason: reason.to_owned() });
    }

    /// Takes a peer out of the roster and requeues its units, the oldest lease first.
    fn dismiss(&mut self, peer: &PeerId) {
        let leases = self.roster.lender(peer).map_or_else(Vec::new, |lender| lender.leases.clone());
        for id in leases.into_iter().rev() {
            self.requeue(id);
        }
        self.roster.remove(peer);
    }

    fn end_job(&mut self, id: JobId) {
        for lease in self.leases_where(|lease| lease.job == id) {
            self.end_lease(lease);
        }
        let Some(job) = self.jobs.remove(&id) else { return };
        for worker in job.used {
            self.send(worker, ToWorker::Release { job: id }, Arc::default());
        }
    }

    /// Ends a lease, tells its worker, and puts the unit back.
    fn call_off(&mut self, id: LeaseId) -> Lease {
        let lease = self.end_lease(id);
        self.stage_of(lease.job).requeue(lease.unit);
        self.send(lease.worker.clone(), ToWorker::Cancel { lease: id }, Arc::default());
        lease
    }

    /// Ends a lease that its worker will not deliver, and puts the unit back.
    fn requeue(&mut self, id: LeaseId) -> Lease {
        let lease = self.end_lease(id);
        self.stage_of(lease.job).requeue(lease.unit);
        self.count_retry(lease.job);
        lease
    }

    fn count_retry(&mut self, job: JobId) {
        self.jobs.get_mut(&job).expect("a live lease belongs to a running job").retries += 1;
    }

    fn end_lease(&mut self, id: LeaseId) -> Lease {
        let lease = self.leases.remove(&id).expect("only live leases are ended");
        let lender = self.roster.lender_mut(&lease.worker).expect("the worker of a live lease is in the roster");
        lender.leases.retain(|held| *held != id);
        lease
    }

    fn send(&mut self, to: PeerId, message: ToWorker, body: Arc<[u8]>) {
        self.outputs.push_back(RequesterOutput::Send { to, message, body });
    }

    /// The stage of a job that has live leases or delivered units.
    fn stage_of(&mut self, job: JobId) -> &mut Stage {
        let job = self.jobs.get_mut(&job).expect("a live lease belongs to a running job");
        job.stage.as_mut().expect("a live lease belongs to the present stage")
    }

    /// What the lease is for, if it is live and this worker's.
    fn live(&self, from: &PeerId, id: LeaseId) -> Option<(JobId, UnitId)> {
        self.leases.get(&id).filter(|lease| lease.worker == *from).map(|lease| (lease.job, lease.unit))
    }

    fn leases_where(&self, is_meant: impl Fn(&Lease) -> bool) -> Vec<LeaseId> {
        self.leases.iter().filter(|(_, lease)| is_meant(lease)).map(|(id, _)| *id).collect()
    }
}

/// How long `bytes` may be under way to or from the slowest peer that is waited for.
pub(crate) fn transfer_time_max(bytes: usize) -> Duration {
    Duration::from_micros(bytes as u64 * 1_000_000 / UPLOAD_BYTES_PER_SECOND_MIN as u64)
}
