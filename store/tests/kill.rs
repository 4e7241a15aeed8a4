//! A relay with SQLite is killed at any moment: every submission it acknowledged is there afterwards, once.
//!
//! `MANYHANDS_STORE_KILLS` says how often.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use queue::{Deadlines, IdempotencyKey, JobId, Mode, NewJob, Quality, RoomName, UnixMs, UserName};
use store::JobStore;
use tokio::runtime::Runtime;

/// What makes this program a relay that is killed: the address of its store, and the room of this life.
const STORE: &str = "MANYHANDS_KILLED_STORE";
const ROOM: &str = "MANYHANDS_KILLED_ROOM";

/// Who submit at once.
const SUBMITTERS: usize = 16;

/// Lines after which it is killed at the latest.
const LINES_MAX: usize = 300;

#[test]
fn what_was_acknowledged_survives_a_kill_once() {
    if let Ok(url) = std::env::var(STORE) {
        return be_killed(&url);
    }
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("queue.db").display());
    let kills = std::env::var("MANYHANDS_STORE_KILLS").map_or(20, |text| text.parse().unwrap());
    let runtime = Runtime::new().unwrap();
    let (mut all, mut unheard) = (0, 0);
    for life in 0..kills {
        // Also at once: before it has opened the file, or while it does.
        let lines = if life % 10 == 9 { 0 } else { rand::random_range(0..LINES_MAX) };
        let acknowledged = live_and_die(&url, life, lines);
        all += acknowledged.len();
        unheard += runtime.block_on(check(&url, life, &acknowledged));
    }
    println!(
        "{kills} kills, {all} acknowledged submissions, none lost or doubled; {unheard} whose acknowledgement was killed"
    );
    assert!(all > kills, "too few were acknowledged to say anything");
}

/// Starts a relay and kills it after so many lines; gives the submissions it acknowledged.
fn live_and_die(url: &str, life: usize, lines: usize) -> BTreeSet<String> {
    let mut relay = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_was_acknowledged_survives_a_kill_once", "--nocapture"])
        .env(STORE, url)
        .env(ROOM, format!("room-{life}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(relay.stdout.take().unwrap()).lines();
    let mut acknowledged = BTreeSet::new();
    let mut note = |line: String| line.strip_prefix("acknowledged ").map(|key| acknowledged.insert(key.to_owned()));
    for line in output.by_ref().take(lines) {
        note(line.unwrap());
    }
    relay.kill().unwrap();
    // What it said before it died counts; its last line may have been cut.
    for line in output.map_while(Result::ok) {
        note(line);
    }
    assert!(!relay.wait().unwrap().success());
    acknowledged
}

/// Looks for every acknowledged submission; says how many more there are.
async fn check(url: &str, life: usize, acknowledged: &BTreeSet<String>) -> usize {
    let store = store::open(url).await.expect("a killed relay leaves a file that opens");
    let room = RoomName::new(format!("room-{life}")).unwrap();
    let jobs = store.list(Some(&room), usize::MAX).await.unwrap();
    let keys: Vec<_> = jobs.iter().filter_map(|job| job.order.key.clone()).collect();
    let distinct: BTreeSet<_> = keys.iter().map(|key| key.as_str().to_owned()).collect();
    assert_eq!(distinct.len(), jobs.len(), "a submission became two jobs");
    let lost: Vec<_> = acknowledged.difference(&distinct).collect();
    assert!(lost.is_empty(), "lost in life {life}: {lost:?}");
    if let Some(key) = acknowledged.first() {
        let again = store.submit(JobId::from_random(rand::random()), order(&room, key), UnixMs(2)).await.unwrap();
        assert!(!again.is_new, "{key} was submitted again");
    }
    store.close().await;
    jobs.len() - acknowledged.len()
}

/// Submits and says so, until it is killed.
fn be_killed(url: &str) {
    let runtime = Runtime::new().unwrap();
    let room = RoomName::new(std::env::var(ROOM).unwrap()).unwrap();
    runtime.block_on(async {
        let store = store::open(url).await.unwrap();
        let submitters = (0..SUBMITTERS).map(|number| submit(store.clone(), room.clone(), number));
        futures::future::join_all(submitters).await;
    });
}

async fn submit(store: Arc<dyn JobStore>, room: RoomName, submitter: usize) {
    for number in 0.. {
        let key = format!("{room}.{submitter}.{number}");
        let submitted = store.submit(JobId::from_random(rand::random()), order(&room, &key), UnixMs(1)).await.unwrap();
        assert!(submitted.is_new);
        // One write, so that no line is mixed with another's.
        std::io::stdout().lock().write_all(format!("acknowledged {key}\n").as_bytes()).unwrap();
    }
}

fn order(room: &RoomName, key: &str) -> NewJob {
    NewJob {
        room: room.clone(),
        user: UserName::new("user").unwrap(),
        key: Some(IdempotencyKey::new(key).unwrap()),
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
