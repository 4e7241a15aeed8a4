//! Who gets which unit next: whoever finishes it first, if that does not make the stage longer; then a second worker for what
//! is late.

use protocol::limits::PROBE_AFTER;
use protocol::{Instant, JobId, LeaseId, PeerId, ToWorker, UnitId};

use super::answers::Check;
use super::job::{Entry, Holder, Job};
use super::outlook::{Candidate, are_done_before};
use super::{HEDGE_COST, Lease, Requester, transfer_time_max};
use crate::mutants::{Mutant, is};
use crate::roster::Lender;
use crate::speed::{Shape, seconds};

/// A unit that waits behind another moves to an idle worker only if that saves at least this share of the wait.
const STEAL_GAIN: f64 = 0.1;

impl Requester {
    /// Grants leases as long as there is a worker for a waiting unit, and moves or doubles what an idle worker would finish
    /// earlier.
    pub(super) fn assign(&mut self, now: Instant) {
        while let Some((worker, job, unit)) = self.next_grant(now) {
            self.draw_check(job, unit, &worker);
            self.grant(worker, job, unit, now);
        }
        let can_be_helped = |lender: &Lender| lender.leases.len() > 1 || self.is_late(&lender.outlook, now);
        if !self.roster.lenders().any(|(_, lender)| can_be_helped(lender)) {
            return;
        }
        let is_idle = |lender: &Lender| lender.leases.is_empty() && is_free(lender, now);
        let idle = self.roster.lenders().filter(|(_, lender)| is_idle(lender)).map(|(peer, _)| peer.clone());
        idle.collect::<Vec<_>>().into_iter().for_each(|worker| self.help_others(worker, now));
    }

    /// The waiting unit to give away next, and to whom.
    fn next_grant(&self, now: Instant) -> Option<(PeerId, JobId, UnitId)> {
        let has_waiting = |job: &Job| job.stage.as_ref().is_some_and(|stage| stage.waiting().next().is_some());
        if !self.jobs.values().any(has_waiting) || !self.roster.lenders().any(|(_, lender)| is_free(lender, now)) {
            return None;
        }
        // The job with the fewest leases first, so that jobs share the room.
        let waiting_jobs = self.jobs.iter().filter(|(_, job)| has_waiting(job));
        let mut jobs: Vec<(usize, JobId, &Job)> = waiting_jobs.map(|(id, job)| (job.leased(), *id, job)).collect();
        jobs.sort_by_key(|(leased, id, _)| (*leased, *id));
        let stages = jobs.iter().filter_map(|(_, _, job)| job.stage.as_ref());
        let waiting: usize = stages.map(|stage| stage.waiting().len()).sum::<usize>() * self.policy.quorum();
        jobs.into_iter().find_map(|(_, id, job)| {
            let mut has_fresh_failed = false;
            job.stage.iter().flat_map(|stage| stage.waiting()).find_map(|entry| {
                // Nobody has begun those: what holds for one of them holds for all.
                if entry.is_fresh() && has_fresh_failed {
                    return None;
                }
                has_fresh_failed |= entry.is_fresh();
                Some((self.taker(job, entry, waiting, now)?, id, entry.unit.id))
            })
        })
    }

    /// Who takes the unit now; nobody, if those who are free would make the stage longer.
    fn taker(&self, job: &Job, entry: &Entry, waiting: usize, now: Instant) -> Option<PeerId> {
        let stage = job.stage.as_ref().expect("the unit belongs to the present stage");
        let (shape, work) = (&stage.shape, &entry.unit.work);
        let key = Shape::of(work, job.model, shape);
        let bytes = entry.input.len() + 4 * work.output_values(shape);
        let present = seconds(now);
        let mut guess = None;
        let mut candidates = Vec::with_capacity(self.roster.lenders().len());
        for (worker, lender) in self.roster.lenders_of(job.model) {
            if lender.is_suspect() || lender.is_paused(now) || !self.may_take(worker, lender, job, entry, &key) {
                continue;
            }
            let known = lender.seconds_of(&key, now);
            let takes = known.unwrap_or_else(|| *guess.get_or_insert_with(|| self.guess(&key, job.model, now)));
            let overhead = lender.overhead(bytes);
            let has_room = lender.leases.len() < lender.window(takes, overhead) || is(Mutant::NoWindow);
            // Behind another unit the way there is hidden, but for what the wait does not cover.
            let ready = lender.outlook.free_in(present).max(overhead);
            let failures_in_row = lender.failures_in_row();
            candidates.push(Candidate { worker, ready, takes, has_room, failures_in_row });
        }
        let first = candidates.iter().filter(|candidate| candidate.has_room).min_by(|a, b| a.cmp(b))?;
        (!are_done_before(first.finish(), waiting, &candidates)).then(|| first.worker.clone())
    }

