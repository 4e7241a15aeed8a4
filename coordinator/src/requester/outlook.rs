//! When workers will be done: what the next grant, the tail of a stage and a late unit are judged by.
//!
//! Times are seconds from the present; all arithmetic is plain f64, the same everywhere.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use protocol::limits::{HEDGE_LATE_MIN, HEDGE_OVERDUE, STALL_LATE_MIN, STALL_OVERDUE, STALL_UNKNOWN};
use protocol::{Instant, PeerId};

use super::{HEDGE_COST, Lease, Requester};
use crate::roster::Lender;
use crate::speed::seconds;

/// What a unit takes where nothing at all is known: then all workers are taken to be alike.
const UNIT_UNKNOWN: f64 = 1.0;

/// One worker that may be given a unit.
pub(super) struct Candidate {
    pub(super) worker: PeerId,
    /// When it could begin the unit.
    pub(super) ready: f64,
    /// How long it computes it.
    pub(super) takes: f64,
    /// Whether it may be given one now.
    pub(super) has_room: bool,
    pub(super) failures_in_row: u32,
}

impl Candidate {
    pub(super) fn finish(&self) -> f64 {
        self.ready + self.takes
    }

    /// The order in which workers are asked: who is done first, of equals who is reliable, of equals by name.
    pub(super) fn cmp(&self, other: &Self) -> Ordering {
        let by_finish = self.finish().total_cmp(&other.finish());
        by_finish.then(self.failures_in_row.cmp(&other.failures_in_row)).then_with(|| self.worker.cmp(&other.worker))
    }
}

/// Seconds that each of `known` takes, where what is not known is taken to be the mean of the others.
pub(super) fn fill_unknown(known: &[Option<f64>]) -> Vec<f64> {
    let sum: f64 = known.iter().flatten().sum();
    let count = known.iter().flatten().count();
    let mean = if count > 0 { sum / count as f64 } else { UNIT_UNKNOWN };
    known.iter().map(|seconds| seconds.unwrap_or(mean)).collect()
}

/// The earliest time by which these workers can finish `units` alike: the least T with sum of floor((T - ready) / takes) of
/// at least `units`. Who cannot finish a single one by then would only make the stage longer.
pub(super) fn level(units: usize, workers: &[Candidate]) -> f64 {
    // A fluid of units is poured over the workers first, so that few are left for the exact part.
    let mut by_ready: Vec<&Candidate> = workers.iter().collect();
    by_ready.sort_by(|a, b| a.ready.total_cmp(&b.ready));
    let (mut rate, mut done_at_zero, mut fluid) = (0.0, 0.0, f64::INFINITY);
    for (index, worker) in by_ready.iter().enumerate() {
        let takes = worker.takes.max(1e-9);
        rate += 1.0 / takes;
        done_at_zero += worker.ready / takes;
        fluid = (units as f64 + done_at_zero) / rate;
        if by_ready.get(index + 1).is_none_or(|next| fluid <= next.ready) {
            break;
        }
    }
    let whole = |worker: &Candidate| ((fluid - worker.ready) / worker.takes.max(1e-9)).floor().max(0.0);
    let poured: f64 = workers.iter().map(whole).sum();
    let mut latest: f64 = 0.0;
    let mut next: BinaryHeap<Next> = BinaryHeap::with_capacity(workers.len());
    for worker in workers {
        let units = whole(worker);
        if units > 0.0 {
            latest = latest.max(worker.ready + units * worker.takes);
        }
        next.push(Next { at: worker.ready + (units + 1.0) * worker.takes, takes: worker.takes });
    }
    let left = (units as f64 - poured).max(0.0) as usize;
    for _ in 0..left {
        let Some(Next { at, takes }) = next.pop() else { break };
        latest = latest.max(at);
        next.push(Next { at: at + takes, takes });
    }
    latest
}

/// A worker's next unit, the earliest on top of the heap.
struct Next {
    at: f64,
    takes: f64,
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.total_cmp(&self.at)
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Next {}

impl Requester {
    /// When each lease of a worker is expected to end, the oldest first. One that is late is expected to take as long again
    /// as it is late already: who has stalled long will stall longer.
    pub(super) fn expected_ends(&self, lender: &Lender, now: Instant) -> Vec<f64> {
        let mut free = f64::NEG_INFINITY;
        let present = seconds(now);
        let mut ends = Vec::with_capacity(lender.leases.len());
        for lease in lender.leases.iter().map(|id| &self.leases[id]) {
            let takes = self.expected(lease).unwrap_or(UNIT_UNKNOWN);
            let begun = self.begun(lease, lender).max(free);
            let mut end = begun + takes;
            if end < present {
                end = present + (present - end);
            }
            free = end;
            ends.push(end - present);
        }
        ends
    }

