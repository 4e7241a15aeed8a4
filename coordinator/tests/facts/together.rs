//! Requesters and workers joined in one room: the same picture, whoever takes part and whatever happens to them.

use std::collections::BTreeSet;
use std::time::Duration;

use coordinator::RequesterOutput;
use protocol::limits::{LEASE_SILENCE_MAX, LEASE_TIME_MAX, STALL_UNKNOWN};
use protocol::{Hash, Instant, PeerId, RefuseReason};

use crate::toy::{Picture, Rng, job, peer, reference};
use crate::world::{Temper, World};

const PICTURE: Picture = Picture { tiles: 5, steps: 3, split: true };
const STEPS_MAX: usize = 100_000;

fn asker() -> PeerId {
    peer("asker")
}

fn worker(number: usize) -> PeerId {
    peer(&format!("worker{number}"))
}

/// Paints with workers of these tempers, and returns the world after the job's end.
fn paint(tempers: &[Temper]) -> World {
    let mut world = World::new(0).with_requester(&asker());
    for (number, temper) in tempers.iter().enumerate() {
        world.join(&worker(number), temper.clone(), 40);
    }
    world.submit(&asker(), job(1), PICTURE);
    world.run(STEPS_MAX);
    world
}

fn picture(world: &World) -> Option<&Vec<u8>> {
    world.painting(&asker(), job(1)).finished.as_ref()
}

#[test]
fn any_number_of_workers_paints_the_same_picture() {
    for workers in 1..8 {
        let world = paint(&vec![Temper::Honest; workers]);
        assert_eq!(picture(&world), Some(&reference(PICTURE)), "{workers} workers");
        assert_eq!(world.painting(&asker(), job(1)).workers.len(), workers.min(10), "everybody takes part");
    }
}

#[test]
fn a_bad_worker_beside_a_good_one_changes_no_pixel() {
    let blob = Hash::of(b"no such conditioning");
    for temper in [
        Temper::Silent,
        Temper::Beating,
        Temper::Forgetful,
        Temper::Short,
        Temper::NotANumber,
        Temper::Refuses(RefuseReason::Busy),
        Temper::Refuses(RefuseReason::UnknownModel),
        Temper::Refuses(RefuseReason::UnknownBlob(blob)),
        Temper::Refuses(RefuseReason::Invalid("no".into())),
        Temper::Refuses(RefuseReason::Failed("no".into())),
    ] {
        for tempers in [[temper.clone(), Temper::Honest], [Temper::Honest, temper.clone()]] {
            let world = paint(&tempers);
            assert_eq!(picture(&world), Some(&reference(PICTURE)), "{tempers:?}");
        }
    }
}

#[test]
fn a_silent_or_stalled_worker_costs_a_few_seconds_and_nobody_else_is_blamed() {
    for temper in [Temper::Silent, Temper::Beating] {
        let world = paint(&[temper.clone(), Temper::Honest]);
        let blame = |notice: &_| matches!(notice, RequesterOutput::WorkerPaused { peer, .. } if *peer == worker(0));
        assert!(world.notices.iter().all(blame), "{:?}", world.notices);
        let most = STALL_UNKNOWN + LEASE_SILENCE_MAX + Duration::from_secs(3);
        assert!(world.now - Instant::ZERO <= most, "{temper:?}: {:?} {:?}", world.now, world.notices);
    }
}

#[test]
fn a_worker_that_forgot_the_conditioning_is_sent_it_again_and_not_blamed() {
    let world = paint(&[Temper::Forgetful]);
    assert_eq!(picture(&world), Some(&reference(PICTURE)));
    assert_eq!(world.notices, []);
}

#[test]
fn a_killed_workers_units_are_done_by_the_others_without_blame() {
    let mut world = World::new(0).with_requester(&asker());
    for number in 0..3 {
        world.join(&worker(number), Temper::Honest, 40);
    }
    world.submit(&asker(), job(1), PICTURE);
    world.run(30);
    world.kill(&worker(0));
    world.run(20);
    world.kill(&worker(1));
    world.run(STEPS_MAX);
    assert_eq!(picture(&world), Some(&reference(PICTURE)));
    assert_eq!(world.notices, []);
}

#[test]
fn a_job_waits_for_its_first_worker_and_uses_those_who_join_midway() {
    let mut world = World::new(0).with_requester(&asker());
    world.submit(&asker(), job(1), PICTURE);
    world.run(STEPS_MAX);
    assert!(!world.is_over() && world.requester(&asker()).is_starved(job(1)));
    world.join(&worker(0), Temper::Honest, 40);
    world.run(40);
    assert!(!world.is_over() && !world.requester(&asker()).is_starved(job(1)));
    world.join(&worker(1), Temper::Honest, 40);
    world.run(STEPS_MAX);
    assert_eq!(picture(&world), Some(&reference(PICTURE)));
    assert_eq!(world.painting(&asker(), job(1)).workers.len(), 2);
}