    pub(super) fn grant(&mut self, worker: PeerId, job_id: JobId, unit: UnitId, now: Instant) {
        self.last_lease += u64::from(!(is(Mutant::ReusesLease) && self.last_lease % 16 == 15));
        let id = LeaseId(self.last_lease);
        let job = self.jobs.get_mut(&job_id).expect("the unit was found in a running job");
        let model = job.model;
        let stage = job.stage.as_mut().expect("the unit was found in the present stage");
        job.used.insert(worker.clone());
        let shape = stage.shape;
        let lender = self.roster.lender_mut(&worker).expect("leases are granted to lenders");
        let standing = lender.standing();
        let holder =
            Holder { lease: id, worker: worker.clone(), domain: standing.domain.clone(), is_own: standing.is_own };
        let entry = stage.entry_mut(unit).expect("the unit was found in the present stage");
        entry.leases.push(holder);
        let named = entry.unit.clone();
        let (message, mut input) = (ToWorker::Assign { lease: id, unit: Box::new(named.clone()) }, entry.input.clone());
        if is(Mutant::WrongInput) {
            let first = stage.entries_mut().next().map(|entry| entry.input.clone());
            input = first.filter(|first| first.len() == input.len()).unwrap_or(input);
        }
        stage.requeue(unit);
        let missing = stage.conditioning_of(&named).filter(|(hash, _)| lender.store(*hash));
        let key = Shape::of(&named.work, model, &shape);
        let takes = lender.seconds_of(&key, now);
        let overhead = lender.overhead(input.len() + 4 * named.work.output_values(&shape));
        // What was sent to this worker before, and is still unacknowledged, travels first.
        let waiting_for = lender.leases.iter().filter_map(|lease| self.leases.get(lease)).map(|lease| lease.heard);
        let begins = waiting_for.max().unwrap_or(now).max(now);
        let bytes = input.len() + missing.as_ref().map_or(0, |(_, body)| body.len());
        let heard = begins + transfer_time_max(bytes);
        let was_idle = lender.leases.is_empty();
        lender.leases.push(id);
        let guess = takes.unwrap_or_else(|| self.guess(&key, model, now));
        let worker_id = worker.clone();
        let lease =
            Lease { job: job_id, unit, worker: worker_id, granted: now, heard, key, takes, guess, overhead, was_idle };
        self.leases.insert(id, lease);
        self.look_by(heard + PROBE_AFTER);
        self.renew_outlook(&worker);
        if is(Mutant::StoresLater) {
            self.send(worker.clone(), message.clone(), input.clone());
        }
        if let Some((blob, body)) = missing {
            self.send(worker.clone(), ToWorker::Store { blob }, body);
        }
        if !is(Mutant::StoresLater) {
            self.send(worker, message, input);
        }
    }

    /// An idle worker begins at once what would wait behind another unit where it is, or doubles what is late.
    fn help_others(&mut self, worker: PeerId, now: Instant) {
        if let Some(lease) = self.prefetched_for(&worker, now) {
            let Lease { job, unit, .. } = self.call_off(lease);
            self.grant(worker, job, unit, now);
        } else if let Some(lease) = self.late_for(&worker, now) {
            let Lease { job, unit, worker: late, .. } = &self.leases[&lease];
            let (job, unit, late) = (*job, *unit, late.clone());
            self.hedge_credit = self.hedge_credit.saturating_sub(HEDGE_COST);
            // Whoever is late is given nothing more before it has answered.
            self.probe(&late, lease, now);
            self.with_window_shrunk(&late);
            self.grant(worker, job, unit, now);
        }
    }

    /// The last lease of the worker that is busy longest, if this idle worker would finish its unit clearly sooner.
    fn prefetched_for(&self, worker: &PeerId, now: Instant) -> Option<LeaseId> {
        let present = seconds(now);
        let several = self.roster.lenders().filter(|(_, lender)| lender.leases.len() > 1);
        let mut ends: Vec<(f64, LeaseId)> =
            several.filter_map(|(_, lender)| Some((lender.outlook.free_in(present), *lender.leases.last()?))).collect();
        ends.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
        ends.into_iter().find(|(end, id)| self.would_finish(worker, *id, *end, now)).map(|(_, id)| id)
    }

    /// The most overdue lease of a unit that has too few others, and which this idle worker would finish sooner.
    fn late_for(&self, worker: &PeerId, now: Instant) -> Option<LeaseId> {
        let present = seconds(now);
        let mut best: Option<(f64, LeaseId)> = None;
        for (_, lender) in self.roster.lenders().filter(|(_, lender)| self.is_late(&lender.outlook, now)) {
            let Some(id) = lender.leases.first() else { continue };
            let late = (present - lender.outlook.first_end).max(0.0);
            let is_short = self.entry_of(&self.leases[id]).is_some_and(|entry| self.is_short(entry, now));
            // What has stalled will not end by itself.
            let end = if lender.outlook.stall_at <= present { f64::INFINITY } else { late };
            if is_short && best.is_none_or(|best| (late, *id) > best) && self.would_finish(worker, *id, end, now) {
                best = Some((late, *id));
            }
        }
        best.map(|(_, id)| id)
    }

