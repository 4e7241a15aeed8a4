//! `manyhands serve`: a queue's jobs become the pictures that `paint` paints, in order, and none is reported twice or late. The
//! queue is a relay's, RunPod's as it is emulated, or one that shows every word of a worker.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod ending;
mod hosted;
mod paid;
mod queue;
mod rooms;
mod supervised;

use std::path::Path;
use std::process::Command;

use data_encoding::BASE64;
use serde_json::{Value, json};
use tests::programs::{Process, new_room, node, relay, start, worker};
use tests::tidy::root;

use self::queue::{Queue, Seen};

const PROMPT: &str = "mountains at sunset with a lake";

/// A worker of this queue that has loaded its model.
fn serve(queue: &Queue, arguments: &[&str]) -> Process {
    let mut command = node();
    command.args(["serve", "--queue", &queue.room(), "--threads", "1", "--progress", "json"]).args(arguments);
    command.env("MANYHANDS_TOKEN", "the-token");
    let mut worker = start(&mut command);
    worker.wait_for("serving").unwrap();
    worker
}

/// An order of the queue's catalogue.
fn order(steps: u32, seed: u64) -> Value {
    json!({
        "task": "txt2img", "model": "demo", "prompt": PROMPT, "negative_prompt": "fog", "width": 192, "height": 128,
        "steps": steps, "guidance": 3.5, "seed": seed,
    })
}

/// The pixels of the same order as `manyhands paint` paints it.
fn painted(folder: &Path, order: &Value) -> Vec<u8> {
    let out = folder.join("paint.png");
    let mut paint = node();
    paint.args([
        "paint",
        order["prompt"].as_str().unwrap(),
        "--size",
        &format!("{}x{}", order["width"], order["height"]),
    ]);
    if let Some(negative) = order["negative_prompt"].as_str().filter(|text| !text.is_empty()) {
        paint.args(["--negative", negative]);
    }
    for (flag, field) in [("--steps", "steps"), ("--guidance", "guidance"), ("--seed", "seed")] {
        paint.args([flag, &order[field].to_string()]);
    }
    let output = paint.arg("--out").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    pixels(&std::fs::read(out).unwrap())
}

fn pixels(png: &[u8]) -> Vec<u8> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

/// The pictures inside a job's end.
fn pictures(end: &Seen) -> Vec<Vec<u8>> {
    let body = end.json();
    let images = body["output"]["images"].as_array().unwrap_or_else(|| panic!("{body}")).clone();
    let decode = |image: &Value| {
        assert_eq!(image["type"], "base64");
        BASE64.decode(image["data"].as_str().unwrap().as_bytes()).unwrap()
    };
    images.iter().map(decode).collect()
}

#[test]
fn a_job_becomes_the_picture_that_paint_paints_and_its_progress_comes_first_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open();
    let _worker = serve(&queue, &["--name", "here"]);
    let take = queue.wait_for(|seen| seen.what == "job-take");
    assert!(take.worker.starts_with("here-"), "{}", take.worker);
    assert_eq!(take.query, "dialect=manyhands&models=demo&job_in_progress=0");
    assert_eq!(take.header("authorization"), "Bearer the-token");
    queue.give("job-1", order(12, 7));
    let reports = queue.reports_until_end("job-1");
    let (end, progress) = reports.split_last().unwrap();
    assert!(!progress.is_empty(), "a job is heard of when it begins");
    let mut before = (0, 0);
    for report in progress {
        let body = report.json();
        assert_eq!((report.job.as_str(), &body["status"]), ("job-1", &json!("IN_PROGRESS")));
        let number = |name: &str| body["output"][name].as_u64().unwrap();
        let here = (number("progress"), number("step"));
        assert!(here >= before && here.0 <= 1000 && number("of") == 12, "{before:?} then {body}");
        before = here;
    }
    assert_eq!(end.header("x-request-id"), "job-1");
    assert_eq!(end.header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(end.header("authorization"), "Bearer the-token");
    let body = end.json();
    assert_eq!((&body["output"]["seed"], &body["output"]["images"][0]["filename"]), (&json!(7), &json!("0.png")));
    assert!(body["output"]["seconds"].as_f64().unwrap() > 0.0);
    let pictures = pictures(end);
    assert_eq!(pixels(&pictures[0]), painted(folder.path(), &order(12, 7)));
    let reader = png::Decoder::new(std::io::Cursor::new(&pictures[0])).read_info().unwrap();
    let recipe = reader.info().utf8_text[0].get_text().unwrap();
    assert!(recipe.contains(PROMPT) && recipe.contains("Seed: 7"), "the recipe is inside: {recipe}");
    // Whatever else it had to say of the job would come before the end of the next.
    queue.give("job-2", json!({ "task": "track" }));
    assert!(queue.reports_until_end("job-2").iter().all(|report| report.job == "job-2"));
}

