//! The emulator as a process, and its own account of money.

use std::process::Stdio;
use std::time::Duration;

use runpod::ClientLimits;
use runpod::emulator::{Behaviour, Meter, Orders, Settings};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::stage::{CANARY, LONG, client, request, settings, start};

#[tokio::test]
async fn the_meter_runs_from_a_workers_start_to_its_stop() {
    let (emulator, client) = start(Settings { workers_max: 1, ..settings() }).await;
    for name in ["one", "two"] {
        let job = client.run(&request(name)).await.unwrap();
        client.wait(&job.id, LONG, |_| ()).await.unwrap();
    }
    emulator.advance(Duration::from_secs(100));
    let meter = emulator.meter();
    assert_eq!(meter.runs_in_all(), 2);
    // One start of 8 s, or two if the second came late; two runs of 3 s; idle after; and the real time between.
    let least = 8 + 2 * 3 + 5;
    assert!(meter.worker_seconds >= least, "{meter:?}");
    assert_eq!(meter.micro_usd.0, meter.worker_seconds * 190);
    emulator.advance(Duration::from_secs(1000));
    assert_eq!(emulator.meter(), meter, "what has stopped costs nothing");
}

#[tokio::test]
async fn the_program_says_where_it_listens_and_obeys_over_http() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_runpod-emulator"))
        .args(["--port", "0", "--key", CANARY, "--speed", "100", "--json"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let line = BufReader::new(program.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap();
    let said: Value = serde_json::from_str(&line).unwrap();
    let client = client(said["base"].as_str().unwrap(), ClientLimits::default());
    let root = format!("http://127.0.0.1:{}", said["port"]);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let told =
        http.post(format!("{root}/_behave")).json(&Orders::next(Behaviour::DoubleDelivery)).send().await.unwrap();
    assert_eq!(told.status().as_u16(), 204);
    let job = client.run(&request("one")).await.unwrap();
    let told = http.post(format!("{root}/_advance")).json(&serde_json::json!({"ms": 60_000})).send().await.unwrap();
    assert_eq!(told.status().as_u16(), 204);
    client.wait(&job.id, LONG, |_| ()).await.unwrap();
    let meter: Meter = http.get(format!("{root}/_meter")).send().await.unwrap().json().await.unwrap();
    assert_eq!((meter.jobs_taken, meter.given[job.id.as_str()]), (1, 2));
    program.kill().await.unwrap();
}
