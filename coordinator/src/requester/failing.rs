//! What refusals and failures do: to their unit, to its worker, and to its job.

use protocol::limits::REFUSAL_PAUSE;
use protocol::{Hash, Instant, JobId, LeaseId, PeerId, RefuseReason, UnitId};

use super::job::{self, Failure};
use super::{FailCause, Lease, Requester, RequesterOutput};
use crate::speed::Shape;
use crate::trust::Standing;

impl Requester {
    pub(super) fn give_back(&mut self, from: &PeerId, id: LeaseId, reason: RefuseReason, now: Instant) {
        let Some((job, unit)) = self.live(from, id) else { return };
        let model = self.jobs[&job].model;
        let lender = self.roster.lender_mut(from).expect("the worker of a live lease is in the roster");
        match reason {
            RefuseReason::Busy | RefuseReason::UnknownLease => {
                if lender.count_refusal() {
                    return self.fail_lease(id, "it refuses everything", now);
                }
                lender.pause(REFUSAL_PAUSE, now);
                self.look_by(now + REFUSAL_PAUSE);
                self.requeue(id);
            }
            RefuseReason::UnknownModel => {
                lender.note_lacking(model);
                let is_own = lender.standing().is_own;
                self.requeue(id);
                if is_own {
                    self.release_checks(now);
                }
            }
            RefuseReason::OutOfMemory => {
                let stage = self.stage_of(job);
                let work = &stage.entry(unit).expect("a leased unit belongs to the present stage").unit.work;
                let key = Shape::of(work, model, &stage.shape);
                self.roster.lender_mut(from).expect("it was just there").note_too_large(&key);
                self.requeue(id);
                self.fail_unit(job, unit, from.clone(), "out of memory", true, now);
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

    pub(super) fn fail_lease(&mut self, id: LeaseId, reason: &str, now: Instant) {
        let Lease { job, unit, worker, .. } = self.requeue(id);
        self.fail_unit(job, unit, worker, reason, false, now);
    }

    /// Notes that `peer` failed a waiting unit, and ends the job if there is nobody else to try. A unit that is too large is
    /// no fault of its worker.
    pub(super) fn fail_unit(
        &mut self,
        job: JobId,
        unit: UnitId,
        peer: PeerId,
        reason: &str,
        is_out_of_memory: bool,
        now: Instant,
    ) {
        let RefuseReason::Failed(reason) = RefuseReason::failed(reason) else {
            unreachable!("failed() makes a Failed")
        };
        let standing = self.roster.lender(&peer).map(|lender| lender.standing().clone());
        let domain = standing.unwrap_or_else(|| Standing::alone(&peer)).domain;
        let entry = self.stage_of(job).entry_mut(unit).expect("a failed unit belongs to the present stage");
        entry.failures.push(Failure { peer: peer.clone(), domain, reason: reason.clone(), is_out_of_memory });
        if !is_out_of_memory && self.punish(&peer, now) {
            self.outputs.push_back(RequesterOutput::WorkerPaused { peer: peer.clone(), reason });
        }
        if self.roster.lender(&peer).is_some_and(|lender| lender.standing().is_own) {
            self.release_checks(now); // The unit may count without it.
        }
        let stage = self.jobs.get(&job).and_then(|job| job.stage.as_ref());
        let Some(entry) = stage.and_then(|stage| stage.entry(unit)).filter(|entry| entry.done.is_none()) else {
            return;
        };
        if entry.is_spent() {
            self.fail_job(job, unit);
        } else {
            self.fail_if_hopeless(job);
        }
    }

    /// Pauses a worker for a failure; returns whether it is there.
    pub(super) fn punish(&mut self, peer: &PeerId, now: Instant) -> bool {
        let Some(lender) = self.roster.lender_mut(peer) else { return false };
        lender.count_failure(now);
        let until = lender.paused_until();
        until.into_iter().for_each(|until| self.look_by(until));
        true
    }

    /// Ends the job if everybody present who lends its model has failed one of its units, or has too little memory for it;
    /// nobody there at all only makes it wait. A failure is judged so at once. Who leaves may come again, so after a departure
    /// the driver asks when it has waited long enough.
    pub fn fail_if_hopeless(&mut self, id: JobId) {
        let Some((job, stage)) = self.jobs.get(&id).and_then(|job| Some((job, job.stage.as_ref()?))) else { return };
        let is_hopeless =
            |entry: &&job::Entry| self.is_hopeless(entry, &Shape::of(&entry.unit.work, job.model, &stage.shape));
        let unit = stage.waiting().find(is_hopeless).map(|entry| entry.unit.id);
        if let Some(unit) = unit {
            self.fail_job(id, unit);
        }
    }

    /// Ends a job because of a unit that nobody could do. If all failed alike it was the unit's fault, and nobody is punished.
    fn fail_job(&mut self, id: JobId, unit: UnitId) {
        let entry = self.stage_of(id).entry(unit).expect("a failed unit belongs to the present stage");
        let failures = entry.failures.clone();
        let is_alike = failures.iter().all(|failure| failure.reason == failures[0].reason);
        if is_alike && failures.len() > 1 {
            for failure in failures.iter().filter(|failure| !failure.is_out_of_memory) {
                if let Some(lender) = self.roster.lender_mut(&failure.peer) {
                    lender.forgive();
                }
            }
        }
        let is_memory = failures.iter().all(|failure| failure.is_out_of_memory);
        let cause = if is_memory { FailCause::OutOfMemory } else { FailCause::Failed };
        let reasons = failures.into_iter().map(|failure| (failure.peer, failure.reason)).collect();
        self.end_job(id);
        self.outputs.push_back(RequesterOutput::JobFailed { job: id, cause, reasons });
    }
}
