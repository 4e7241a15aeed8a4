//! A worker for a room of a relay: what clients of the relay ask for comes to them, whatever happens to worker or relay.

use serde_json::{Value, json};
use tests::programs::{Process, finish, interrupt, start};
use ureq::http::StatusCode;

use crate::hosted::{Hosted, LONG, ROOM};
use crate::{PROMPT, on_runpod, painted, pixels};

/// Waits until a worker has begun to paint a job.
fn begun(worker: &mut Process, id: &str) {
    loop {
        let progress = worker.wait_for("progress").unwrap();
        if progress["job"] == id && progress["step"].as_u64() > Some(0) {
            return;
        }
    }
}

#[test]
fn a_job_of_the_catalogue_becomes_the_picture_that_paint_paints() {
    let hosted = Hosted::open();
    let client = hosted.client();
    let mut worker = hosted.serve(&["--name", "here"]);
    let id = client.submit("demo_fast", &json!({ "seed": 7, "negative_prompt": "fog" }));
    let view = client.completed(&id);
    assert_eq!(
        (&view["status"], &view["source"], &view["worker_type"]),
        (&json!("completed"), &json!("local"), &json!("worker"))
    );
    assert_eq!((&view["progress"], &view["cost_usd"], &view["type"]), (&json!(1.0), &json!(0.0), &json!("demo_fast")));
    assert!(view["files"][0]["path"].as_str().unwrap().starts_with("demo-images/me/"), "{view}");
    let png = client.picture(&view);
    assert_eq!(pixels(&png), painted(hosted.folder(), &view["order"]));
    let reader = png::Decoder::new(std::io::Cursor::new(&png)).read_info().unwrap();
    assert!(reader.info().utf8_text[0].get_text().unwrap().contains(PROMPT), "the recipe is inside");
    assert_eq!(worker.wait_for("done").unwrap()["job"], id.as_str());
    // The relay knows who could do what.
    let (_, types) = client.get(&format!("/api/job-types/{ROOM}"));
    let of = |name: &str| types.as_array().unwrap().iter().find(|one| one["id"] == name).unwrap().to_string();
    assert!(of("demo_fast").contains("local"), "{}", of("demo_fast"));
    let (_, health) = client.get(&format!("/v2/{ROOM}/health"));
    assert_eq!((&health["workers"]["ready"], &health["jobs"]["completed"]), (&json!(1), &json!(1)));
}

