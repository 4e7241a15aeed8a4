//! Lends the units of its jobs on leases, and survives whatever becomes of them.
//!
//! A unit is waiting, leased, answered or delivered. Every grant has a new [`LeaseId`], and only live leases are remembered: a
//! message about any other lease, or from any peer but its worker, changes nothing. That one rule makes late, doubled, stolen
//! and foreign deliveries harmless. A unit may have several live leases: a second worker for one that is late, or as many
//! unrelated ones as must agree.

mod answers;
mod failing;
mod grants;
mod hearing;
mod job;
mod outlook;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use protocol::limits::{
    HEDGES_PER_HUNDRED, HEDGES_SAVED_MAX, LEASE_SILENCE_MAX, LEASE_TIME_LONGEST, LEASE_TIME_MAX, STAGE_UNITS_MAX,
    STALL_OVERDUE, UPLOAD_BYTES_PER_SECOND_MIN,
};
use protocol::{
    Capabilities, Hash, Instant, JobId, LeaseId, ModelId, ModelShape, PeerId, Policy, ToRequester, ToWorker, Unit,
    UnitId, Work,
};

use self::answers::{Check, Lost, check_form};
use self::job::{Job, Stage};
use crate::mutants::{Mutant, is};
use crate::rng::Rng;
use crate::roster::{Lender, Roster};
use crate::speed::{Shape, seconds};
use crate::trust::Standing;

/// What a second worker for a late unit costs of the credit that every delivery adds to.
const HEDGE_COST: u32 = 100;

/// A delivery in less than this share of the expected time is not believed without a look.
const TOO_FAST: f64 = 0.2;

/// Credit that can be saved.
const HEDGE_CREDIT_MAX: u32 = HEDGE_COST * HEDGES_SAVED_MAX;

/// Coordinates the jobs of one peer over the workers of a room.
///
/// One event costs at most a few passes over the room's peers and one stage's units.
pub struct Requester {
    policy: Policy,
    rng: Rng,
    connected: BTreeMap<PeerId, Standing>,
    paths: BTreeMap<PeerId, (Duration, f64)>,
    roster: Roster,
    jobs: BTreeMap<JobId, Job>,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: u64,
    /// Peers caught in a wrong answer, the oldest first.
    condemned: VecDeque<PeerId>,
    /// Leases that lost a race lately.
    lost: VecDeque<Lost>,
    hedge_credit: u32,
    /// Nothing is due before this.
    look_at: Instant,
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
    /// An answer that counted was a liar's, and nobody had confirmed it. The job has no stage any more: the driver takes it
    /// back to before `stage` and begins that one anew. Until then nothing of the job is computed.
    Tainted {
        /// The job.
        job: JobId,
        /// The earliest stage that holds a wrong answer.
        stage: u32,
    },
    /// The job has ended: one of its units failed on every peer that it could be tried on.
    JobFailed {
        /// The job.
        job: JobId,
        /// What was common to all failures.
        cause: FailCause,
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
    /// A worker gave a wrong answer, proved by others, and is never asked again.
    WorkerCondemned {
        /// The worker.
        peer: PeerId,
        /// Which answer.
        evidence: String,
    },
    /// An offer is not accepted.
    WorkerDropped {
        /// The worker.
        peer: PeerId,
        /// Why.
        reason: String,
    },
}

/// Why a job failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailCause {
    /// A unit needs more memory than anybody has: a layout of smaller units may do.
    OutOfMemory,
    /// Anything else.
    Failed,
}

struct Lease {
    job: JobId,
    unit: UnitId,
    worker: PeerId,
    granted: Instant,
    /// When its worker last spoke of it; at first, when the last byte of its input should have arrived.
    heard: Instant,
    key: Shape,
    /// Seconds that its worker was known to take, or else is guessed to; and what the unit spends on its way.
    takes: Option<f64>,
    guess: f64,
    overhead: f64,
    /// Whether its worker had nothing else of this requester.
    was_idle: bool,
}

impl Lease {
    fn deadline(&self) -> Instant {
        (self.heard + LEASE_SILENCE_MAX).min(self.until())
    }

