//! What time does to leases: who is silent is asked whether it lives, and who stays silent loses its units.

use std::time::Duration;

use protocol::limits::PROBE_AFTER;
use protocol::{Instant, LeaseId, PeerId, ToWorker};

use super::{Lease, Requester};
use crate::roster::Probed;
use crate::speed::after;

/// A worker that does not answer is asked again after this, twice as long each time.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// Doublings of it: every two minutes at least.
const PROBE_DOUBLINGS_MAX: u32 = 6;

/// What was due and could not be done is looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

impl Requester {
    /// Time has passed: silent workers are asked, leases of those that stay silent or stall end, late units get a second
    /// worker, and pauses end.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.look_at {
            return;
        }
        for id in self.leases_where(|lease| lease.deadline() <= now) {
            // Its worker may have been relieved of it together with an earlier one.
            let Some(lease) = self.leases.get(&id) else { continue };
            let worker = lease.worker.clone();
            let reason = if lease.until() <= now {
                format!("held a unit for {} s without delivering it", (now - lease.granted).as_secs())
            } else {
                format!("said nothing of a unit for {} s", (now - lease.heard).as_secs())
            };
            self.relieve(&worker, id, &reason, now);
        }
        self.pass_over_stalled_checks(now);
        for id in self.leases_where(|lease| lease.heard + PROBE_AFTER <= now) {
            let worker = self.leases[&id].worker.clone();
            self.probe(&worker, id, now);
        }
        let mute =
            self.roster.lenders().filter(|(_, lender)| lender.probed.is_some_and(|probed| due_again(probed) <= now));
        for (worker, probed) in mute.map(|(peer, lender)| (peer.clone(), lender.probed)).collect::<Vec<_>>() {
            let Some(Probed { lease, times, .. }) = probed else { continue };
            let lender = self.roster.lender_mut(&worker).expect("it was just found");
            lender.probed = Some(Probed { lease, asked: now, times: times + 1 });
            self.send(worker, ToWorker::Probe { lease }, [].into());
        }
        self.roster.end_pauses(now);
        self.assign(now);
        self.look_at = self.next_due(now).unwrap_or(Instant::MAX);
    }

    /// When [`Requester::handle_timeout`] is due: never later than something is, and sometimes earlier.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let is_waiting = !self.leases.is_empty()
            || self.roster.lenders().any(|(_, lender)| lender.paused_until().is_some() || lender.probed.is_some());
        is_waiting.then_some(self.look_at)
    }

    /// Something is due at `at`.
    pub(super) fn look_by(&mut self, at: Instant) {
        self.look_at = self.look_at.min(at);
    }

    /// The next thing that is due after `now`.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        let silence = |lease: &Lease| {
            let is_asked = self.roster.lender(&lease.worker).is_some_and(|lender| lender.probed.is_some());
            if is_asked { lease.deadline() } else { lease.deadline().min(lease.heard + PROBE_AFTER) }
        };
        let again = self.roster.lenders().filter_map(|(_, lender)| lender.probed.map(due_again));
        let late = self.roster.lenders().filter(|(_, lender)| !lender.leases.is_empty()).flat_map(|(_, lender)| {
            // What is late and could not be helped yet may be a little later.
            [lender.outlook.hedge_at, lender.outlook.stall_at]
                .map(|at| if after(at) <= now { now + LOOK_AGAIN } else { after(at) })
        });
        let silences = self.leases.values().map(silence);
        silences.chain(again).chain(late).chain(self.roster.next_pause_end()).min()
    }

    /// Asks a worker whether it lives; until it speaks it is given nothing more.
    pub(super) fn probe(&mut self, worker: &PeerId, lease: LeaseId, now: Instant) {
        let Some(lender) = self.roster.lender_mut(worker).filter(|lender| lender.probed.is_none()) else { return };
        lender.probed = Some(Probed { lease, asked: now, times: 0 });
        self.look_by(now + PROBE_EVERY);
        self.send(worker.clone(), ToWorker::Probe { lease }, [].into());
    }

    /// Takes all its leases from a worker that stalls on one, and pauses it.
    fn relieve(&mut self, worker: &PeerId, stalled: LeaseId, reason: &str, now: Instant) {
        self.punish(worker, now);
        let lender = self.roster.lender(worker).expect("the worker of a live lease is in the roster");
        let (leases, is_own) = (lender.leases.clone(), lender.standing().is_own);
        self.probe(worker, stalled, now);
        for id in leases.into_iter().rev() {
            let Lease { job, unit, .. } = self.call_off(id);
            self.count_retry(job);
            if let Some(entry) = self.stage_of(job).entry_mut(unit) {
                entry.stalled_on = Some(worker.clone());
            }
        }
        let reason = reason.to_owned();
        self.outputs.push_back(super::RequesterOutput::WorkerPaused { peer: worker.clone(), reason });
        if is_own {
            self.release_checks(now);
        }
    }
}

fn due_again(probed: Probed) -> Instant {
    probed.asked + PROBE_EVERY * (1 << probed.times.min(PROBE_DOUBLINGS_MAX))
}
