//! Vendors' own SDKs, unmodified, against a room: RunPod's for Python and JavaScript, OpenAI's for Python. Printed as skipped
//! where Python, Node.js or a package cannot be had.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::AUTHORIZATION;
use runpod::sdk::{self, Installed, LONG, Script};
use serde_json::{Value, json};
use service::access::Right;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::room::{Caller, PNG, Stage, painted};

#[path = "stage/room.rs"]
mod room;

/// OpenAI's client, of the version that the images API was written for.
const OPENAI_PACKAGE: &str = "openai==3.57.0";

/// A Python with the packages.
fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Installed> = OnceLock::new();
    let packages = [sdk::PYTHON_PACKAGE, OPENAI_PACKAGE];
    let install = || sdk::install_python(&target().join("python/service-sdks"), &packages, "runpod, openai");
    sdk::found(PYTHON.get_or_init(install), "runpod and openai for Python")
}

/// A folder with the package for Node.js.
fn node() -> Option<&'static Path> {
    static NODE: OnceLock<Installed> = OnceLock::new();
    let install = || sdk::install_node(&target().join("node/service-sdks"));
    sdk::found(NODE.get_or_init(install), "runpod-sdk for Node.js")
}

fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(name)
}

fn client_environment(stage: &Stage) -> Vec<(&'static str, String)> {
    vec![
        ("RELAY", stage.base.clone()),
        ("ROOM", "room".to_owned()),
        ("RUNPOD_ENDPOINT_BASE_URL", format!("{}/v2", stage.base)),
        ("RUNPOD_API_KEY", stage.client("room", "ada").token),
    ]
}

/// What makes a RunPod worker one of a room. Its pings are as rare as they are by default, every 10 s.
fn worker_environment(stage: &Stage) -> Vec<(&'static str, String)> {
    sdk::worker_environment(&format!("{}/v2/room", stage.base), &stage.token(Some("room"), "bob", &[Right::Work]))
}

/// A small worker of the test's own, that knows what the clients' scripts ask for.
fn small_worker(stage: &Stage) -> JoinHandle<()> {
    let token = stage.worker("room", "bob").token;
    let base = format!("{}/v2/room", stage.base);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    tokio::spawn(async move {
        loop {
            let asked = http.get(format!("{base}/job-take/small?x=1")).header(AUTHORIZATION, &token).send().await;
            let Ok(job) = asked.unwrap().json::<Value>().await else { continue };
            let (id, input) = (job["id"].as_str().unwrap(), &job["input"]);
            let say = |operation: &str, body: Value| {
                let request = http.post(format!("{base}/{operation}/small/{id}?x=1"));
                request.header(AUTHORIZATION, &token).body(body.to_string()).send()
            };
            let answer = match input["task"].as_str() {
                Some("echo") => json!({ "output": input["value"] }),
                Some("items") => {
                    let count = input["count"].as_u64().unwrap();
                    for item in 0..count {
                        say("job-stream", json!({ "output": item })).await.unwrap();
                    }
                    json!({ "output": [] })
                }
                // Kept, and never done.
                Some("never") => continue,
                Some("fail") => json!({ "error": "it broke" }),
                Some("rest") => {
                    say("job-done", json!({ "output": "resting" })).await.unwrap();
                    return;
                }
                _ => painted(input),
            };
            say("job-done", answer).await.unwrap();
        }
    })
}

async fn ended(client: &Caller<'_>, id: &str) -> Value {
    let answer = client.get(&format!("/v2/room/status-sync/{id}?wait=60000")).await;
    assert!(answer.body["status"] != "IN_QUEUE" && answer.body["status"] != "IN_PROGRESS", "{answer:?}");
    answer.body
}