    /// How late a lease is that runs: seconds over what was expected, if a second worker may be asked.
    pub(super) fn overdue(&self, lease: &Lease, lender: &Lender, now: Instant) -> Option<f64> {
        let is_due = |due: f64| due <= seconds(now);
        let may_hedge = self.hedge_credit >= HEDGE_COST && is_due(self.hedge_due(lease, lender));
        let is_late = may_hedge || is_due(self.stall_due(lease, lender));
        is_late.then(|| seconds(now) - self.begun(lease, lender) - self.expected(lease).unwrap_or(0.0))
    }

    /// When the next thing becomes due of a running lease that is late.
    pub(super) fn late_due(&self, lease: &Lease, lender: &Lender) -> f64 {
        let stall = self.stall_due(lease, lender);
        if self.hedge_credit >= HEDGE_COST { stall.min(self.hedge_due(lease, lender)) } else { stall }
    }

    /// When a running lease is so late that a second worker may be asked if that can be afforded.
    pub(super) fn hedge_due(&self, lease: &Lease, lender: &Lender) -> f64 {
        let late = |takes: f64| (takes * HEDGE_OVERDUE).max(takes + HEDGE_LATE_MIN.as_secs_f64());
        self.begun(lease, lender) + self.expected(lease).map_or(STALL_UNKNOWN.as_secs_f64(), late)
    }

    /// When a running lease is so late that its worker must have stalled.
    pub(super) fn stall_due(&self, lease: &Lease, lender: &Lender) -> f64 {
        let late = |takes: f64| (takes * STALL_OVERDUE).max(takes + STALL_LATE_MIN.as_secs_f64());
        self.begun(lease, lender) + self.expected(lease).map_or(STALL_UNKNOWN.as_secs_f64(), late)
    }

    /// Seconds that a lease's unit should take: what was known of its worker when it was granted, or else what others have
    /// shown since.
    fn expected(&self, lease: &Lease) -> Option<f64> {
        lease.takes.or_else(|| {
            let job = &self.jobs[&lease.job];
            let stage = job.stage.as_ref()?;
            let work = &stage.entry(lease.unit)?.unit.work;
            let lenders = self.roster.lenders_of(job.model);
            let known = lenders.filter_map(|(_, lender)| lender.seconds(work, job.model, &stage.shape, lease.granted));
            known.max_by(f64::total_cmp)
        })
    }

    /// When a worker can have begun a lease, if it was the next.
    fn begun(&self, lease: &Lease, lender: &Lender) -> f64 {
        let arrived = seconds(lease.granted) + lease.overhead;
        lender.delivered.map_or(arrived, |delivered| arrived.max(seconds(delivered)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(ready_and_takes: &[(f64, f64)]) -> Vec<Candidate> {
        let candidate = |(ready, takes): &(f64, f64)| Candidate {
            worker: PeerId::new("x").unwrap(),
            ready: *ready,
            takes: *takes,
            has_room: true,
            failures_in_row: 0,
        };
        ready_and_takes.iter().map(candidate).collect()
    }

    /// One unit after the other to whoever is done with it first.
    fn one_by_one(units: usize, workers: &[Candidate]) -> f64 {
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
    fn the_level_is_what_handing_out_one_by_one_gives() {
        let rooms: [&[(f64, f64)]; 5] = [
            &[(0.0, 1.0)],
            &[(0.0, 1.0), (0.0, 20.0)],
            &[(0.5, 0.1), (0.0, 0.3), (7.0, 0.01)],
            &[(0.0, 0.1), (0.0, 0.2), (0.0, 0.5), (0.0, 1.0)],
            &[(3.0, 0.7), (2.9, 0.1), (0.4, 5.0), (0.0, 0.9)],
        ];
        for room in rooms {
            let workers = workers(room);
            for units in [1, 2, 3, 7, 36, 512] {
                let (quick, slow) = (level(units, &workers), one_by_one(units, &workers));
                assert!((quick - slow).abs() < 1e-6, "{room:?} {units}: {quick} instead of {slow}");
            }
        }
    }

    #[test]
    fn what_is_unknown_is_taken_to_be_like_the_others() {
        assert_eq!(fill_unknown(&[None, Some(2.0), Some(4.0)]), [3.0, 2.0, 4.0]);
        assert_eq!(fill_unknown(&[None, None]), [UNIT_UNKNOWN; 2]);
    }
}
