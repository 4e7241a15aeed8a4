//! Makes a failing world smaller, piece by piece, as long as it fails in the same way.

use std::time::Duration;

use protocol::Instant;

use crate::sim::clock::Clock;
use crate::sim::scenario::STAYING;
use crate::sim::setup::{Noise, Setup, What};
use crate::sim::world::{Outcome, run};

/// Worlds that are tried at most: a failing world is small after a few dozen.
const TRIES_MAX: usize = 300;

/// The smallest world found that breaks the same invariant, and how it ends.
pub fn shrink(setup: &Setup, invariant: &str) -> (Setup, Outcome) {
    let mut smallest = setup.clone();
    let mut tries = 0;
    let mut is_smaller = true;
    while is_smaller && tries < TRIES_MAX {
        is_smaller = false;
        let mut place = 0;
        while let Some(candidate) = candidates(&smallest, invariant).nth(place).filter(|_| tries < TRIES_MAX) {
            tries += 1;
            if run(&candidate, false).broken.is_some_and(|broken| broken.invariant == invariant) {
                // What stood at this place is gone, so that the next candidate stands there.
                smallest = candidate;
                is_smaller = true;
            } else {
                place += 1;
            }
        }
    }
    let outcome = run(&smallest, true);
    (smallest, outcome)
}

/// Worlds with one thing less, the largest things first.
///
/// Where nobody stays no job ends, which is no news: those who stay are left out only where that is not the question.
fn candidates(setup: &Setup, invariant: &str) -> impl Iterator<Item = Setup> + use<> {
    let with = |change: &dyn Fn(&mut Setup)| {
        let mut changed = setup.clone();
        change(&mut changed);
        changed
    };
    let mut found = vec![
        with(&|setup| setup.faults.clear()),
        with(&|setup| setup.noise = Noise::default()),
        with(&|setup| setup.lenders.iter_mut().for_each(|lender| lender.clock = Clock::TRUE)),
        with(&|setup| setup.askers.iter_mut().for_each(|asker| asker.clock = Clock::TRUE)),
        with(&|setup| setup.lenders.iter_mut().for_each(|lender| lender.joins = Instant::ZERO)),
        with(&|setup| setup.lenders.iter_mut().for_each(|lender| lender.jitter = 0)),
        with(&|setup| setup.lenders.iter_mut().for_each(|lender| lender.latency = Duration::from_millis(10))),
        with(&|setup| setup.lenders.iter_mut().for_each(|lender| lender.host = None)),
        with(&|setup| setup.jobs.iter_mut().for_each(|order| order.spec.steps = 1)),
        with(&|setup| setup.jobs.iter_mut().for_each(|order| order.spec.guidance = 1.0)),
    ];
    for (least, most) in halves(setup.lenders.len()) {
        found.push(with(&|setup| drop(setup.lenders.drain(least..most))));
    }
    for (least, most) in halves(setup.faults.len()) {
        found.push(with(&|setup| drop(setup.faults.drain(least..most))));
    }
    for index in 0..setup.jobs.len() {
        found.push(with(&|setup| drop(setup.jobs.drain(index..=index))));
    }
    for index in 0..setup.lenders.len() {
        found.push(with(&|setup| drop(setup.lenders.drain(index..=index))));
    }
    for index in 0..setup.faults.len() {
        found.push(with(&|setup| drop(setup.faults.drain(index..=index))));
    }
    for index in 0..setup.askers.len() {
        if setup.jobs.iter().all(|order| order.asker != index) && index + 1 == setup.askers.len() && index > 0 {
            found.push(with(&|setup| drop_asker(setup, index)));
        }
    }
    let now = setup.clone();
    let staying = |setup: &Setup| setup.lenders.iter().filter(|lender| lender.number < STAYING).count();
    let least = if invariant == "I8" { staying(setup) } else { 0 };
    found.into_iter().filter(move |candidate| *candidate != now && staying(candidate) >= least)
}

/// Halves and quarters of a list that has more than a few.
fn halves(length: usize) -> Vec<(usize, usize)> {
    if length < 6 {
        return Vec::new();
    }
    let quarter = length / 4;
    vec![(0, length / 2), (length / 2, length), (0, quarter), (quarter, 2 * quarter), (2 * quarter, 3 * quarter)]
}

/// Takes the last requester out.
fn drop_asker(setup: &mut Setup, index: usize) {
    setup.askers.remove(index);
    setup.faults.retain(|fault| match fault.what {
        What::Resets { asker, .. } | What::Crashes { asker, .. } => asker != index,
        What::Leaves { .. } | What::Dies { .. } | What::Freezes { .. } | What::Hangs { .. } | What::Parts { .. } => {
            true
        }
    });
    setup.lenders.iter_mut().filter(|lender| lender.host == Some(index)).for_each(|lender| lender.host = None);
}