#[tokio::test(flavor = "multi_thread")]
async fn runpods_python_client_uses_a_room() {
    let Some(python) = python() else { return };
    let stage = Stage::start().await;
    let _worker = small_worker(&stage);
    let report = Script::start(python, &script("client.py"), &client_environment(&stage)).report().await;
    assert_eq!(report["output"]["images"][0]["data"], PNG, "{report}");
    assert_eq!((&report["status"], &report["output"]["seed"]), (&json!("COMPLETED"), &json!(7)));
    assert_eq!(report["run_sync"], json!([1, "ä"]));
    assert_eq!(report["stream"], json!([0, 1, 2]));
    assert_eq!(report["failed"], "FAILED");
    let jobs = &report["health"]["jobs"];
    assert_eq!((&jobs["completed"], &jobs["failed"], &jobs["inQueue"]), (&json!(3), &json!(1), &json!(0)));
    assert_eq!(report["health"]["workers"]["ready"], 1);
    assert_eq!(report["cancel"]["status"], "CANCELLED");
    assert_eq!(report["cancelled"], "CANCELLED");
    assert_eq!(report["purge"], json!({"removed": 2, "status": "completed"}));
    assert_eq!(report["unauthorised"], true, "a wrong key is an error of the SDK's");
}

#[tokio::test(flavor = "multi_thread")]
async fn runpods_asyncio_client_uses_a_room() {
    let Some(python) = python() else { return };
    let stage = Stage::start().await;
    let _worker = small_worker(&stage);
    let report = Script::start(python, &script("asyncio_client.py"), &client_environment(&stage)).report().await;
    assert_eq!((&report["output"], &report["stream"]), (&json!("ä"), &json!([0, 1])), "{report}");
    assert_eq!((&report["health"], &report["cancel"]), (&json!(["jobs", "workers"]), &json!("CANCELLED")));
}