#[test]
fn a_fast_worker_takes_over_what_waits_at_a_slow_one() {
    let mut world = World::new(0).with_requester(&asker());
    world.join(&worker(0), Temper::Honest, 2_000);
    world.join(&worker(1), Temper::Honest, 10);
    world.submit(&asker(), job(1), Picture { tiles: 3, steps: 1, split: false });
    world.run(STEPS_MAX);
    // Three stages; the slow worker computes at most one unit of each, and nothing waits behind it.
    assert!(world.now - Instant::ZERO <= Duration::from_millis(3 * 2_000 + 100), "{:?}", world.now);
    assert!(picture(&world).is_some());
}

#[test]
fn a_job_that_fails_on_three_peers_ends_with_their_reasons() {
    let no = |text: &str| Temper::Refuses(RefuseReason::Failed(text.into()));
    let world = paint(&[no("one"), no("two"), no("three"), no("four")]);
    let reasons = world.painting(&asker(), job(1)).failed.as_ref().expect("the job fails");
    let peers: BTreeSet<&PeerId> = reasons.iter().map(|(peer, _)| peer).collect();
    let texts: BTreeSet<&str> = reasons.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!((reasons.len(), peers.len(), texts.len()), (3, 3, 3), "{reasons:?}");
}

#[test]
fn two_requesters_share_a_worker_fairly() {
    let asker2 = peer("asker2");
    let mut world = World::new(0).with_requester(&asker()).with_requester(&asker2);
    world.join(&worker(0), Temper::Honest, 40);
    let long = Picture { tiles: 20, steps: 2, split: false };
    world.submit(&asker(), job(1), long);
    world.submit(&asker2, job(2), long);
    world.run(STEPS_MAX);
    assert_eq!(world.painting(&asker2, job(2)).finished, Some(reference(long)));
    let mut lead = 0i32;
    for requester in &world.computed {
        lead += if *requester == asker() { 1 } else { -1 };
        assert!(lead.abs() <= 2, "neither is served much before the other");
    }
}

#[test]
fn two_jobs_of_one_requester_share_the_room() {
    let mut world = World::new(0).with_requester(&asker());
    for number in 0..2 {
        world.join(&worker(number), Temper::Honest, 40);
    }
    world.submit(&asker(), job(1), Picture { tiles: 40, steps: 4, split: true });
    world.submit(&asker(), job(2), PICTURE);
    while world.painting(&asker(), job(2)).finished.is_none() {
        assert!(world.step());
    }
    assert!(world.painting(&asker(), job(1)).finished.is_none(), "the small job does not wait for the large one");
    world.run(STEPS_MAX);
    assert_eq!(picture(&world), Some(&reference(Picture { tiles: 40, steps: 4, split: true })));
    assert_eq!(world.painting(&asker(), job(2)).finished, Some(reference(PICTURE)));
}

#[test]
fn workers_are_idle_after_the_last_job() {
    let mut world = paint(&[Temper::Honest, Temper::Honest]);
    world.run_until(world.now + LEASE_TIME_MAX);
    for name in world.workers() {
        assert_eq!((world.worker(&name).leases_held(), world.worker(&name).poll_timeout()), (0, None));
    }
    assert_eq!(world.requester(&asker()).poll_timeout(), None);
}

/// Messages are delayed and interleaved at random, workers come, stall, misbehave and are killed at random; as long as
/// somebody honest is there in the end, the picture is the same bit for bit.
#[test]
fn no_order_of_events_and_no_loss_of_workers_changes_the_picture() {
    let pictures = [PICTURE, Picture { tiles: 3, steps: 2, split: false }, Picture { tiles: 1, steps: 4, split: true }];
    let references = pictures.map(reference);
    for seed in 0..3_000u64 {
        let mut rng = Rng(seed);
        let which = rng.below(pictures.len());
        let mut world = World::new(seed).with_requester(&asker());
        world.delay_percent = [0, 5, 20][rng.below(3)];
        let tempers = [Temper::Honest, Temper::Silent, Temper::Beating, Temper::Forgetful, Temper::Honest];
        for number in 0..1 + rng.below(5) {
            let temper = tempers[rng.below(tempers.len())].clone();
            world.join(&worker(number), temper, 5 + rng.below(200) as u64);
        }
        world.submit(&asker(), job(1), pictures[which]);
        for number in 10..10 + rng.below(6) {
            world.run(rng.below(60));
            let present = world.workers();
            match rng.below(3) {
                0 => world.join(&worker(number), tempers[rng.below(tempers.len())].clone(), 50),
                1 if !present.is_empty() => world.kill(&present[rng.below(present.len())]),
                _ if !present.is_empty() => world.set_temper(&present[rng.below(present.len())], Temper::Silent),
                _ => {}
            }
        }
        world.join(&peer("rescuer"), Temper::Honest, 30);
        world.run(STEPS_MAX);
        let painting = world.painting(&asker(), job(1));
        assert_eq!(painting.finished.as_ref(), Some(&references[which]), "seed {seed}: {:?}", painting.failed);
    }
}
