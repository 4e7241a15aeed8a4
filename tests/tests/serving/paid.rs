//! A job that overflows to RunPod and is painted there by `manyhands serve`: claimed, put into the relay's store, and paid once.

use std::path::Path;

use runpod::emulator::{Emulator, Settings, Workers};
use serde_json::{Value, json};
use tests::programs::{node, start};
use tokio::runtime::Runtime;

use crate::hosted::Hosted;
use crate::{on_runpod, painted, pixels};

const KEY: &str = "emulator-key";

/// A relay's configuration with this endpoint, whose key is in this file, and a dollar to spend.
fn config(endpoint: &str, key: &Path) -> String {
    let key = key.display();
    format!(
        "[queue.budgets]\ntotal_usd = 1.0\nday_usd = 1.0\nuser_day_usd = 1.0\nroom_day_usd = 1.0\n\
         [[queue.endpoints]]\nname = \"emulated\"\nurl = \"{endpoint}\"\nkey_file = '{key}'\n\
         queues = [\"demo\"]\nprice_per_second_usd = 0.00019\nclaims = true\n"
    )
}

#[test]
fn an_overflowing_job_is_claimed_painted_put_into_the_store_and_paid_once() {
    let runtime = Runtime::new().unwrap();
    let settings = Settings { key: KEY.to_owned(), workers: Workers::External, ..Settings::default() };
    let emulator = runtime.block_on(Emulator::start(settings)).unwrap();
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&key, KEY).unwrap();
    let hosted = Hosted::open_with(&config(&emulator.base(), key.path()));
    let mut command = node();
    command.args(["serve", "--threads", "1", "--progress", "json"]);
    on_runpod(&mut command, &emulator.base(), KEY);
    let mut worker = start(&mut command);
    worker.wait_for("serving").unwrap();
    let spender = hosted.token(&["--room", crate::hosted::ROOM, "--user", "ada", "--can", "read,submit,spend"]);
    let client = hosted.client_with(&spender);
    let id = client.submit("demo_fast", &json!({ "mode": "cloud", "seed": 11 }));
    let remote = worker.wait_for("took").unwrap()["job"].as_str().unwrap().to_owned();
    let view = client.completed(&id);
    assert_eq!((&view["source"], &view["worker_type"]), (&json!("cloud"), &json!("runpod")), "{view}");
    assert!(view["cost_usd"].as_f64().unwrap() > 0.0, "{view}");
    assert!(view["files"][0]["path"].as_str().unwrap().starts_with("demo-images/ada/"), "{view}");
    assert_eq!(pixels(&client.picture(&view)), painted(hosted.folder(), &view["order"]));
    // What went through the endpoint is the picture's name alone.
    let status = format!("{}/status/{remote}", emulator.base());
    let mut answer = ureq::get(status).header("Authorization", format!("Bearer {KEY}")).call().unwrap();
    let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    let image = &answer["output"]["images"][0];
    assert_eq!((&image["type"], &image["data"]), (&json!("stored"), &view["files"][0]["path"]), "{answer}");
    let meter = emulator.meter();
    assert_eq!((meter.runs_in_all(), meter.runs_by_ref.get(&id), meter.runs_by_nonce.len()), (1, Some(&1), 1));
    let (_, mut ledger) = hosted.client().get("/api/ledger");
    let ledger = ledger["report"].take();
    assert_eq!((&ledger["held_usd"], &ledger["charged_usd"]), (&json!(0.0), &view["cost_usd"]), "{ledger}");
}
