//! The vendor's own Python SDK, unmodified, against the emulator: what holds for it holds for the real endpoint's clients
//! and workers. Printed as skipped where Python or the package cannot be had.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use runpod::emulator::{Behaviour, Emulator, Orders, Settings, Workers};
use runpod::sdk::{self, Installed, LONG, Script};
use runpod::{Client, ClientLimits, End, Key, RunRequest, Status};
use serde_json::json;

const KEY: &str = "rpa_SDK0123456789";

/// A Python that has the SDK; `None` where it cannot be had, which is printed.
fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Installed> = OnceLock::new();
    let install = || {
        // The emulator's program lies in target/debug.
        let target = Path::new(env!("CARGO_BIN_EXE_runpod-emulator")).parent().unwrap().parent().unwrap();
        sdk::install_python(&target.join("python").join("runpod-sdk"), &[sdk::PYTHON_PACKAGE], "runpod")
    };
    sdk::found(PYTHON.get_or_init(install), "the runpod SDK")
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name)
}

fn client(emulator: &Emulator) -> Client {
    Client::new(&emulator.base(), Key::new(KEY).unwrap(), ClientLimits::default()).unwrap()
}

fn client_environment(emulator: &Emulator) -> Vec<(&'static str, String)> {
    vec![("RUNPOD_ENDPOINT_BASE_URL", format!("http://{}/v2", emulator.address())), ("RUNPOD_API_KEY", KEY.to_owned())]
}

fn worker_environment(emulator: &Emulator) -> Vec<(&'static str, String)> {
    let mut environment = sdk::worker_environment(&emulator.base(), KEY);
    environment.push(("RUNPOD_PING_INTERVAL", "1000".to_owned()));
    environment
}

async fn external() -> Emulator {
    let settings = Settings { key: KEY.to_owned(), workers: Workers::External, ..Settings::default() };
    Emulator::start(settings).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_client_runs_waits_streams_cancels_purges_and_asks_for_health() {
    let Some(python) = python() else { return };
    let settings = Settings { key: KEY.to_owned(), speed: 20.0, workers_max: 1, ..Settings::default() };
    let emulator = Emulator::start(settings).await.unwrap();
    // The fourth job does not end before it is cancelled, and the fifth keeps the one worker busy.
    let next = vec![None, None, None, Some(Behaviour::Overrun), Some(Behaviour::Overrun)];
    emulator.behave(Orders { next, ..Orders::default() });
    let mut script = Script::start(python, &script("client.py"), &client_environment(&emulator));
    let report = script.report().await;
    assert_eq!(report["output"]["seed"], json!(7), "{report}");
    assert_eq!(report["status"], json!("COMPLETED"));
    assert_eq!(report["run_sync"]["seed"], json!(8));
    assert_eq!(report["stream"], json!(["one", {"two": 2}]));
    assert_eq!(report["cancel"], json!("CANCELLED"));
    assert_eq!(report["cancelled"], json!("CANCELLED"));
    assert_eq!(report["health"]["jobs"]["completed"], json!(3));
    assert_eq!(report["purge"], json!({"removed": 2, "status": "completed"}));
    assert_eq!(report["unauthorised"], json!(true), "a wrong key is an error of the SDK's");
    script.end().await;
    assert!(emulator.meter().doubled().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_worker_takes_reports_and_delivers_what_our_client_asks_for() {
    let Some(python) = python() else { return };
    let emulator = external().await;
    let client = client(&emulator);
    let mut worker = Script::start(python, &sdk::worker(), &worker_environment(&emulator));
    assert_eq!(worker.report().await, json!("ready"));

    let job = client.run(&RunRequest::new(json!({"task": "echo", "value": [1, "ä"]}))).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    assert_eq!(last.end(), Some(End::Completed(json!({"echo": [1, "ä"]}))));
    assert_eq!(last.worker.as_deref(), Some("sdk-worker"));

    let job = client.run(&RunRequest::new(json!({"task": "raise"}))).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    let Some(End::Failed(failure)) = last.end() else { panic!("{last:?}") };
    assert_eq!(failure.complaint.message, "it broke");
    assert!(failure.complaint.traceback.unwrap().contains("worker.py"));

    let job = client.run(&RunRequest::new(json!({"task": "dance"}))).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    let Some(End::Failed(failure)) = last.end() else { panic!("{last:?}") };
    assert_eq!(failure.complaint.message, "Unknown task: dance");

    let job = client.run(&RunRequest::new(json!({"task": "nothing"}))).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    let Some(End::Failed(failure)) = last.end() else { panic!("{last:?}") };
    assert_eq!(failure.kind.as_str(), "result_missing");

    let job = client.run(&RunRequest::new(json!({"task": "progress"}))).await.unwrap();
    assert_eq!(worker.report().await, json!("half"));
    let status = client.status(&job.id).await.unwrap();
    assert_eq!(status.status, Status::InProgress);
    assert_eq!(client.cancel(&job.id).await.unwrap().status, Status::Cancelled);
    assert_eq!(worker.report().await, json!("stopped"), "the handler is cancelled by the stop channel");

    let job = client.run(&RunRequest::new(json!({"task": "echo", "value": "after"}))).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    assert_eq!(last.end(), Some(End::Completed(json!({"echo": "after"}))));
    assert_eq!(emulator.meter().runs_in_all(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generator_of_the_sdk_streams_item_by_item() {
    let Some(python) = python() else { return };
    let emulator = external().await;
    let client = client(&emulator);
    let mut worker = Script::start(python, &sdk::generator(), &worker_environment(&emulator));
    assert_eq!(worker.report().await, json!("ready"));
    let job = client.run(&RunRequest::new(json!({"count": 3}))).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    let items = [json!({"item": 0}), json!({"item": 1}), json!({"item": 2})];
    assert_eq!(last.end(), Some(End::Completed(json!(items))), "return_aggregate_stream");
    assert_eq!(client.stream(&job.id).await.unwrap().items, items);
    assert!(client.stream(&job.id).await.unwrap().is_over());

    let job = client.run(&RunRequest::new(json!({"count": 1, "breaks": true}))).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    let Some(End::Failed(failure)) = last.end() else { panic!("{last:?}") };
    assert_eq!(failure.complaint.message, "handler: it broke");
    assert_eq!(client.stream(&job.id).await.unwrap().items, [json!({"item": 0})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_and_worker_of_the_sdk_meet_at_the_emulator() {
    let Some(python) = python() else { return };
    let emulator = external().await;
    let mut worker = Script::start(python, &sdk::worker(), &worker_environment(&emulator));
    assert_eq!(worker.report().await, json!("ready"));
    let mut script = Script::start(python, &script("meet.py"), &client_environment(&emulator));
    assert_eq!(script.report().await, json!({"echo": "hello"}));
    script.end().await;
}
