//! When workers will be done: what the next grant, the tail of a stage and a late unit are judged by.
//!
//! Times are seconds; all arithmetic is plain f64, the same everywhere. What follows from a worker's leases is kept with it and
//! renewed when they change, so that a look at a whole room costs a few additions for each of its workers.

use std::cmp::Ordering;

use protocol::limits::{CLAIM_BELIEVED, HEDGE_LATE_MIN, HEDGE_OVERDUE, STALL_LATE_MIN, STALL_OVERDUE, STALL_UNKNOWN};
use protocol::{Instant, LeaseId, PeerId};

use super::{HEDGE_COST, Lease, Requester};
use crate::roster::{Lender, Outlook};
use crate::speed::{Shape, after, seconds};

/// What a unit takes where nothing at all is known: then all workers are taken to be alike.
const UNIT_UNKNOWN: f64 = 1.0;

/// Rounding of sums of times: plans that differ by less are alike.
const ALIKE: f64 = 1e-6;

/// One worker that may be given a unit. Times are from the present.
pub(super) struct Candidate<'a> {
    pub(super) worker: &'a PeerId,
    /// When it could begin the unit.
    pub(super) ready: f64,
    /// How long it computes it.
    pub(super) takes: f64,
    /// Whether it may be given one now.
    pub(super) has_room: bool,
    pub(super) failures_in_row: u32,
}

impl Candidate<'_> {
    pub(super) fn finish(&self) -> f64 {
        self.ready + self.takes
    }

    /// The order in which workers are asked: who is done first, of equals who is reliable, of equals by name.
    pub(super) fn cmp(&self, other: &Self) -> Ordering {
        let by_finish = self.finish().total_cmp(&other.finish());
        by_finish.then(self.failures_in_row.cmp(&other.failures_in_row)).then_with(|| self.worker.cmp(other.worker))
    }
}

/// Seconds of a unit where they are not known: the mean of those that are.
pub(super) fn mean(known: impl Iterator<Item = Option<f64>>) -> f64 {
    let (sum, count) = known.flatten().fold((0.0, 0.0), |(sum, count), seconds| (sum + seconds, count + 1.0));
    if count > 0.0 { sum / count } else { UNIT_UNKNOWN }
}

