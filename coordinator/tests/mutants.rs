//! Planted bugs are found: each of these in a few rooms of the mix. `sim --mutants` hunts all of them, see docs/mutants.md.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use coordinator::mutants::{Mutant, plant};
use coordinator::sim::{Scenario, run};

/// Rooms in which each must be found.
const SEEDS: u64 = 200;

/// Those that are found quickly: the others need rooms that are rare.
const QUICK: [Mutant; 16] = [
    Mutant::DropsFence,
    Mutant::ReusesLease,
    Mutant::QuorumOffByOne,
    Mutant::BelievesFirst,
    Mutant::EverybodyIsOwn,
    Mutant::MergesTwice,
    Mutant::HedgesWithoutCancel,
    Mutant::DoneIsNotDone,
    Mutant::AnnouncesEarly,
    Mutant::ForgetsUnit,
    Mutant::DeafToLeaving,
    Mutant::CondemnsInName,
    Mutant::AsksTwice,
    Mutant::NoWindow,
    Mutant::WrongInput,
    Mutant::AnswersAnother,
];

/// One test: a bug is planted in the whole process.
#[test]
fn planted_bugs_are_found() {
    let scenarios = Scenario::all();
    std::panic::set_hook(Box::new(|_| {})); // A machine that panics is found.
    let is_found = |mutant: &Mutant| {
        plant(Some(*mutant));
        (0..SEEDS).any(|seed| run(&Scenario::of_mix(&scenarios, seed).draw(seed), false).broken.is_some())
    };
    let missed: Vec<Mutant> = QUICK.into_iter().filter(|mutant| !is_found(mutant)).collect();
    plant(None);
    let healed = (0..20).all(|seed| run(&Scenario::of_mix(&scenarios, seed).draw(seed), false).broken.is_none());
    drop(std::panic::take_hook());
    assert!(missed.is_empty(), "not found: {missed:?}");
    assert!(healed, "without a planted bug nothing is found");
}