#[test]
fn what_is_not_done_here_is_refused_in_words_and_the_worker_goes_on() {
    let queue = Queue::open();
    let _worker = serve(&queue, &[]);
    let refused = |id: &str, input: Value| {
        queue.give(id, input);
        let reports = queue.reports_until_end(id);
        assert_eq!(reports.len(), 1, "nothing is begun");
        reports[0].json()["error"].as_str().unwrap().to_owned()
    };
    assert_eq!(refused("a", json!({ "task": "track", "input_url": "x" })), "Unknown task: track");
    let img2img = refused("b", json!({ "task": "img2img", "model": "demo", "prompt": PROMPT, "init_image": "a/b/c" }));
    assert!(img2img.starts_with("this worker cannot do img2img with the model demo: "), "{img2img}");
    let upscale = refused("c", json!({ "task": "upscale", "model": "demo", "prompt": "" }));
    assert!(upscale.starts_with("this worker cannot do upscale with the model demo: "), "{upscale}");
    let model = refused("d", json!({ "model": "sdxl", "prompt": PROMPT }));
    assert_eq!(model, "this worker does not have the model sdxl; it has demo");
    let empty = refused("e", json!({ "prompt": " " }));
    assert!(empty.contains("the prompt is empty"), "{empty}");
    let size = refused("f", json!({ "prompt": PROMPT, "width": 100 }));
    assert!(size.contains("100x"), "{size}");
    // An input as other workers' clients write it.
    let foreign =
        json!({ "prompt": PROMPT, "num_inference_steps": 2, "guidance_scale": 7.5, "num_images": 2, "seed": 5 });
    queue.give("g", foreign);
    let reports = queue.reports_until_end("g");
    let two = pictures(reports.last().unwrap());
    assert_eq!(two.len(), 2);
    assert_ne!(pixels(&two[0]), pixels(&two[1]), "each has a seed of its own");
}

#[test]
fn a_paid_job_begins_only_when_it_is_claimed() {
    let queue = Queue::open();
    let mut worker = serve(&queue, &[]);
    let input = |nonce: &str| {
        let mut input = order(2, 1);
        input["_claim"] = json!({ "url": format!("{}/claim", queue.url), "nonce": nonce });
        input
    };
    queue.answer_claims(axum::http::StatusCode::CONFLICT);
    queue.give("another-s", input("first"));
    let claim = queue.wait_for(|seen| seen.what == "claim");
    assert_eq!(claim.json(), json!({ "nonce": "first", "id": "another-s" }));
    assert_eq!(claim.header("authorization"), "", "the token goes to the queue alone");
    assert_eq!(worker.wait_for("elsewhere").unwrap()["job"], "another-s");
    queue.answer_claims(axum::http::StatusCode::OK);
    queue.give("ours", input("second"));
    let reports = queue.reports_until_end("ours");
    assert!(reports.iter().all(|report| report.job == "ours"), "nothing is told of the other");
    assert_eq!(pictures(reports.last().unwrap()).len(), 1);
}