    /// When it ends even if its worker keeps saying that it works.
    fn until(&self) -> Instant {
        let expected = Duration::try_from_secs_f64(STALL_OVERDUE * self.takes.unwrap_or(0.0)).unwrap_or(Duration::MAX);
        self.granted + expected.clamp(LEASE_TIME_MAX, LEASE_TIME_LONGEST)
    }
}

impl Requester {
    /// A requester that knows nobody. `seed` decides which units own devices check.
    pub fn new(policy: Policy, seed: u64) -> Self {
        Self {
            policy,
            rng: Rng(seed),
            connected: BTreeMap::new(),
            paths: BTreeMap::new(),
            roster: Roster::new(),
            jobs: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_lease: 0,
            condemned: VecDeque::new(),
            lost: VecDeque::new(),
            hedge_credit: HEDGE_CREDIT_MAX / 2,
            look_at: Instant::MAX,
            outputs: VecDeque::new(),
        }
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
        let is_encoding = units.iter().any(|(unit, _)| matches!(unit.work, Work::Encode { .. }));
        let believes = is(Mutant::BelievesEncoders) && is_encoding;
        let check = if believes { Check::Domains(1) } else { Check::Domains(self.policy.quorum()) };
        let Some(entry) = self.jobs.get_mut(&job) else { return };
        entry.stage = Some(Stage::new(*shape, conditioning, units, check));
        self.fail_if_hopeless(job);
        self.assign(now);
    }

    /// Ends a job, finished or not: nothing of it is accepted any more, and the workers it used are told.
    pub fn cancel(&mut self, job: JobId, now: Instant) {
        self.end_job(job);
        self.assign(now); // Its workers are free for other jobs.
    }

    /// A peer is connected. If it already was, that connection and all that travelled on it are lost.
    pub fn handle_joined(&mut self, peer: PeerId, standing: Standing, now: Instant) {
        if !is(Mutant::KeepsOldConnection) {
            self.dismiss(&peer, now);
        }
        self.connected.insert(peer, standing);
        self.assign(now);
    }

    /// More is known of a connected peer, for example since it is reached directly.
    pub fn handle_standing(&mut self, peer: &PeerId, standing: Standing) {
        if let Some(known) = self.connected.get_mut(peer) {
            known.clone_from(&standing);
        }
        if let Some(lender) = self.roster.lender_mut(peer) {
            lender.stand(standing);
        }
    }

    /// What is sent to a peer takes this long there and back, and this many bytes a second: a first guess, which what is
    /// measured of its units replaces.
    pub fn handle_path(&mut self, peer: &PeerId, round_trip: Duration, bytes_per_second: f64) {
        if self.connected.contains_key(peer) {
            self.paths.insert(peer.clone(), (round_trip, bytes_per_second));
        }
        if let Some(lender) = self.roster.lender_mut(peer) {
            lender.take_path(round_trip, bytes_per_second);
        }
    }

    /// A peer's connection is gone. Its units are requeued, and it bears no blame.
    pub fn handle_left(&mut self, peer: &PeerId, now: Instant) {
        if !is(Mutant::DeafToLeaving) {
            self.dismiss(peer, now);
        }
        self.connected.remove(peer);
        self.paths.remove(peer);
        for job in self.jobs.values_mut() {
            job.used.remove(peer);
        }
        self.assign(now);
    }

    /// A connected peer says something. Messages of others are not heard.
    pub fn handle(&mut self, from: &PeerId, message: ToRequester, body: Vec<u8>, now: Instant) {
        if !self.connected.contains_key(from) {
            return;
        }
        let was_mute = self.roster.lender_mut(from).is_some_and(|lender| lender.probed.take().is_some());
        let is_heartbeat = matches!(message, ToRequester::Heartbeat { .. });
        match message {
            ToRequester::Offer(capabilities) => self.admit(from, capabilities, now),
            ToRequester::Heartbeat { lease } => self.renew(from, lease, now),
            ToRequester::Deliver { lease, compute_ms } => self.accept(from, lease, compute_ms, body, now),
            ToRequester::Refuse { lease, reason } => self.give_back(from, lease, reason, now),
            ToRequester::Leave if is(Mutant::IgnoresLeave) => {}
            ToRequester::Leave => self.dismiss(from, now),
        }
        if !is_heartbeat || was_mute {
            self.assign(now); // Any other event may have freed a worker or brought a unit back.
        }
    }

