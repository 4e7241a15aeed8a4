//! What holds of the databases beyond their answers: files, versions, batches, and calls at the same moment.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use queue::{
    Budgets, Deadlines, Endpoint, HoldAsk, JobId, MicroUsd, Mode, NewJob, Outcome, Output, Owner, Price, Quality,
    RoomName, Source, UnixMs, UserName,
};
use store::{JobStore, Offer};

mod file;
mod moments;
mod relays;

/// A moment, and every other one is near it.
const NOW: UnixMs = UnixMs(1_790_000_000_000);

/// A folder with the address of a file in it.
fn folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("queue.db").display());
    (folder, url)
}

fn order(room: &str) -> NewJob {
    NewJob {
        room: RoomName::new(room).unwrap(),
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

fn new_id() -> JobId {
    JobId::from_random(rand::random())
}

async fn submit(store: &dyn JobStore, room: &str) -> JobId {
    store.submit(new_id(), order(room), NOW).await.unwrap().job.id
}

fn offer(worker: &str) -> Offer {
    Offer { room: None, owner: Owner::new(worker).unwrap(), source: Source::Peer, models: None }
}

fn completed() -> Outcome {
    Outcome::Completed { output: Output::default(), cost: MicroUsd::default() }
}

/// A hold of 8.
fn hold_ask() -> HoldAsk {
    let price = Price {
        per_second: MicroUsd(1),
        cold_start_max: Duration::from_secs(2),
        execution_max: Duration::from_secs(5),
        idle: Duration::from_secs(1),
    };
    let (endpoint, driver) = (Endpoint::new("gpu").unwrap(), Owner::new("relay").unwrap());
    HoldAsk { endpoint, price, ttl: Duration::from_secs(30), claims: true, driver }
}

/// Budgets of which the day's is the tightest.
fn budgets(day: u64) -> Budgets {
    let amount = MicroUsd(1_000_000);
    Budgets { total: amount, day: MicroUsd(day), user_day: amount, room_day: amount }
}
