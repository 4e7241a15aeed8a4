//! Who gets which unit next: every idle worker one, then a second in advance, and nothing waits behind a slow worker.

use protocol::limits::LEASES_PER_WORKER;
use protocol::{Instant, JobId, LeaseId, PeerId, ToWorker, UnitId};

use super::job::{Entry, Job, State};
use super::{Lease, Requester, transfer_time_max};

impl Requester {
    /// Grants leases as long as there is a worker for a waiting unit.
    pub(super) fn assign(&mut self, now: Instant) {
        let mut stages = self.jobs.values().filter_map(|job| job.stage.as_ref());
        let is_waiting = stages.any(|stage| stage.waiting().next().is_some());
        if !is_waiting && self.roster.lenders().all(|(_, lender)| lender.leases_held() < 2) {
            return; // Most events of a large room are heartbeats that free nobody.
        }
        for held in 0..LEASES_PER_WORKER {
            for worker in self.roster.ready_beside(held, now) {
                if let Some((job, unit)) = self.unit_for(&worker, now) {
                    self.grant(worker, job, unit, now);
                } else if held == 0
                    && let Some(lease) = self.prefetched_for(&worker, now)
                {
                    // An idle worker begins at once what would wait behind another unit where it is.
                    let Lease { job, unit, .. } = self.call_off(lease);
                    self.grant(worker, job, unit, now);
                }
            }
        }
    }

    fn grant(&mut self, worker: PeerId, job_id: JobId, unit: UnitId, now: Instant) {
        self.last_lease += 1;
        let id = LeaseId(self.last_lease);
        let job = self.jobs.get_mut(&job_id).expect("the unit was found in a running job");
        let stage = job.stage.as_mut().expect("the unit was found in the present stage");
        job.used.insert(worker.clone());
        stage.take_from_queue(unit);
        let entry = stage.entry_mut(unit).expect("the unit was found in the present stage");
        entry.state = State::Leased;
        let (message, input) =
            (ToWorker::Assign { lease: id, unit: Box::new(entry.unit.clone()) }, entry.input.clone());
        let named = entry.unit.clone();
        let lender = self.roster.lender_mut(&worker).expect("leases are granted to lenders");
        let missing = stage.conditioning_of(&named).filter(|(hash, _)| lender.store(*hash));
        // What was sent to this worker before, and is still unacknowledged, travels first.
        let waiting_for = lender.leases.iter().filter_map(|lease| self.leases.get(lease)).map(|lease| lease.heard);
        let begins = waiting_for.max().unwrap_or(now).max(now);
        let bytes = input.len() + missing.as_ref().map_or(0, |(_, body)| body.len());
        let heard = begins + transfer_time_max(bytes);
        lender.leases.push(id);
        self.leases.insert(id, Lease { job: job_id, unit, worker: worker.clone(), granted: now, heard });
        if let Some((blob, body)) = missing {
            self.send(worker.clone(), ToWorker::Store { blob }, body);
        }
        self.send(worker, message, input);
    }

    /// The next unit for this worker: of the job with the fewest leases, so that jobs share the room.
    fn unit_for(&self, worker: &PeerId, now: Instant) -> Option<(JobId, UnitId)> {
        let next_of = |job: &Job| {
            let stage = job.stage.as_ref().filter(|_| self.lends(worker, job))?;
            let entry = stage.waiting().find(|entry| self.may_take(worker, job, entry, now))?;
            Some(entry.unit.id)
        };
        let offers = self.jobs.iter().filter_map(|(id, job)| Some((job.leased(), *id, next_of(job)?)));
        offers.min().map(|(_, job, unit)| (job, unit))
    }

    /// The newest lease whose unit waits behind another at its worker, and which this worker may take.
    fn prefetched_for(&self, worker: &PeerId, now: Instant) -> Option<LeaseId> {
        let may_take = |id: &LeaseId| {
            let lease = &self.leases[id];
            let job = &self.jobs[&lease.job];
            let entry = job.stage.as_ref().and_then(|stage| stage.entry(lease.unit));
            self.lends(worker, job) && entry.is_some_and(|entry| self.may_take(worker, job, entry, now))
        };
        let prefetched = self.roster.lenders().flat_map(|(_, lender)| lender.leases.iter().skip(1));
        prefetched.copied().filter(may_take).max()
    }

    fn lends(&self, worker: &PeerId, job: &Job) -> bool {
        self.roster.lender(worker).is_some_and(|lender| lender.lends(job.model))
    }

    /// Whether a lender of the job's model may be given the unit: it has not failed it, nor just stalled on it while
    /// somebody else can be asked.
    fn may_take(&self, worker: &PeerId, job: &Job, entry: &Entry, now: Instant) -> bool {
        if entry.failed_on(worker) {
            return false;
        }
        let mut others = self.roster.lenders_of(job.model).filter(|(peer, _)| *peer != worker);
        let stalled = entry.stalled_on.as_ref() == Some(worker);
        !stalled || !others.any(|(peer, lender)| !lender.is_paused(now) && !entry.failed_on(peer))
    }
}