    /// The driver finds a delivered body unsound: that is a failure of its worker, and the unit is requeued. Call it when the
    /// `Delivered` is polled; a `StageDone` already polled will come again. Does nothing for other than delivered units of
    /// the present stage.
    pub fn reject(&mut self, job: JobId, unit: UnitId, reason: &str, now: Instant) {
        if is(Mutant::RejectsNothing) {
            return;
        }
        let stage = self.jobs.get_mut(&job).and_then(|job| job.stage.as_mut());
        let Some(done) = stage.and_then(|stage| stage.undo(unit)) else { return };
        self.count_retry(job);
        if let Some(lender) = self.roster.lender_mut(&done.by) {
            lender.uncount_delivery(done.failures_in_row);
        }
        self.fail_unit(job, unit, done.by, reason, false, now);
        self.assign(now);
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
        waiting.into_iter().any(|entry| !self.has_taker(job, entry))
    }

    /// How far workers are believed.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Peers caught in a wrong answer, the oldest first.
    pub fn condemned(&self) -> impl Iterator<Item = &PeerId> {
        self.condemned.iter()
    }

    fn admit(&mut self, from: &PeerId, capabilities: Capabilities, now: Instant) {
        if self.condemned.contains(from) && !is(Mutant::ForgetsCondemned) {
            let reason = "it gave a wrong answer before".to_owned();
            self.outputs.push_back(RequesterOutput::WorkerDropped { peer: from.clone(), reason });
            return;
        }
        if let Err(error) = self.roster.admit(from.clone(), capabilities, now) {
            self.dismiss(from, now);
            self.outputs.push_back(RequesterOutput::WorkerDropped { peer: from.clone(), reason: error.to_string() });
            return;
        }
        let lender = self.roster.lender_mut(from).expect("the peer was just admitted");
        lender.stand(self.connected[from].clone());
        if let Some((round_trip, bytes_per_second)) = self.paths.get(from) {
            lender.take_path(*round_trip, *bytes_per_second);
        }
    }

    fn renew(&mut self, from: &PeerId, lease: LeaseId, now: Instant) {
        if let Some(lease) = self.leases.get_mut(&lease).filter(|lease| lease.worker == *from) {
            lease.heard = lease.heard.max(now);
        }
    }

    fn accept(&mut self, from: &PeerId, id: LeaseId, compute_ms: u32, body: Vec<u8>, now: Instant) {
        let held = self.roster.lender(from).and_then(|lender| lender.leases.first().copied());
        let id = held.filter(|_| is(Mutant::DropsFence)).unwrap_or(id);
        let Some((job, unit)) = self.live(from, id) else { return self.compare_late(from, id, &body) };
        let stage = self.stage_of(job);
        let entry = stage.entry(unit).expect("a leased unit belongs to the present stage");
        if let Err(reason) = check_form(&entry.unit, &stage.shape, &entry.input, &body) {
            return self.fail_lease(id, &reason, now);
        }
        self.measure(id, compute_ms, now);
        self.end_lease(id);
        self.keep((job, unit), from, body, compute_ms, now);
    }