/// Whether these workers, each one unit after the other, can finish `units` alike before `finish`. Then one who is done with
/// his first at `finish` would only make the stage longer.
pub(super) fn are_done_before(finish: f64, units: usize, workers: &[Candidate<'_>]) -> bool {
    let by_then = finish * (1.0 - ALIKE) - ALIKE;
    let done = |worker: &Candidate<'_>| ((by_then - worker.ready) / worker.takes.max(1e-9)).floor().max(0.0);
    workers.iter().map(done).sum::<f64>() >= units as f64
}

impl Outlook {
    /// When a worker is free, seen from `present`. One that is late is expected to take as long again as it is late already:
    /// who has stalled long will stall longer.
    pub(super) fn free_in(&self, present: f64) -> f64 {
        let late = (present - self.first_end).max(0.0);
        self.free_at - present + 2.0 * late
    }
}

impl Requester {
    /// Renews what follows from a worker's leases.
    pub(super) fn renew_outlook(&mut self, worker: &PeerId) {
        let Some(lender) = self.roster.lender(worker) else { return };
        let mut outlook = Outlook::default();
        let mut free = f64::NEG_INFINITY;
        // Of who has delivered nothing yet only claims are known.
        let is_trusted = lender.delivered.is_some() || lender.standing().is_own;
        for (index, lease) in lender.leases.iter().map(|id| &self.leases[id]).enumerate() {
            let expected = self.expected(lease);
            let begun = begun(lease, lender).max(free);
            free = begun + expected.unwrap_or(lease.guess);
            if index == 0 {
                outlook.first_end = free;
                let longest = if is_trusted { f64::INFINITY } else { CLAIM_BELIEVED.as_secs_f64() };
                outlook.hedge_at = begun + expected.map_or(STALL_UNKNOWN.as_secs_f64(), hedged_after).min(longest);
                outlook.stall_at = begun + expected.map_or(STALL_UNKNOWN.as_secs_f64(), stalled_after).min(longest);
            }
            outlook.free_at = free;
        }
        let due = outlook.hedge_at;
        self.roster.lender_mut(worker).expect("it was just there").outlook = outlook;
        self.look_by(after(due));
    }

    /// Whether a worker's running unit is so late that a second worker may be asked: always if it must have stalled, or else
    /// if that can be afforded.
    pub(super) fn is_late(&self, outlook: &Outlook, now: Instant) -> bool {
        let may_hedge = self.hedge_credit >= HEDGE_COST;
        (if may_hedge { outlook.hedge_at.min(outlook.stall_at) } else { outlook.stall_at }) <= seconds(now)
    }

    /// Seconds that a unit of this shape takes where its worker has not shown it.
    pub(super) fn guess(&self, key: &Shape, model: protocol::ModelId, now: Instant) -> f64 {
        mean(self.roster.lenders_of(model).map(|(_, lender)| lender.seconds_of(key, now)))
    }

    /// Seconds that a lease's unit should take: what was known of its worker when it was granted, or else the most that others
    /// have shown since.
    fn expected(&self, lease: &Lease) -> Option<f64> {
        lease.takes.or_else(|| {
            let lenders = self.roster.lenders_of(self.jobs[&lease.job].model);
            lenders.filter_map(|(_, lender)| lender.seconds_of(&lease.key, lease.granted)).max_by(f64::total_cmp)
        })
    }

    /// Whether a lease is its worker's running one and late.
    pub(super) fn is_overdue(&self, id: LeaseId, now: Instant) -> bool {
        let lender = self.roster.lender(&self.leases[&id].worker).expect("the worker of a live lease is in the roster");
        lender.leases.first() == Some(&id) && lender.outlook.hedge_at <= seconds(now)
    }
}

/// When a worker can have begun a lease, if it was the next.
fn begun(lease: &Lease, lender: &Lender) -> f64 {
    let arrived = seconds(lease.granted) + lease.overhead;
    lender.delivered.map_or(arrived, |delivered| arrived.max(seconds(delivered)))
}

/// Seconds after which a unit that takes `expected` is late.
fn hedged_after(expected: f64) -> f64 {
    (expected * HEDGE_OVERDUE).max(expected + HEDGE_LATE_MIN.as_secs_f64())
}

/// Seconds after which the worker of a unit that takes `expected` must have stalled.
fn stalled_after(expected: f64) -> f64 {
    (expected * STALL_OVERDUE).max(expected + STALL_LATE_MIN.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When the last of `units` is done if each goes to whoever is done with it first.
    fn one_by_one(units: usize, workers: &[Candidate<'_>]) -> f64 {
        let mut done = vec![0usize; workers.len()];
        let mut latest = 0.0_f64;
        for _ in 0..units {
            let end = |index: usize| workers[index].ready + (done[index] + 1) as f64 * workers[index].takes;
            let first = (0..workers.len()).min_by(|a, b| end(*a).total_cmp(&end(*b))).unwrap();
            latest = latest.max(end(first));
            done[first] += 1;
        }
        latest
    }

    #[test]
    fn exactly_those_are_left_out_who_would_make_the_stage_longer() {
        let name = PeerId::new("x").unwrap();
        let rooms: [&[(f64, f64)]; 5] = [
            &[(0.0, 1.0)],
            &[(0.0, 1.0), (0.0, 20.0)],
            &[(0.5, 0.1), (0.0, 0.3), (7.0, 0.01)],
            &[(0.0, 0.1), (0.0, 0.2), (0.0, 0.5), (0.0, 1.0)],
            &[(3.0, 0.7), (2.9, 0.1), (0.4, 5.0), (0.0, 0.9)],
        ];
        for room in rooms {
            let candidate = |(ready, takes): &(f64, f64)| Candidate {
                worker: &name,
                ready: *ready,
                takes: *takes,
                has_room: true,
                failures_in_row: 0,
            };
            let workers: Vec<_> = room.iter().map(candidate).collect();
            for units in [1, 2, 3, 7, 36, 512] {
                let end = one_by_one(units, &workers);
                for worker in &workers {
                    let is_left_out = are_done_before(worker.finish(), units, &workers);
                    assert_eq!(is_left_out, worker.finish() > end + 1e-4, "{room:?} {units} {}", worker.finish());
                }
            }
        }
    }

    #[test]
    fn what_is_unknown_is_taken_to_be_like_the_others() {
        assert_eq!(mean([None, Some(2.0), Some(4.0)].into_iter()), 3.0);
        assert_eq!(mean([None, None].into_iter()), UNIT_UNKNOWN);
    }

    #[test]
    fn who_is_late_is_expected_to_be_as_late_again() {
        let outlook = Outlook { first_end: 10.0, free_at: 13.0, ..Outlook::default() };
        assert_eq!((outlook.free_in(9.0), outlook.free_in(12.0)), (4.0, 5.0));
        assert_eq!(Outlook::default().free_in(7.0), f64::NEG_INFINITY);
    }
}