    /// Whether the leases of a unit that are not late are fewer than the answers that it still wants.
    fn is_short(&self, entry: &Entry, now: Instant) -> bool {
        let is_late = |worker: &PeerId, lease: LeaseId| {
            let lender = self.roster.lender(worker).expect("the worker of a live lease is in the roster");
            lender.leases.first() == Some(&lease) && self.is_late(&lender.outlook, now)
        };
        match entry.check {
            Check::Own => entry.leases.len() == 1,
            Check::Domains(_) => {
                let in_time = entry.leases.iter().filter(|holder| !is_late(&holder.worker, holder.lease)).count();
                in_time < entry.check.answers_missing(&entry.answers, &entry.leases)
            }
        }
    }

    /// Whether the idle worker may compute the lease's unit, and would be done clearly before `end`.
    fn would_finish(&self, worker: &PeerId, id: LeaseId, end: f64, now: Instant) -> bool {
        let lease = &self.leases[&id];
        let job = &self.jobs[&lease.job];
        let (Some(entry), Some(lender)) = (self.entry_of(lease), self.roster.lender(worker)) else { return false };
        if !lender.lends(job.model) || lease.worker == *worker || !self.may_take(worker, lender, job, entry, &lease.key)
        {
            return false;
        }
        let stage = job.stage.as_ref().expect("a live lease belongs to the present stage");
        let takes = lender.seconds_of(&lease.key, now).or(lease.takes).unwrap_or(lease.guess);
        let bytes = entry.input.len() + 4 * entry.unit.work.output_values(&stage.shape);
        lender.overhead(bytes) + takes < end * (1.0 - STEAL_GAIN)
    }

    fn entry_of(&self, lease: &Lease) -> Option<&Entry> {
        self.jobs[&lease.job].stage.as_ref()?.entry(lease.unit)
    }

    /// Whether a lender of the job's model may be given the unit: it neither has it nor failed it, has the memory, is of
    /// another domain than those whose answer it shall confirm, and has not just stalled on it while somebody else can be
    /// asked.
    pub(super) fn may_take(&self, worker: &PeerId, lender: &Lender, job: &Job, entry: &Entry, key: &Shape) -> bool {
        if entry.failed_on(worker)
            || entry.is_held_by(worker) && !is(Mutant::AsksTwice)
            || lender.is_too_large(key)
            || !self.may_confirm(lender, entry)
        {
            return false;
        }
        let stalled = entry.stalled_on.as_ref() == Some(worker);
        let mut others = self.roster.lenders_of(job.model).filter(|(peer, _)| *peer != worker);
        let may = |(peer, lender): (&PeerId, &Lender)| {
            !lender.is_suspect()
                && !entry.failed_on(peer)
                && !entry.is_held_by(peer)
                && !lender.is_too_large(key)
                && self.may_confirm(lender, entry)
        };
        !stalled || !others.any(may)
    }

    /// Whether this lender's answer would add to those that are there or under way.
    fn may_confirm(&self, lender: &Lender, entry: &Entry) -> bool {
        let standing = lender.standing();
        if is(Mutant::AsksTwice) {
            return true;
        }
        match entry.check {
            Check::Domains(1) => true,
            Check::Domains(_) => {
                // An own device judges alone. If answers differ already, anybody new may decide.
                let mut domains = entry.leases.iter().map(|holder| &holder.domain);
                let is_new = !domains.any(|domain| *domain == standing.domain)
                    && !entry.answers.iter().any(|answer| answer.domain == standing.domain);
                is_new || standing.is_own || (entry.answers.len() > 1 && entry.leases.is_empty())
            }
            Check::Own => {
                let mut holders = entry.leases.iter().map(|holder| holder.is_own);
                match standing.is_own {
                    true => !holders.any(|is_own| is_own),
                    false => entry.answers.is_empty() && holders.all(|is_own| is_own),
                }
            }
        }
    }

    /// Whether a lender of the model is there that may still be asked for the unit, now or later.
    pub(super) fn has_taker(&self, job: &Job, entry: &Entry) -> bool {
        let stage = job.stage.as_ref().expect("the unit belongs to the present stage");
        let key = Shape::of(&entry.unit.work, job.model, &stage.shape);
        let mut lenders = self.roster.lenders_of(job.model);
        lenders.any(|(peer, lender)| !lender.is_suspect() && self.may_take(peer, lender, job, entry, &key))
    }

    /// Whether everybody present who lends the model has failed the unit or has too little memory for it.
    pub(super) fn is_hopeless(&self, entry: &Entry, key: &Shape) -> bool {
        let mut lenders = self.roster.lenders_of(key.model()).peekable();
        lenders.peek().is_some() && lenders.all(|(peer, lender)| entry.failed_on(peer) || lender.is_too_large(key))
    }

    fn with_window_shrunk(&mut self, worker: &PeerId) {
        if let Some(lender) = self.roster.lender_mut(worker) {
            lender.shrink_window();
        }
    }
}

/// Whether a lender may hold a lease more; how many exactly depends on the unit.
fn is_free(lender: &Lender, now: Instant) -> bool {
    let has_room = lender.leases.len() < protocol::limits::LEASES_PER_WORKER || is(Mutant::NoWindow);
    has_room && !lender.is_suspect() && !lender.is_paused(now)
}

const _: () =
    assert!(PROBE_AFTER.as_millis() < protocol::limits::LEASE_SILENCE_MAX.as_millis(), "ask before giving up");