#[test]
fn a_member_works_for_its_room_and_is_called_a_peer_and_only_operators_work_for_every_room() {
    let hosted = Hosted::open();
    let member = hosted.token(&["--room", ROOM, "--user", "ada", "--can", "read,submit,work"]);
    let refused = |token: &str, queue: &str| {
        let output = hosted.worker_for(queue, token).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let every = format!("{}/v2/_", hosted.url);
    for (token, queue) in
        [(member.as_str(), every.as_str()), (&member, &format!("{}/v2/another", hosted.url)), ("none", &hosted.queue())]
    {
        let said = refused(token, queue);
        assert!(said.contains("the queue refuses this worker") && said.contains("MANYHANDS_TOKEN"), "{said}");
        assert!(!said.contains(token) || token == "none", "the token is not shown");
    }
    let client = hosted.client_with(&member);
    let id = client.submit("demo_fast", &json!({ "steps": 2 }));
    let mut worker = start(&mut hosted.worker_for(&hosted.queue(), &member));
    worker.wait_for("serving").unwrap();
    assert_eq!(client.completed(&id)["source"], "peer");
    drop(worker);
    let id = client.submit("demo_fast", &json!({ "steps": 2 }));
    let mut worker = start(&mut hosted.worker_for(&every, &hosted.operator));
    worker.wait_for("serving").unwrap();
    assert_eq!(client.completed(&id)["source"], "local");
}

#[test]
fn a_foreign_client_is_answered_in_its_own_words_or_told_by_name_what_is_not_done() {
    let hosted = Hosted::open();
    let client = hosted.client();
    let _worker = hosted.serve(&[]);
    let sdxl = json!({
        "prompt": PROMPT, "num_inference_steps": 2, "guidance_scale": 3.5, "width": 192, "height": 128, "seed": 5,
        // Only a relay says these, and a worker would believe them.
        "_claim": { "url": "http://127.0.0.1:9/claim", "nonce": "n" },
        "_output": { "put": [{ "put": "http://127.0.0.1:9/x", "path": "raw/me/x.png" }] },
    });
    let end = client.ended(&client.run(&sdxl));
    assert_eq!((&end["status"], &end["output"]["seed"]), (&json!("COMPLETED"), &json!(5)), "{end}");
    let uri = end["output"]["image_url"].as_str().unwrap();
    let png = data_encoding::BASE64.decode(uri.strip_prefix("data:image/png;base64,").unwrap().as_bytes()).unwrap();
    let mut order = crate::order(2, 5);
    order["negative_prompt"] = Value::Null;
    assert_eq!(pixels(&png), painted(hosted.folder(), &order));
    let refused = |input: Value| {
        let end = client.ended(&client.run(&input));
        assert_eq!(end["status"], "FAILED", "{end}");
        end["error"].as_str().unwrap().to_owned()
    };
    assert_eq!(refused(json!({ "task": "track", "prompt": PROMPT })), "Unknown task: track");
    let img2img = refused(json!({ "task": "img2img", "prompt": PROMPT, "image_url": "https://x.example/a.png" }));
    let lack = "this worker cannot do img2img with the model demo: it has no encoder to read a first picture with";
    assert_eq!(img2img, lack);
    let upscale = refused(json!({ "task": "upscale", "image": "a/b/c.png" }));
    assert_eq!(
        upscale,
        "this worker cannot do upscale with the model demo: it has no network that makes pictures larger"
    );
    assert!(refused(json!({ "workflow": { "3": {} } })).contains("ComfyUI"));
    let model = refused(json!({ "task": "txt2img", "model": "sdxl", "prompt": PROMPT }));
    assert_eq!(model, "this worker does not have the model sdxl; it has demo");
    // A type of the catalogue that needs a first picture is refused before it is queued.
    let (status, said) = client.post(&format!("/api/queue/{ROOM}"), &json!({ "type": "sdxl_img2img", "prompt": "a" }));
    assert_eq!(status, StatusCode::BAD_REQUEST, "{said}");
}

#[test]
fn a_job_that_is_called_off_stops_at_once_and_the_next_is_done() {
    let hosted = Hosted::open();
    let client = hosted.client();
    let mut worker = hosted.serve(&[]);
    let id = client.submit_long(LONG);
    begun(&mut worker, &id);
    assert_eq!(client.view(&id)["status"], "processing");
    client.call_off(&id);
    assert_eq!(worker.wait_for("stopped").unwrap()["job"], id.as_str());
    let view = client.view(&id);
    assert_eq!((&view["status"], view["files"].as_array().unwrap().len()), (&json!("cancelled"), 0));
    client.completed(&client.submit("demo_fast", &json!({ "steps": 2 })));
}

#[test]
#[cfg(unix)]
fn who_has_no_time_to_finish_hands_its_job_back_and_another_does_it() {
    let hosted = Hosted::open();
    let client = hosted.client();
    let mut first = hosted.serve(&["--drain", "0"]);
    let id = client.submit_long(40);
    begun(&mut first, &id);
    interrupt(&first);
    let (code, said) = finish(first);
    assert_eq!(code, Some(0));
    assert!(said.contains("handed-back"), "{said}");
    assert_eq!(client.view(&id)["status"], "queued", "nobody waits for a lease to end");
    let _second = hosted.serve(&[]);
    let view = client.completed(&id);
    assert_eq!(pixels(&client.picture(&view)), painted(hosted.folder(), &view["order"]));
}

#[test]
#[cfg(unix)]
fn a_job_outlives_the_worker_that_is_killed_in_its_middle() {
    let hosted = Hosted::open();
    let client = hosted.client();
    let mut supervisor = start(hosted.worker().arg("--supervise"));
    let process = supervisor.wait_for("started").unwrap()["process"].as_u64().unwrap();
    supervisor.wait_for("serving").unwrap();
    let id = client.submit_long(40);
    begun(&mut supervisor, &id);
    crate::supervised::kill(process);
    let restart = supervisor.wait_for("restart").unwrap();
    assert!(restart["text"].as_str().unwrap().contains("signal 9"), "{restart}");
    assert_ne!(supervisor.wait_for("started").unwrap()["process"], process);
    // Its lease ends when it has not been heard of for a while, and the next process gets the job.
    assert_eq!(supervisor.wait_for("took").unwrap()["job"], id.as_str());
    let view = client.completed(&id);
    assert_eq!(pixels(&client.picture(&view)), painted(hosted.folder(), &view["order"]));
}

#[test]
#[cfg(unix)]
fn a_job_outlives_the_relay_that_is_killed_in_its_middle() {
    let mut hosted = Hosted::open();
    let client = hosted.client();
    let mut worker = hosted.serve(&[]);
    let id = client.submit_long(40);
    begun(&mut worker, &id);
    hosted.kill_and_start_again();
    let view = client.completed(&id);
    assert_eq!(pixels(&client.picture(&view)), painted(hosted.folder(), &view["order"]));
    interrupt(&worker);
    assert_eq!(finish(worker).0, Some(0));
}

#[test]
fn a_worker_with_runpods_environment_works_for_a_relay_too() {
    let hosted = Hosted::open();
    let client = hosted.client();
    let mut command = tests::programs::node();
    command.args(["serve", "--threads", "1", "--progress", "json"]);
    on_runpod(&mut command, &hosted.queue(), &hosted.operator);
    let mut worker = start(&mut command);
    worker.wait_for("serving").unwrap();
    let view = client.completed(&client.submit("demo_fast", &json!({ "seed": 1 })));
    assert_eq!(pixels(&client.picture(&view)), painted(hosted.folder(), &view["order"]));
}
