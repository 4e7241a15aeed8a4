//! Measures durable submissions: `cargo run --release -p store --example queue_bench -- --store sqlite:/tmp/queue.db`.

#![allow(clippy::unwrap_used, reason = "a program for people who measure")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use queue::{
    Deadlines, JobId, MicroUsd, Mode, NewJob, Outcome, Output, Owner, Quality, RoomName, Source, UnixMs, UserName,
};
use store::testing::{Postgres, Sync};
use store::{JobStore, Offer};
use tokio::task::JoinSet;

/// Measures how fast a store makes submissions durable, and how long each waits.
#[derive(Debug, Parser)]
struct Arguments {
    /// `sqlite:FILE`, `postgres://…`, or `postgres` for a server that is started for it.
    #[arg(long)]
    store: String,
    /// Who submit at the same time, each the next job when the one before is acknowledged.
    #[arg(long, default_value_t = 32)]
    submitters: usize,
    /// Workers that take and finish jobs meanwhile.
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Bytes of each job's input.
    #[arg(long, default_value_t = 500)]
    input_bytes: usize,
    /// Rooms the jobs are spread over.
    #[arg(long, default_value_t = 16)]
    rooms: usize,
}

#[tokio::main]
async fn main() {
    let arguments = Arc::new(Arguments::parse());
    let server = match arguments.store.as_str() {
        "postgres" => Some(Postgres::start(Sync::On).await.unwrap()),
        _ => None,
    };
    let url = server.as_ref().map_or(arguments.store.as_str(), Postgres::url);
    let store = store::open(url).await.unwrap();
    let (is_over, finished) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut submitters = JoinSet::new();
    for number in 0..arguments.submitters {
        submitters.spawn(submit(store.clone(), arguments.clone(), number, is_over.clone()));
    }
    let mut workers = JoinSet::new();
    for number in 0..arguments.workers {
        workers.spawn(work(store.clone(), number, is_over.clone(), finished.clone()));
    }
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    is_over.store(true, Ordering::Relaxed);
    let mut waits: Vec<Duration> = submitters.join_all().await.into_iter().flatten().collect();
    let took = began.elapsed();
    workers.join_all().await;
    store.close().await;
    waits.sort();
    let at = |permille: usize| waits[(waits.len() - 1) * permille / 1000].as_secs_f64() * 1000.0;
    let rate = waits.len() as f64 / took.as_secs_f64();
    println!("{} submitters, {} workers, {:.1} s", arguments.submitters, arguments.workers, took.as_secs_f64());
    println!(
        "{:.0} acknowledged submissions/s, {:.0} finished jobs/s",
        rate,
        finished.load(Ordering::Relaxed) as f64 / took.as_secs_f64()
    );
    println!("waits: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms", at(500), at(990), at(1000));
    println!("load: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
}

/// Submits until it is over; gives how long each submission waited.
async fn submit(
    store: Arc<dyn JobStore>,
    arguments: Arc<Arguments>,
    number: usize,
    is_over: Arc<AtomicBool>,
) -> Vec<Duration> {
    let mut waits = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let order = NewJob {
            room: RoomName::new(format!("room-{}", (number + waits.len()) % arguments.rooms)).unwrap(),
            user: UserName::new(format!("user-{number}")).unwrap(),
            key: None,
            ask: None,
            model: None,
            input: format!("{{\"prompt\":\"{}\"}}", "x".repeat(arguments.input_bytes)),
            mode: Mode::Auto,
            quality: Quality::Final,
            priority: 0,
            expected: Duration::from_secs(5),
            webhook: None,
            deadlines: Deadlines::default(),
            may_spend: false,
        };
        let asked = Instant::now();
        store.submit(JobId::from_random(rand::random()), order, now()).await.unwrap();
        waits.push(asked.elapsed());
    }
    waits
}

/// Takes and finishes until it is over.
async fn work(store: Arc<dyn JobStore>, number: usize, is_over: Arc<AtomicBool>, finished: Arc<AtomicU64>) {
    let owner = Owner::new(format!("worker-{number}")).unwrap();
    let offer = Offer { room: None, owner, source: Source::Peer, models: None };
    while !is_over.load(Ordering::Relaxed) {
        let Some(taken) = store.take(&offer, now()).await.unwrap() else { continue };
        let outcome = Outcome::Completed { output: Output::default(), cost: MicroUsd::default() };
        let done = store.finish(&taken.job.id, taken.lease.fence, outcome, MicroUsd(1), now()).await.unwrap();
        assert!(matches!(done, Some(Ok(_))), "{done:?}");
        finished.fetch_add(1, Ordering::Relaxed);
    }
}

fn now() -> UnixMs {
    UnixMs(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64)
}
