//! A relay that dies at any moment: whoever comes after it pays nothing twice and loses no job.

use queue::{AttemptState, MicroUsd, Status, UnixMs};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

use crate::audit::{audit, compare};
use crate::stage::{Stage, Wish};

#[tokio::test(flavor = "multi_thread")]
async fn jobs_survive_crashes_at_any_moment() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut stage = Stage::set_still(Wish { in_flight_max: 20, workers_max: 20, ..Wish::default() }).await;
    let mut jobs = Vec::new();
    for _ in 0..30 {
        for _ in 0..4 {
            jobs.push(stage.submit("room", "ada").await);
        }
        stage.drive();
        let pause: u64 = rng.random_range(0..20_000);
        // By the stage's clock: the relay is somewhere in the middle of it all.
        stage.clock.sleep(Duration::from_millis(pause)).await;
        stage.crash().await;
    }
    stage.drive();
    for id in &jobs {
        let job = stage.ended(id).await;
        assert!([Status::Completed, Status::Failed].contains(&job.status()), "{job:?}");
    }
    let settled = async || (stage.store.report(None).await.unwrap().held == MicroUsd(0)).then_some(());
    stage.until(settled).await;
    let audit = audit(&*stage.store, &stage.app.cloud.rules().budgets).await;
    compare(&audit, &stage.emulator.meter());
    let mut completed = 0;
    for id in &jobs {
        completed += usize::from(stage.job(id).await.status() == Status::Completed);
    }
    println!("{} crashes, {} jobs, {completed} completed, {} attempts", 30, jobs.len(), audit.attempts);
    assert!(completed * 10 >= jobs.len() * 9, "{completed} of {}", jobs.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_told_to_stop_leaves_attempts_that_go_on_with_the_next() {
    let mut stage = Stage::set(Wish { speed: 20.0, ..Wish::default() }).await;
    let id = stage.submit("room", "ada").await;
    stage.until(async || (stage.emulator.meter().jobs_taken == 1).then_some(())).await;
    stage.stop().await;
    let attempts = stage.store.adopt(&stage_owner(), UnixMs(0)).await.unwrap();
    let states: Vec<AttemptState> = attempts.iter().map(|attempt| attempt.state).collect();
    assert!(matches!(states.as_slice(), [AttemptState::Submitted | AttemptState::Claimed]), "{states:?}");
    stage.crash().await;
    stage.drive();
    assert_eq!(stage.end_of(&id).await, (Status::Completed, 1));
    assert_eq!(stage.emulator.meter().runs_by_ref[id.as_str()], 1);
}

fn stage_owner() -> queue::Owner {
    queue::Owner::new("relay:test").unwrap()
}
