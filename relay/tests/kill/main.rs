//! The relay is killed again and again under load: no job that it acknowledged is lost, and none is paid twice.
//!
//! `MANYHANDS_KILLS=200 cargo test -p relay --test kill -- --nocapture`; with `--features naive` the same run shows that a queue
//! without durable intents and claims fails it.
#![allow(missing_docs, clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod audit;
mod load;
#[cfg(feature = "naive")]
mod naive;
mod program;
#[cfg(not(feature = "naive"))]
mod sound;

use std::time::{Duration, Instant};

use queue::MicroUsd;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use runpod::emulator::{Behaviour, Emulator, Orders, Settings};
use tokio::time::timeout;

use crate::load::Load;
use crate::program::{KEY, Program};

/// How long the last jobs may take once the relay is left alone: an attempt that nobody heard of is given up after `ttl` and a
/// minute, and then there is one more.
const PATIENCE: Duration = Duration::from_secs(240);

/// What was found out.
#[derive(Debug)]
struct Findings {
    ready_p99: Duration,
    lost: usize,
    /// Jobs that were paid twice.
    doubled: Vec<String>,
    /// Attempts that ran twice.
    twice: usize,
    held: MicroUsd,
}

/// Kills a relay again and again under load, beside another one if there is one, and finds out what became of all jobs.
async fn killed(emulator: &Emulator, mut program: Program, mut beside: Option<Program>) -> Findings {
    let kills: usize = std::env::var("MANYHANDS_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let seed: u64 = rand::random();
    println!("{kills} kills, seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let first = program.start().await;
    if let Some(beside) = &mut beside {
        beside.start().await;
    }
    let tokens = program.tokens().await;
    let load = Load::begin(program.address(), tokens.member.clone());
    let mut ready = Vec::new();
    for _ in 0..kills {
        let pause = Duration::from_millis(rng.random_range(100..3000));
        // The relay dies by itself only if something is very wrong.
        assert!(timeout(pause, program.died()).await.is_err(), "the relay died by itself");
        program.kill().await;
        ready.push(program.start().await);
    }
    let jobs = load.end().await;
    let settled = Instant::now();
    let ends = audit::ends(program.address(), &tokens, &jobs, PATIENCE).await;
    let books = audit::books(program.address(), &tokens.operator, &program.budgets(), PATIENCE).await;
    program.stop().await;
    if let Some(mut beside) = beside {
        beside.stop().await;
    }
    let meter = emulator.meter();
    ready.sort();
    let ready_p99 = ready[(ready.len() * 99).div_ceil(100) - 1];
    println!(
        "{} jobs acknowledged (first start {first:?}): {} completed, {} failed, {} lost; ready again p50 {:?}, p99 {ready_p99:?}; \
         {} attempts, {} taken by the endpoint, {} runs, {} claims refused; billed {}, charged {}; settled {:?} after the load",
        jobs.len(),
        ends.completed,
        ends.failed,
        ends.lost,
        ready[ready.len() / 2],
        books.attempts,
        meter.jobs_taken,
        meter.runs_in_all(),
        meter.claims_refused,
        meter.micro_usd,
        books.charged,
        settled.elapsed(),
    );
    assert!(ends.completed > 0, "nothing was done at all");
    let twice = meter.runs_by_nonce.values().filter(|runs| **runs > 1).count();
    let doubled = meter.doubled().into_iter().map(str::to_owned).collect();
    Findings { ready_p99, lost: ends.lost, doubled, twice, held: books.held }
}

/// An endpoint with quick workers, which now and then gives one job to two of them.
async fn endpoint() -> Emulator {
    let settings = Settings {
        key: KEY.to_owned(),
        workers_max: 100,
        cold_start: Duration::from_millis(500),
        execution: Duration::from_millis(300),
        run_calls_max: u32::MAX,
        calls_max: u32::MAX,
        seed: rand::random(),
        ..Settings::default()
    };
    let emulator = Emulator::start(settings).await.unwrap();
    emulator.behave(Orders::by_chance(0.02, &[Behaviour::DoubleDelivery]));
    emulator
}
