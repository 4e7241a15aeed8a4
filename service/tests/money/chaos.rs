//! Thousands of jobs at an endpoint that misbehaves in every way at random: no budget is ever passed, nothing is paid twice.
//!
//! `MANYHANDS_CHAOS_JOBS=10000 cargo test -p service --test money chaos -- --nocapture`

use std::time::{Duration, Instant};

use queue::{Budgets, MicroUsd, Status};
use runpod::emulator::{Behaviour, Orders};
use serde_json::json;
use tokio::time::{interval, timeout};

use crate::audit::{audit, compare};
use crate::stage::{Stage, WORST, Wish};

/// The twelve of the plan, and the emulator's others.
const OF: [Behaviour; 23] = Behaviour::ALL;

/// How likely a call misbehaves.
const CHANCE: f64 = 0.3;

/// Users; each submits more than the one before, so that some reach their budget.
const USERS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn chaos_never_passes_a_budget() {
    let count: usize = std::env::var("MANYHANDS_CHAOS_JOBS").map_or(400, |count| count.parse().unwrap());
    let begun = Instant::now();
    // About half of what all jobs together would cost (by experience), so that the rest has to wait; and what the largest users
    // cost is more than a user's.
    let each = 6_000;
    let of = |share: f64| MicroUsd((share * each as f64 * count as f64) as u64 + 4 * WORST.0);
    let budgets = Budgets { total: of(0.8), day: of(0.7), user_day: of(0.1), room_day: of(0.45) };
    let wish = Wish {
        speed: 400.0,
        budgets,
        in_flight_max: 64,
        workers_max: 64,
        seed: 11,
        is_in_file: true,
        ..Wish::default()
    };
    let stage = Stage::set(wish).await;
    stage.behave(Orders::by_chance(CHANCE, &OF));
    let mut jobs = Vec::with_capacity(count);
    'all: loop {
        for user in 0..USERS {
            for _ in 0..=user {
                if jobs.len() == count {
                    break 'all;
                }
                let room = if user % 2 == 0 { "even" } else { "odd" };
                jobs.push(stage.submit(room, &format!("user-{user}")).await);
            }
        }
    }
    let settle = async {
        let mut ticks = interval(Duration::from_millis(20));
        let mut opened = 0;
        loop {
            ticks.tick().await;
            // An operator who believes in the endpoint against all experience.
            let cloud = stage.get("/api/cloud").await;
            if !cloud["endpoints"][0]["not_asked_because"].is_null() {
                opened += 1;
                stage.post("/api/cloud/reset", &json!({ "endpoint": "gpu" })).await;
                continue;
            }
            if is_still(&stage).await && are_all_out_of_budget(&stage).await {
                break;
            }
        }
        // What waits might just fit once the last holds are released: nothing begins any more while all is counted.
        stage.post("/api/cloud/switch", &json!({ "on": false })).await;
        while !is_still(&stage).await {
            ticks.tick().await;
        }
        opened
    };
    let opened = timeout(Duration::from_secs(900), settle).await.expect("every job ends or waits for a budget");
    stage.behave(Orders::by_chance(0.0, &[]));
    let audit = audit(&*stage.store, &budgets).await;
    let meter = stage.emulator.meter();
    compare(&audit, &meter);
    let totals = stage.store.totals(None).await.unwrap();
    println!(
        "{count} jobs in {:.1} s: {} completed, {} failed, {} wait for a budget; {} attempts, {} taken, {} runs, {} claims \
         refused; billed {}, charged {}, peak of holds and charges {} of {}; the breaker opened {opened} times",
        begun.elapsed().as_secs_f64(),
        totals.completed,
        totals.failed,
        totals.queued,
        audit.attempts,
        meter.jobs_taken,
        meter.runs_in_all(),
        meter.claims_refused,
        meter.micro_usd,
        audit.charged,
        audit.peak,
        budgets.day,
    );
    assert_eq!(totals.completed + totals.failed + totals.queued, count as u64);
    assert!(totals.completed > 0 && opened > 0);
    assert!(totals.queued > 0, "no budget was ever reached, so none was tried");
    for id in &jobs {
        let job = stage.job(id).await;
        assert_ne!(job.status(), Status::Processing, "{job:?}");
        let runs = meter.runs_by_ref.get(id.as_str()).copied().unwrap_or(0);
        assert!(runs <= job.attempts, "{job:?} ran {runs} times");
    }
}

/// Whether nothing is under way in the cloud.
async fn is_still(stage: &Stage) -> bool {
    let totals = stage.store.totals(None).await.unwrap();
    totals.processing == 0 && stage.store.report(None).await.unwrap().held == MicroUsd(0)
}

/// Whether whatever waits does so because of a budget.
async fn are_all_out_of_budget(stage: &Stage) -> bool {
    let waiting = stage.store.waiting(10_000).await.unwrap();
    waiting.iter().all(|job| job.route.as_deref().is_some_and(|route| route.contains("budget")))
}