#[tokio::test(flavor = "multi_thread")]
async fn runpods_javascript_client_uses_a_room() {
    let Some(folder) = node() else { return };
    let stage = Stage::start().await;
    let _worker = small_worker(&stage);
    let mut environment = client_environment(&stage);
    environment.push(("SDK_FOLDER", folder.to_str().unwrap().to_owned()));
    let report = Script::start(Path::new("node"), &script("client.mjs"), &environment).report().await;
    assert_eq!((&report["started"], &report["succeeded"]), (&json!("IN_QUEUE"), &json!(true)), "{report}");
    assert_eq!(report["output"]["images"][0]["data"], PNG);
    assert_eq!(report["run_sync"], json!(["COMPLETED", true, [1, "ä"]]));
    assert_eq!(report["stream"], json!([0, 1, 2]));
    assert_eq!(report["health"]["jobs"]["completed"], 3);
    assert_eq!(report["cancel"]["status"], "CANCELLED");
    assert_eq!(report["cancelled"], "CANCELLED");
    assert_eq!(report["purge"], json!({"removed": 1, "status": "completed"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn runpods_worker_joins_a_room_and_its_results_are_shown() {
    let Some(python) = python() else { return };
    let stage = Stage::start().await;
    let client = stage.client("room", "ada");
    let mut worker = Script::start(python, &sdk::worker(), &worker_environment(&stage));
    assert_eq!(worker.report().await, "ready");

    let id = client.run("room", json!({"type": "demo_fast", "prompt": "the sea", "seed": 7})).await;
    let status = ended(&client, &id).await;
    assert_eq!((&status["status"], &status["output"]["seed"]), (&json!("COMPLETED"), &json!(7)), "{status}");
    let view = client.get(&format!("/api/jobs/{id}")).await.body;
    assert_eq!((&view["status"], &view["source"]), (&json!("completed"), &json!("peer")), "{view}");
    let path = view["files"][0]["path"].as_str().unwrap();
    assert_eq!(stage.app.results.get(path).await.unwrap().bytes, room::png());

    let id = client.run("room", json!({"task": "echo", "value": [1, "ä"]})).await;
    assert_eq!(ended(&client, &id).await["output"], json!({"echo": [1, "ä"]}));
    let id = client.run("room", json!({"task": "raise"})).await;
    let status = ended(&client, &id).await;
    assert_eq!((&status["status"], &status["error"]), (&json!("FAILED"), &json!("it broke")));
    let id = client.run("room", json!({"task": "dance"})).await;
    assert_eq!(ended(&client, &id).await["error"], "Unknown task: dance");
    let id = client.run("room", json!({"task": "nothing"})).await;
    let status = ended(&client, &id).await;
    assert_eq!((&status["status"], status.get("output")), (&json!("COMPLETED"), None));

    let id = client.run("room", json!({"task": "progress"})).await;
    assert_eq!(worker.report().await, "half");
    // Told from a thread of its own: it comes soon.
    let mut changes = stage.app.store.changes();
    while client.status("room", &id).await["output"] != json!({"progress": 500, "step": 4, "of": 8}) {
        timeout(LONG, changes.recv()).await.unwrap().unwrap();
    }
    assert_eq!(client.get(&format!("/api/jobs/{id}")).await.body["progress"], 0.5);
    assert_eq!(client.post_nothing(&format!("/v2/room/cancel/{id}")).await.body["status"], "CANCELLED");
    assert_eq!(worker.report().await, "stopped", "the handler is cancelled by the stop channel");
    let id = client.run("room", json!({"task": "echo", "value": "after"})).await;
    assert_eq!(ended(&client, &id).await["output"], json!({"echo": "after"}));
}

/// A handler of the SDK that blocks says nothing, and the worker's pings may be rarer than leases last.
#[tokio::test(flavor = "multi_thread")]
async fn runpods_worker_keeps_its_job_though_its_handler_blocks_for_longer_than_a_lease() {
    let Some(python) = python() else { return };
    let stage = Stage::start().await;
    let client = stage.client("room", "ada");
    let mut environment = worker_environment(&stage);
    environment.push(("RUNPOD_PING_INTERVAL", (queue::limits::LEASE_TIME.as_millis() + 6000).to_string()));
    let mut worker = Script::start(python, &sdk::worker(), &environment);
    assert_eq!(worker.report().await, "ready");
    let store = stage.app.store.clone();
    let clock = stage.app.clock.clone();
    let expiring = tokio::spawn(async move {
        let mut every = tokio::time::interval(Duration::from_millis(500));
        loop {
            every.tick().await;
            assert!(store.expire(clock.now()).await.unwrap().is_empty(), "no lease ends");
        }
    });
    let seconds = queue::limits::LEASE_TIME.as_secs() + 4;
    let id = client.run("room", json!({"task": "block", "seconds": seconds})).await;
    let status = ended(&client, &id).await;
    assert_eq!((&status["status"], &status["output"]), (&json!("COMPLETED"), &json!("rested")), "{status}");
    assert!(!expiring.is_finished());
    expiring.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generator_of_runpods_worker_streams_item_by_item() {
    let Some(python) = python() else { return };
    let stage = Stage::start().await;
    let client = stage.client("room", "ada");
    let mut worker = Script::start(python, &sdk::generator(), &worker_environment(&stage));
    assert_eq!(worker.report().await, "ready");
    let id = client.run("room", json!({"count": 3})).await;
    let items = json!([{"item": 0}, {"item": 1}, {"item": 2}]);
    assert_eq!(ended(&client, &id).await["output"], items, "return_aggregate_stream");
    let told = client.get(&format!("/v2/room/stream/{id}")).await.body;
    let wrapped: Vec<Value> = items.as_array().unwrap().iter().map(|item| json!({ "output": item })).collect();
    assert_eq!(told["stream"], json!(wrapped));
    let id = client.run("room", json!({"count": 1, "breaks": true})).await;
    let status = ended(&client, &id).await;
    assert_eq!((&status["status"], &status["error"]), (&json!("FAILED"), &json!("handler: it broke")), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn openais_client_gets_pictures() {
    let Some(python) = python() else { return };
    let stage = Stage::start().await;
    let _worker = small_worker(&stage);
    let report = Script::start(python, &script("openai_client.py"), &client_environment(&stage)).report().await;
    assert_eq!((&report["pictures"], &report["created"]), (&json!([PNG, PNG]), &json!(true)), "{report}");
    assert!(report["url"].as_str().unwrap().starts_with(&stage.base));
    assert!(report["models"].as_array().unwrap().contains(&json!("demo_fast")));
    assert_eq!(report["size"], json!(["BadRequestError", 400, "wrong_request", "size"]));
    assert_eq!(report["model"], json!(["NotFoundError", 404, "model_not_found", "model"]));
    assert_eq!(report["key"], json!(["AuthenticationError", 401, "unauthorised", null]));
}