#[test]
fn pictures_are_put_where_the_input_says() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open();
    let _worker = serve(&queue, &[]);
    let mut input = order(2, 3);
    let place = format!("{}/store/demo/user/x.png?signature=s", queue.url);
    input["_output"] = json!({ "put": [{ "put": place, "path": "demo/user/x.png" }] });
    queue.give("job", input);
    let stored = queue.wait_for(|seen| seen.what == "put");
    assert_eq!((stored.job.as_str(), stored.query.as_str()), ("demo/user/x.png", "signature=s"));
    assert_eq!((stored.header("content-type"), stored.header("authorization")), ("image/png", ""));
    assert_eq!(stored.header("if-none-match"), "*", "a store's address signs it");
    assert_eq!(pixels(&stored.body), painted(folder.path(), &order(2, 3)));
    let reports = queue.reports_until_end("job");
    let image = &reports.last().unwrap().json()["output"]["images"][0];
    assert_eq!(*image, json!({ "filename": "x.png", "type": "stored", "data": "demo/user/x.png" }));
    // A place that refuses it loses no picture that was painted, and perhaps paid for.
    let mut input = order(2, 3);
    input["_output"] = json!({ "put": [{ "put": format!("{}/no-such-place", queue.url), "path": "demo/user/y.png" }] });
    queue.give("another", input);
    let reports = queue.reports_until_end("another");
    assert_eq!(pixels(&pictures(reports.last().unwrap())[0]), painted(folder.path(), &order(2, 3)));
}

#[test]
fn a_whole_room_paints_what_one_worker_takes() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, url) = relay(folder.path());
    let link = new_room(&url);
    let _helpers = [worker(&link, &[]), worker(&link, &[])];
    let queue = Queue::open();
    let _worker = serve(&queue, &["--room", &link, "--no-local", "--wait", "60"]);
    queue.give("job", order(3, 9));
    let reports = queue.reports_until_end("job");
    assert_eq!(pixels(&pictures(reports.last().unwrap())[0]), painted(folder.path(), &order(3, 9)));
}

/// The environment that RunPod gives, as it was measured, for the endpoint at this address.
fn on_runpod(command: &mut Command, endpoint: &str, key: &str) {
    command.env("RUNPOD_WEBHOOK_GET_JOB", format!("{endpoint}/job-take/$ID?gpu=none"));
    command.env("RUNPOD_WEBHOOK_POST_OUTPUT", format!("{endpoint}/job-done/$RUNPOD_POD_ID/$ID?gpu=none"));
    command.env("RUNPOD_WEBHOOK_POST_STREAM", format!("{endpoint}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none"));
    command.env("RUNPOD_WEBHOOK_PING", format!("{endpoint}/ping/$RUNPOD_POD_ID?gpu=none"));
    command.env("RUNPOD_AI_API_KEY", key).env("RUNPOD_POD_ID", "pod-7").env("RUNPOD_PING_INTERVAL", "1000");
}

#[test]
#[cfg(unix)]
fn the_start_script_serves_runpod_as_its_environment_says() {
    let queue = Queue::open();
    let programs = tests::programs::programs();
    let mut script = tests::programs::command(Path::new("sh"));
    script.arg(root().join("deploy/runpod/start.sh")).args(["--progress", "json"]).env("MANYHANDS_THREADS", "1");
    let path = std::env::var("PATH").unwrap();
    script.env("PATH", format!("{}:{path}", programs.node.parent().unwrap().display()));
    script.env("MANYHANDS_MODELS", root().join("models"));
    on_runpod(&mut script, &queue.room(), "the-key");
    let mut worker = start(&mut script);
    worker.wait_for("serving").unwrap();
    let take = queue.wait_for(|seen| seen.what == "job-take");
    assert_eq!((take.worker.as_str(), take.query.as_str()), ("pod-7", "gpu=none&job_in_progress=0"));
    assert_eq!(take.header("authorization"), "the-key", "bare");
    queue.give("a-u1", order(2, 1));
    let reports = queue.reports_until_end("a-u1");
    let end = reports.last().unwrap();
    assert_eq!((end.worker.as_str(), end.query.as_str()), ("pod-7", "gpu=none&isStream=false"));
    assert_eq!(pictures(end).len(), 1);
    let ping = queue.wait_for(|seen| seen.what == "ping");
    assert!(ping.query.starts_with("gpu=none&runpod_version="), "{}", ping.query);
    tests::programs::interrupt(&worker);
    assert_eq!(tests::programs::finish(worker).0, Some(0));
}
