//! What the platform does in time, without any.

use std::collections::BTreeSet;
use std::time::Duration;

use queue::MicroUsd;
use serde_json::{Value, json};

use crate::emulator::behaviour::Behaviour;
use crate::emulator::platform::{Deed, Platform, Submission};
use crate::emulator::settings::{Settings, Workers};

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn platform(workers: Workers, workers_max: usize) -> Platform {
    Platform::new(Settings { workers, workers_max, ..Settings::default() })
}

fn submit(platform: &mut Platform, input: Value, behaviours: &[Behaviour], now: Duration) -> String {
    let submission = Submission { body: json!({"input": input}), is_sync: false };
    platform.submit(submission, behaviours.iter().copied().collect::<BTreeSet<_>>(), now)
}

fn status(platform: &mut Platform, id: &str, now: Duration) -> String {
    let said = platform.status(id, now).unwrap();
    said["status"].as_str().unwrap().to_owned()
}

/// Does all that is due until `now`, at once.
fn attend(platform: &mut Platform, now: Duration) {
    for deed in platform.advance(now).0 {
        match deed {
            Deed::Claim { run, .. } => platform.claimed(run, Ok(()), now),
            Deed::Work { run, .. } => platform.delivered(run, Ok((json!({"images": []}), 0)), now),
            Deed::Tell { hook, .. } => platform.told(hook, true, now),
        }
    }
}

#[test]
fn a_worker_starts_runs_idles_and_stops() {
    let mut platform = platform(Workers::Simulated, 1);
    let id = submit(&mut platform, json!({}), &[], at(0));
    assert_eq!(status(&mut platform, &id, at(7)), "IN_QUEUE");
    assert_eq!(status(&mut platform, &id, at(8)), "IN_PROGRESS");
    attend(&mut platform, at(11));
    let said = platform.status(&id, at(11)).unwrap();
    assert_eq!((&said["delayTime"], &said["executionTime"]), (&json!(8000), &json!(3000)));
    assert_eq!(platform.meter(at(12)).worker_seconds, 12);
    assert_eq!(platform.meter(at(99)).worker_seconds, 16, "5 s of idling, and no more");
}

#[test]
fn a_worker_whose_job_another_took_is_billed_and_told_by_nobody() {
    let mut platform = platform(Workers::Simulated, 2);
    let first = submit(&mut platform, json!({}), &[], at(0));
    assert_eq!(status(&mut platform, &first, at(8)), "IN_PROGRESS");
    let second = submit(&mut platform, json!({}), &[], at(9));
    attend(&mut platform, at(11));
    assert_eq!(status(&mut platform, &second, at(11)), "IN_PROGRESS", "the first worker takes it");
    let third = submit(&mut platform, json!({}), &[], at(14));
    attend(&mut platform, at(14));
    assert_eq!(status(&mut platform, &third, at(14)), "IN_PROGRESS", "the first worker is free again");
    attend(&mut platform, at(17));
    let meter = platform.meter(at(99));
    assert_eq!((meter.workers_started, meter.worker_seconds), (2, 22 + 13));
    assert_eq!(meter.untold, MicroUsd(13 * 190), "its start and its idling");
}

#[test]
fn workers_are_as_many_as_jobs_up_to_the_limit_and_a_low_one_starts_none() {
    let mut platform = platform(Workers::Simulated, 2);
    for _ in 0..5 {
        submit(&mut platform, json!({}), &[], at(0));
    }
    assert_eq!(platform.meter(at(0)).workers_started, 2);
    let mut platform = self::platform(Workers::Simulated, 2);
    let body = json!({"input": {}, "policy": {"lowPriority": true}});
    let id = platform.submit(Submission { body, is_sync: false }, BTreeSet::new(), at(0));
    assert_eq!(status(&mut platform, &id, at(1000)), "IN_QUEUE");
    submit(&mut platform, json!({}), &[], at(1000));
    assert_eq!(status(&mut platform, &id, at(1008)), "IN_PROGRESS", "a worker that is there anyway takes it");
}

