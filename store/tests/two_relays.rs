//! Two relays on one Postgres queue, one of them killed again and again: every job completes, none twice, and no lease is given
//! to both.
//!
//! `MANYHANDS_STORE_KILLS` says how often.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use queue::{
    Deadlines, JobId, LeaseError, MicroUsd, Mode, NewJob, Outcome, Output, Owner, Quality, RoomName, Source, Status,
    UnixMs, UserName,
};
use store::testing::{Postgres, Sync};
use store::{JobStore, Offer};
use tokio::runtime::Runtime;

/// What makes this program one of the relays: the address of the store, and when its time begins.
const STORE: &str = "MANYHANDS_RELAY_STORE";
const BEGIN_MS: &str = "MANYHANDS_RELAY_BEGIN_MS";

/// How much faster their clocks go, so that the lease of a killed relay ends in a fifth of a second.
const HASTE: u64 = 50;

/// Workers of each relay.
const WORKERS: usize = 4;

/// Jobs for each kill, and some more.
const JOBS_PER_KILL: usize = 40;

#[test]
fn two_relays_share_a_queue_while_one_is_killed_again_and_again() {
    if let Ok(url) = std::env::var(STORE) {
        return be_a_relay(&url);
    }
    let runtime = Runtime::new().unwrap();
    let postgres = match runtime.block_on(Postgres::start(Sync::On)) {
        Ok(postgres) => postgres,
        Err(reason) => return println!("SKIPPED two_relays because {reason}"),
    };
    let kills = std::env::var("MANYHANDS_STORE_KILLS").map_or(10, |text| text.parse().unwrap());
    let jobs = (kills + 2) * JOBS_PER_KILL;
    let store = runtime.block_on(store::open(postgres.url())).unwrap();
    runtime.block_on(async {
        for _ in 0..jobs {
            store.submit(JobId::from_random(rand::random()), order(), UnixMs(1)).await.unwrap();
        }
    });
    let said = run(postgres.url(), kills);
    let report = runtime.block_on(async {
        let jobs = store.list(None, usize::MAX).await.unwrap();
        assert!(jobs.iter().all(|job| job.status() == Status::Completed), "{jobs:#?}");
        let report = store.report(None).await.unwrap();
        // Each completion has written one saving.
        assert_eq!((report.saved, report.peer_jobs), (MicroUsd(jobs.len() as u64), jobs.len() as u64));
        store.close().await;
        report
    });
    let (mut taken, mut completed) = (BTreeSet::new(), BTreeSet::new());
    let (mut late, mut killed) = (0, 0);
    for line in &said {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["took", job, fence] => assert!(taken.insert((job, fence)), "{job} was given twice under fence {fence}"),
            ["completed", job] => assert!(completed.insert(job), "{job} completed twice"),
            ["late", ..] => late += 1,
            _ => {}
        }
    }
    killed += taken.len() - completed.len() - late;
    println!(
        "{jobs} jobs, {kills} kills: {} leases heard of, {late} ended late, {killed} died with their relay",
        taken.len()
    );
    assert_eq!(report.peer_jobs as usize, jobs);
    assert!(taken.len() >= completed.len());
}

/// Runs two relays to the end of the queue, killing one of them so often; gives all they said.
fn run(url: &str, kills: usize) -> Vec<String> {
    let begin = now_ms();
    let (lines, said) = mpsc::channel();
    let mut steady = start(url, begin, 0, &lines);
    let mut all = Vec::new();
    for life in 1..=kills {
        let mut victim = start(url, begin, life, &lines);
        let mut left = rand::random_range(1..JOBS_PER_KILL);
        while left > 0 {
            let (from, line): (usize, Option<String>) = said.recv().unwrap();
            // Killed between two of its own lines; it ends by itself only where nothing is left to do.
            left = if from == life && line.is_some() { left - 1 } else { left };
            if from == life && line.is_none() {
                break;
            }
            all.extend(line);
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    assert!(steady.wait().unwrap().success());
    drop(lines);
    all.extend(said.iter().filter_map(|(_, line)| line));
    all
}

/// Starts a relay; what it says comes with its number, and nothing when it ends.
fn start(url: &str, begin: u64, number: usize, lines: &mpsc::Sender<(usize, Option<String>)>) -> Child {
    let mut relay = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "two_relays_share_a_queue_while_one_is_killed_again_and_again", "--nocapture"])
        .env(STORE, url)
        .env(BEGIN_MS, begin.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (output, lines) = (BufReader::new(relay.stdout.take().unwrap()), lines.clone());
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let _ = lines.send((number, Some(line)));
        }
        let _ = lines.send((number, None));
    });
    relay
}

/// Takes and finishes jobs until none is left.
fn be_a_relay(url: &str) {
    let begin: u64 = std::env::var(BEGIN_MS).unwrap().parse().unwrap();
    Runtime::new().unwrap().block_on(async {
        let store = store::open(url).await.unwrap();
        let name = rand::random::<u32>();
        let workers = (0..WORKERS).map(|number| work(store.clone(), begin, format!("{name}-{number}")));
        futures::future::join_all(workers).await;
        store.close().await;
    });
}

async fn work(store: Arc<dyn JobStore>, begin: u64, name: String) {
    let now = || UnixMs(begin + (now_ms() - begin) * HASTE);
    let offer = Offer { room: None, owner: Owner::new(name).unwrap(), source: Source::Peer, models: None };
    let mut changes = store.changes();
    loop {
        for job in store.expire(now()).await.unwrap() {
            // Killed under three relays: nobody's fault but this test's.
            if job.status() == Status::Failed {
                store.retry(&job.id).await.unwrap();
            }
        }
        let Some(taken) = store.take(&offer, now()).await.unwrap() else {
            let totals = store.totals(None).await.unwrap();
            if totals.queued + totals.processing == 0 {
                return;
            }
            // A lease of a killed relay ends in a moment.
            let _ = tokio::time::timeout(Duration::from_millis(20), changes.recv()).await;
            continue;
        };
        let (id, fence) = (&taken.job.id, taken.lease.fence);
        say(&format!("took {id} {fence}"));
        let outcome = Outcome::Completed { output: Output::default(), cost: MicroUsd::default() };
        match store.finish(id, fence, outcome, MicroUsd(1), now()).await.unwrap() {
            Some(Ok(_)) => say(&format!("completed {id}")),
            Some(Err(LeaseError::Stale)) => say(&format!("late {id}")),
            other => panic!("{other:?}"),
        }
    }
}

/// One write, so that no line is mixed with another's.
fn say(line: &str) {
    std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn now_ms() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

fn order() -> NewJob {
    NewJob {
        room: RoomName::new("room").unwrap(),
        user: UserName::new("user").unwrap(),
        key: None,
        ask: None,
        model: None,
        input: "{}".to_owned(),
        mode: Mode::Auto,
        quality: Quality::Final,
        priority: 0,
        expected: Duration::from_secs(1),
        webhook: None,
        deadlines: Deadlines::default(),
        may_spend: false,
    }
}