    /// Notes how long a lease that is delivered took. What its worker says of itself only divides the time between computing
    /// and travelling.
    fn measure(&mut self, id: LeaseId, compute_ms: u32, now: Instant) {
        let lease = &self.leases[&id];
        let (job, unit, was_idle) = (lease.job, lease.unit, lease.was_idle);
        let arrived = seconds(lease.granted) + lease.overhead;
        let turnaround = (now - lease.granted).as_secs_f64();
        let expected = lease.takes;
        let worker = lease.worker.clone();
        let is_checkable = self.policy == Policy::Friends && self.is_judged(job, unit) == Some(true);
        let key = lease.key;
        let lender = self.roster.lender_mut(&worker).expect("the worker of a live lease is in the roster");
        let before = lender.delivered.replace(now);
        let gap = before.map_or(turnaround, |before| (now - before).as_secs_f64().min(turnaround));
        if was_idle {
            let computed = (f64::from(compute_ms) / 1000.0).min(turnaround);
            lender.speed_mut().measure(key, computed, now);
            lender.speed_mut().measure_overhead(turnaround - computed);
        } else if before.is_some_and(|before| arrived <= seconds(before)) {
            lender.speed_mut().measure(key, gap, now);
        }
        // Nobody is five times as fast as it was: an own device looks at that.
        let is_too_fast = expected.is_some_and(|expected| gap < expected * TOO_FAST);
        if is_too_fast && is_checkable && !lender.standing().is_own {
            self.set_check(job, unit, Check::Own);
        }
    }

    /// Takes a peer out of the roster and requeues its units, the oldest lease first. What it answered and what does not count
    /// yet stays: it may still be confirmed.
    fn dismiss(&mut self, peer: &PeerId, now: Instant) {
        let leases = self.roster.lender(peer).map_or_else(Vec::new, |lender| lender.leases.clone());
        let is_own = self.roster.lender(peer).is_some_and(|lender| lender.standing().is_own);
        for id in leases.into_iter().rev() {
            self.requeue(id);
        }
        self.roster.remove(peer);
        if is_own {
            self.release_checks(now);
        }
    }

    fn end_job(&mut self, id: JobId) {
        for lease in self.leases_where(|lease| lease.job == id) {
            self.end_lease(lease);
        }
        let Some(job) = self.jobs.remove(&id) else { return };
        for worker in job.used.into_iter().filter(|_| !is(Mutant::ForgetsRelease)) {
            self.send(worker, ToWorker::Release { job: id }, Arc::default());
        }
    }

    /// Ends a lease, tells its worker, and puts the unit back if it still wants one.
    fn call_off(&mut self, id: LeaseId) -> Lease {
        let lease = self.end_lease(id);
        self.send(lease.worker.clone(), ToWorker::Cancel { lease: id }, Arc::default());
        lease
    }

    /// Ends a lease that its worker will not deliver, and puts the unit back.
    fn requeue(&mut self, id: LeaseId) -> Lease {
        let lease = self.end_lease(id);
        self.count_retry(lease.job);
        lease
    }

    fn count_retry(&mut self, job: JobId) {
        self.jobs.get_mut(&job).expect("a live lease belongs to a running job").retries += 1;
    }

    /// Ends a lease; its unit waits again if it wants another.
    fn end_lease(&mut self, id: LeaseId) -> Lease {
        let lease = self.leases.remove(&id).expect("only live leases are ended");
        let lender = self.roster.lender_mut(&lease.worker).expect("the worker of a live lease is in the roster");
        lender.leases.retain(|held| *held != id);
        let stage = self.stage_of(lease.job);
        if let Some(entry) = stage.entry_mut(lease.unit) {
            entry.leases.retain(|holder| holder.lease != id);
        }
        if !is(Mutant::ForgetsUnit) {
            stage.requeue(lease.unit);
        }
        self.renew_outlook(&lease.worker);
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
        let is_own = |lease: &&Lease| lease.worker == *from || is(Mutant::AnyWorker);
        self.leases.get(&id).filter(is_own).map(|lease| (lease.job, lease.unit))
    }

    fn leases_where(&self, is_meant: impl Fn(&Lease) -> bool) -> Vec<LeaseId> {
        self.leases.iter().filter(|(_, lease)| is_meant(lease)).map(|(id, _)| *id).collect()
    }
}

/// How long `bytes` may be under way to or from the slowest peer that is waited for.
pub(crate) fn transfer_time_max(bytes: usize) -> Duration {
    Duration::from_micros(bytes as u64 * 1_000_000 / UPLOAD_BYTES_PER_SECOND_MIN as u64)
}