#[test]
fn a_jump_of_the_clock_brings_everything_in_its_order() {
    let mut platform = platform(Workers::Simulated, 1);
    let ids: Vec<_> = (0..2).map(|_| submit(&mut platform, json!({}), &[Behaviour::Overrun], at(0))).collect();
    // Ten minutes each, one after the other.
    assert_eq!(status(&mut platform, &ids[0], at(1300)), "TIMED_OUT");
    let said = platform.status(&ids[1], at(1300)).unwrap();
    assert_eq!((&said["delayTime"], &said["executionTime"]), (&json!(608_000), &json!(600_000)));
}

#[test]
fn a_worker_that_dies_again_and_again_fails_the_job() {
    let mut platform = platform(Workers::External, 0);
    let id = submit(&mut platform, json!({}), &[], at(0));
    for death in 1..=3 {
        assert_eq!(platform.take("w", 1, at(100 * death)).len(), 1);
        assert_eq!(status(&mut platform, &id, at(100 * death + 29)), "IN_PROGRESS");
        platform.advance(at(100 * death + 30));
    }
    assert_eq!(status(&mut platform, &id, at(500)), "FAILED");
    assert_eq!(platform.meter(at(500)).runs_in_all(), 3);
}

#[test]
fn a_worker_that_pings_keeps_its_job() {
    let mut platform = platform(Workers::External, 0);
    let id = submit(&mut platform, json!({}), &[], at(0));
    assert_eq!(platform.take("w", 1, at(0)).len(), 1);
    for tens in 1..10 {
        platform.ping("w", at(10 * tens));
    }
    assert_eq!(status(&mut platform, &id, at(100)), "IN_PROGRESS");
    platform.done("w", &id, &json!({"output": 5}), at(100));
    assert_eq!(platform.status(&id, at(100)).unwrap()["output"], json!(5));
}

#[test]
fn progress_after_the_end_and_ends_of_others_change_nothing() {
    let mut platform = platform(Workers::External, 0);
    let id = submit(&mut platform, json!({}), &[], at(0));
    platform.take("w", 1, at(0));
    platform.done("stranger", &id, &json!({"output": "no"}), at(1));
    platform.done("w", &id, &json!({"status": "IN_PROGRESS", "output": "half"}), at(1));
    assert_eq!(platform.status(&id, at(1)).unwrap()["output"], json!("half"));
    platform.done("w", &id, &json!({"output": "whole"}), at(2));
    platform.done("w", &id, &json!({"status": "IN_PROGRESS", "output": "late"}), at(3));
    platform.done("w", &id, &json!({"output": "again"}), at(3));
    let said = platform.status(&id, at(3)).unwrap();
    assert_eq!((&said["status"], &said["output"]), (&json!("COMPLETED"), &json!("whole")));
}

#[test]
fn a_real_worker_is_told_to_stop_what_was_called_off_and_nothing_else() {
    let mut platform = platform(Workers::External, 0);
    let ids: Vec<_> = (0..2).map(|_| submit(&mut platform, json!({}), &[], at(0))).collect();
    assert_eq!(platform.take("w", 2, at(0)).len(), 2);
    platform.done("w", &ids[0], &json!({"output": 1}), at(1));
    assert_eq!(platform.stops("w"), None);
    platform.cancel(&ids[1], at(2));
    assert_eq!(platform.stops("w"), Some(vec![ids[1].clone()]));
    assert_eq!(platform.stops("w"), None, "told once");
}

#[test]
fn a_claim_that_is_refused_fails_a_job_that_nobody_else_runs() {
    let mut platform = platform(Workers::Simulated, 1);
    let id = submit(&mut platform, json!({"_claim": {"url": "u", "nonce": "n"}}), &[], at(0));
    let (deeds, _) = platform.advance(at(8));
    let [Deed::Claim { run, .. }] = deeds.as_slice() else { panic!("{deeds:?}") };
    platform.claimed(*run, Err("taken".to_owned()), at(9));
    assert_eq!(platform.status(&id, at(9)).unwrap()["error"], json!("taken"));
    let meter = platform.meter(at(9));
    assert_eq!((meter.claims_refused, meter.runs_in_all()), (1, 0));
}
