//! Rooms in virtual time: no seed of the mix breaks an invariant, and every one is played the same way again.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use coordinator::sim::{Outcome, Scenario, run};

/// Seeds of the mix that every test run plays; releases play many more, with the program.
const SEEDS: u64 = 400;

fn play(scenarios: &[Scenario], seed: u64) -> Outcome {
    run(&Scenario::of_mix(scenarios, seed).draw(seed), false)
}

#[test]
fn no_room_of_the_mix_breaks_an_invariant() {
    let scenarios = Scenario::all();
    for seed in 0..SEEDS {
        let outcome = play(&scenarios, seed);
        assert_eq!(outcome.broken, None, "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let scenarios = Scenario::all();
    for seed in 0..50 {
        assert_eq!(play(&scenarios, seed).hash, play(&scenarios, seed).hash, "seed {seed}");
    }
    assert_ne!(play(&scenarios, 0).hash, play(&scenarios, 1).hash, "hashes tell rooms apart");
}

#[test]
fn what_goes_wrong_does_happen() {
    let scenarios = Scenario::all();
    let (mut begun, mut accepted, mut paused) = (0, 0, 0);
    for seed in 0..SEEDS {
        let tally = play(&scenarios, seed).tally;
        begun += tally.begun;
        accepted += tally.accepted;
        paused += tally.honest_paused;
    }
    assert!(begun > accepted + accepted / 100, "some work is lost and done again: {begun} begun, {accepted} accepted");
    assert!(paused > 50, "honest workers stall and are paused: {paused}");
}
