//! RunPod's operations on a room, by hand: what its clients ask, and what its workers say.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use queue::limits::LEASE_TIME;
use reqwest::StatusCode;
use serde_json::{Value, json};
use service::access::Right;

use self::room::{PNG, Stage, painted, png};

#[path = "stage/room.rs"]
mod room;

#[tokio::test]
async fn a_job_goes_from_queue_to_worker_and_back_as_it_came() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let input = json!({"anything": ["ä", 1, null], "type": "of theirs"});
    let id = client.run("room", input.clone()).await;
    assert_eq!(client.status("room", &id).await, json!({"id": id, "status": "IN_QUEUE"}));
    assert_eq!(worker.take("room", "pod-1", "").await.unwrap(), json!({"id": id, "input": input}));
    assert_eq!(worker.take("room", "pod-1", "").await, None);
    let status = client.status("room", &id).await;
    assert_eq!((&status["status"], &status["workerId"]), (&json!("IN_PROGRESS"), &json!("pod-1")));
    assert!(status["delayTime"].is_u64() && status.get("output").is_none());
    let note = json!({"status": "IN_PROGRESS", "output": {"half": true}});
    assert!(worker.done("room", "pod-1", &id, note.clone()).await);
    assert_eq!(client.status("room", &id).await["output"], json!({"half": true}));
    let output = json!({"list": [1, "ä"], "nested": {"x": null}});
    assert!(worker.done("room", "pod-1", &id, json!({"output": output})).await);
    // The SDK tells its progress from a thread of its own: it may come after the end.
    assert!(!worker.done("room", "pod-1", &id, note).await);
    for answer in [
        client.get(&format!("/v2/room/status/{id}?ttl=1000")).await,
        client.post_nothing(&format!("/v2/room/status/{id}")).await,
        client.get(&format!("/v2/room/status-sync/{id}?wait=1000")).await,
    ] {
        assert_eq!((&answer.body["status"], &answer.body["output"]), (&json!("COMPLETED"), &output));
        assert!(answer.body["executionTime"].is_u64() && answer.body["delayTime"].is_u64());
    }
}

#[tokio::test]
async fn what_only_a_relay_says_to_its_workers_is_no_clients_to_say() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let elsewhere = "http://169.254.169.254/latest";
    let claim = json!({"url": elsewhere, "nonce": "n"});
    let place = json!([{"put": elsewhere, "path": "raw/eve/x.png", "url": elsewhere, "file": "raw/eve/x.png"}]);
    let spoken = json!({"_claim": claim, "_output": {"put": place}, "_put": place, "_client_ref": "j", "_theirs": 1});
    for more in [json!({"prompt": "a"}), json!({"workflow": {}}), json!({"task": "txt2img"})] {
        let mut input = more.clone();
        input.as_object_mut().unwrap().extend(spoken.as_object().unwrap().clone());
        let id = client.run("room", input).await;
        for query in ["", "&dialect=manyhands&models=demo"] {
            let taken = worker.take("room", "w", query).await.unwrap();
            assert!(!taken.to_string().contains("169.254"), "{taken}");
            let fields = taken["input"].as_object().unwrap();
            for name in ["_claim", "_output", "_put", "_client_ref"] {
                assert!(!fields.contains_key(name), "{name} of {more} came through");
            }
            // What is none of the relay's comes as it is to whoever reads inputs as they came.
            assert!(!query.is_empty() || fields["_theirs"] == 1);
            worker.done("room", "w", &id, json!({"handBack": true})).await;
        }
        worker.take("room", "w", "").await.unwrap();
        worker.done("room", "w", &id, json!({"output": 1})).await;
    }
}

#[tokio::test]
async fn pictures_are_kept_as_files_and_come_back_inside_the_output() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let id = client.run("room", json!({"workflow": {}})).await;
    worker.take("room", "w", "").await.unwrap();
    let images = json!([{"filename": "a.png", "type": "base64", "data": PNG}, format!("data:image/png;base64,{PNG}")]);
    let output = json!({"images": images, "deep": {"preview": PNG.trim_end_matches('=')}, "message": "a text"});
    worker.done("room", "w", &id, json!({"output": output})).await;
    assert_eq!(client.status("room", &id).await["output"], output);
    let view = client.get(&format!("/api/jobs/{id}")).await.body;
    let files = view["files"].as_array().unwrap();
    assert_eq!(files.len(), 3);
    assert!(!view.to_string().contains(PNG), "the view has addresses instead");
    let path = files[0]["path"].as_str().unwrap();
    assert!(path.starts_with("raw/ada/"), "{path}");
    assert_eq!(stage.app.results.get(path).await.unwrap().bytes, png());
}

#[tokio::test]
async fn a_handlers_error_fails_the_job_at_once_and_it_can_be_tried_again() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let id = client.run("room", json!({"x": 1})).await;
    worker.take("room", "w", "").await.unwrap();
    let error = json!({"error_type": "ValueError", "error_message": "it broke", "error_traceback": "File secret.py"});
    worker.done("room", "w", &id, json!({"error": error.to_string()})).await;
    let status = client.status("room", &id).await;
    assert_eq!((&status["status"], &status["error"]), (&json!("FAILED"), &json!("it broke")));
    assert!(!status.to_string().contains("secret.py"));
    let again = client.post_nothing(&format!("/v2/room/retry/{id}")).await;
    assert_eq!(again.body, json!({"id": id, "status": "IN_QUEUE"}));
    assert_eq!(client.status("room", &id).await, json!({"id": id, "status": "IN_QUEUE"}));
    worker.take("room", "w", "").await.unwrap();
    worker.done("room", "w", &id, json!({})).await;
    let status = client.status("room", &id).await;
    assert_eq!(status["status"], "COMPLETED", "a handler may give nothing");
    assert!(status.get("output").is_none());
    let refused = client.post_nothing(&format!("/v2/room/retry/{id}")).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn runsync_waits_for_the_end_or_says_how_far_it_is() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let late = client.post("/v2/room/runsync?wait=1000", json!({"input": {"x": 1}})).await.body;
    assert_eq!(late["status"], "IN_QUEUE");
    let working = worker.work("room", "w", "", |input| json!({"output": input["x"]}));
    let done = client.post("/v2/room/runsync?wait=30000", json!({"input": {"x": [2]}})).await.body;
    assert_eq!((&done["status"], &done["output"]), (&json!("COMPLETED"), &json!([2])));
    let id = late["id"].as_str().unwrap();
    let done = client.get(&format!("/v2/room/status-sync/{id}?wait=30000")).await.body;
    assert_eq!((&done["status"], &done["output"]), (&json!("COMPLETED"), &json!(1)));
    working.abort();
}

#[tokio::test]
async fn what_a_job_yields_is_told_once_and_in_order() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let id = client.run("room", json!({"x": 1})).await;
    worker.take("room", "w", "").await.unwrap();
    for item in [json!("one"), json!({"two": 2})] {
        let path = format!("/v2/room/job-stream/w/{id}?gpu=none&isStream=false");
        assert_eq!(worker.post(&path, json!({ "output": item })).await.body, json!({"accepted": true}));
    }
    let stream = format!("/v2/room/stream/{id}");
    let told = client.get(&stream).await.body;
    let items = json!([{"output": "one"}, {"output": {"two": 2}}]);
    assert_eq!((&told["status"], &told["stream"]), (&json!("IN_PROGRESS"), &items));
    // Nothing new: the answer waits until there is, or the job ends.
    let (told, ()) = tokio::join!(client.get(&stream), async {
        worker.post(&format!("/v2/room/job-stream/w/{id}?x"), json!({"output": 3})).await;
    });
    assert_eq!(told.body["stream"], json!([{"output": 3}]));
    worker.done("room", "w", &id, json!({"output": []})).await;
    let told = client.post_nothing(&stream).await.body;
    assert_eq!((&told["status"], &told["stream"]), (&json!("COMPLETED"), &json!([])));
    let late = worker.post(&format!("/v2/room/job-stream/w/{id}?x"), json!({"output": 4})).await;
    assert_eq!(late.body, json!({"accepted": false}));
}

#[tokio::test]
async fn a_cancelled_job_is_stopped_and_what_comes_of_it_is_ignored() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let waiting = client.run("room", json!({"x": 1})).await;
    let cancelled = client.post_nothing(&format!("/v2/room/cancel/{waiting}")).await.body;
    assert_eq!(cancelled, json!({"id": waiting, "status": "CANCELLED"}));
    assert_eq!(worker.take("room", "w", "").await, None);

    let running = client.run("room", json!({"x": 1})).await;
    worker.take("room", "w", "").await.unwrap();
    let cancel = format!("/v2/room/cancel/{running}");
    let (stop, cancelled) = tokio::join!(worker.get("/v2/room/job-stop/w?gpu=none"), client.post(&cancel, json!({})));
    assert_eq!(cancelled.body["status"], "CANCELLED");
    assert_eq!(stop.body, json!({"jobsToStop": [running]}));
    assert!(!worker.done("room", "w", &running, json!({"output": "late"})).await);
    let status = client.status("room", &running).await;
    assert_eq!(status["status"], "CANCELLED");
    assert!(status.get("output").is_none());
    let again = client.post_nothing(&format!("/v2/room/cancel/{running}")).await.body;
    assert_eq!(again["status"], "CANCELLED");
    assert_eq!(worker.get("/v2/room/job-stop/w?wait=0").await.body, json!({"jobsToStop": []}), "it was told");
}

#[tokio::test]
async fn health_counts_jobs_and_workers() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    for _ in 0..3 {
        client.run("room", json!({"x": 1})).await;
    }
    worker.get("/v2/room/ping/idle?gpu=none&runpod_version=1.12.0").await;
    let done = worker.take("room", "busy", "").await.unwrap();
    worker.done("room", "busy", done["id"].as_str().unwrap(), json!({"output": 1})).await;
    worker.take("room", "busy", "").await.unwrap();
    let health = client.get("/v2/room/health").await.body;
    let jobs = json!({"completed": 1, "failed": 0, "inProgress": 1, "inQueue": 1, "retried": 0});
    let workers = json!({"idle": 1, "initializing": 0, "ready": 2, "running": 1, "throttled": 0, "unhealthy": 0});
    assert_eq!(health, json!({"jobs": jobs, "workers": workers}));
}

#[tokio::test]
async fn a_purge_removes_ones_own_waiting_jobs_and_an_operators_everybodys() {
    let stage = Stage::start().await;
    let (ada, eve, worker) = (stage.client("room", "ada"), stage.client("room", "eve"), stage.worker("room", "bob"));
    let running = ada.run("room", json!({"x": 0})).await;
    worker.take("room", "w", "").await.unwrap();
    let waiting = ada.run("room", json!({"x": 1})).await;
    let others = eve.run("room", json!({"x": 2})).await;
    let purged = ada.post_nothing("/v2/room/purge-queue").await.body;
    assert_eq!(purged, json!({"removed": 1, "status": "completed"}));
    assert_eq!(ada.status("room", &waiting).await["status"], "CANCELLED");
    assert_eq!(ada.status("room", &running).await["status"], "IN_PROGRESS");
    assert_eq!(eve.status("room", &others).await["status"], "IN_QUEUE");
    let requests = eve.get("/v2/room/requests").await.body;
    assert_eq!(requests, json!({"requests": [{"id": others, "status": "IN_QUEUE"}]}));
    assert_eq!(stage.operator().post_nothing("/v2/room/purge-queue").await.body["removed"], 1);
    assert_eq!(eve.status("room", &others).await["status"], "CANCELLED");
}

#[tokio::test]
async fn a_job_is_none_for_others_and_in_other_rooms() {
    let stage = Stage::start().await;
    let (ada, eve) = (stage.client("room", "ada"), stage.client("room", "eve"));
    let id = ada.run("room", json!({"x": 1})).await;
    for path in [format!("/v2/room/status/{id}"), format!("/v2/room/stream/{id}")] {
        assert_eq!(eve.get(&path).await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(eve.post_nothing(&format!("/v2/room/cancel/{id}")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(ada.get(&format!("/v2/other/status/{id}")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(stage.operator().get(&format!("/v2/other/status/{id}")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(stage.operator().get(&format!("/v2/room/status/{id}")).await.status, StatusCode::OK);
    assert_eq!(ada.get("/v2/room/status/job-x").await.status, StatusCode::NOT_FOUND);
    assert_eq!(ada.post("/v2/other/run", json!({"input": 1})).await.status, StatusCode::FORBIDDEN);
    assert_eq!(ada.get("/v2/room/job-take/w?x").await.status, StatusCode::FORBIDDEN, "no right to work");
}

#[tokio::test]
async fn what_is_no_request_says_what_is_wrong() {
    let stage = Stage::start().await;
    let client = stage.client("room", "ada");
    let wrong = [
        json!({}),
        json!([]),
        json!({"input": {"type": "demo_fast"}}),
        json!({"input": {"type": "demo_fast", "prompt": "a", "width": 100_000}}),
        json!({"input": {"x": 1}, "policy": {"ttl": 1}}),
    ];
    for body in wrong {
        let answer = client.post("/v2/room/run", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        assert!(answer.body["error"]["message"].as_str().unwrap().len() > 10);
    }
    let every = stage.operator().post("/v2/_/run", json!({"input": 1})).await;
    assert_eq!(every.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_policy_s_times_end_a_job() {
    let stage = Stage::start_by_hand().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let policy = json!({"executionTimeout": 5000, "ttl": 60_000});
    let body = json!({"input": {"x": 1}, "policy": policy});
    let id = client.post("/v2/room/run", body.clone()).await.body["id"].as_str().unwrap().to_owned();
    worker.take("room", "w", "").await.unwrap();
    stage.app.clock.advance(Duration::from_secs(5));
    let status = client.status("room", &id).await;
    assert_eq!((&status["status"], &status["executionTime"]), (&json!("TIMED_OUT"), &json!(5000)));
    assert_eq!(worker.get("/v2/room/job-stop/w?x").await.body, json!({"jobsToStop": [id]}));
    let again = client.post_nothing(&format!("/v2/room/retry/{id}")).await;
    assert_eq!(again.body["status"], "IN_QUEUE", "what timed out can be tried again");
    stage.app.clock.advance(Duration::from_secs(55));
    assert_eq!(client.get(&format!("/v2/room/status/{id}")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(worker.take("room", "w", "").await, None, "nobody wants it any more");

    let gone = client.post("/v2/room/run", body).await.body["id"].as_str().unwrap().to_owned();
    stage.app.clock.advance(Duration::from_secs(60));
    assert_eq!(worker.take("room", "w", "").await, None, "whoever takes it sees that its time is over");
    assert_eq!(client.get(&format!("/v2/room/status/{gone}")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn low_priority_goes_later() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let body = json!({"input": {"x": "later"}, "policy": {"lowPriority": true}});
    client.post("/v2/room/run", body).await;
    client.run("room", json!({"x": "first"})).await;
    assert_eq!(worker.take("room", "w", "").await.unwrap()["input"]["x"], "first");
}

#[tokio::test]
async fn what_has_no_effect_is_said_and_secrets_stay_here() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let config = json!({"accessId": "id", "accessSecret": "canary"});
    let body = json!({"input": {"x": 1}, "webhook": "http://127.0.0.1:1/hook", "s3Config": config});
    let answer = client.post("/v2/room/run", body).await;
    assert_eq!(answer.body["status"], "IN_QUEUE");
    let notes: Vec<_> = answer.headers.get_all("x-manyhands-note").iter().map(|note| note.to_str().unwrap()).collect();
    assert_eq!(notes.len(), 2);
    assert!(notes[0].contains("webhook") && notes[1].contains("s3Config"), "{notes:?}");
    let job = worker.take("room", "w", "").await.unwrap();
    assert!(!job.to_string().contains("canary"), "{job}");
}

#[tokio::test]
async fn an_input_of_a_type_of_ours_is_checked_and_goes_to_a_worker_with_its_model() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let id = client.run("room", json!({"type": "demo_fast", "prompt": "the sea", "seed": 7})).await;
    assert_eq!(worker.take("room", "w", "&models=sdxl,wan").await, None);
    let job = worker.take("room", "w", "&models=sdxl,demo").await.unwrap();
    let input = &job["input"];
    assert_eq!((&input["task"], &input["model"], &input["seed"]), (&json!("txt2img"), &json!("demo"), &json!(7)));
    assert_eq!((&input["width"], &input["steps"]), (&json!(128), &json!(8)));
    assert!(worker.done("room", "w", &id, painted(input)).await);
    let status = client.status("room", &id).await;
    assert_eq!(status["output"]["images"][0], json!({"filename": "0.png", "type": "base64", "data": PNG}));
    let view = client.get(&format!("/api/jobs/{id}")).await.body;
    assert!(view["files"][0]["path"].as_str().unwrap().starts_with("demo-images/ada/"));
    assert_eq!((&view["type"], &view["source"]), (&json!("demo_fast"), &json!("peer")));
}

#[tokio::test]
async fn a_typed_job_without_a_picture_is_tried_by_others() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let id = client.run("room", json!({"type": "demo_fast", "prompt": "the sea"})).await;
    for reply in [json!({"output": {"images": []}}), json!({"error": "out of memory"}), json!({"output": "text"})] {
        worker.take("room", "w", "").await.unwrap();
        worker.done("room", "w", &id, reply).await;
    }
    let status = client.status("room", &id).await;
    assert_eq!(status["status"], "FAILED", "three tries");
    let error = status["error"].as_str().unwrap();
    assert!(error.contains("gave no picture") && error.contains("out of memory"), "{error}");
}

#[tokio::test]
async fn a_worker_of_ours_does_what_foreign_clients_ask_and_they_are_answered_in_their_words() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let input =
        json!({"prompt": "the sea", "num_inference_steps": 3, "guidance_scale": 2.5, "width": 64, "height": 64});
    let id = client.run("room", input.clone()).await;
    let job = worker.take("room", "w", "&models=demo&dialect=manyhands").await.unwrap();
    let order: queue::Order = serde_json::from_value(job["input"].clone()).unwrap();
    assert_eq!((order.model.as_str(), order.width, order.steps, order.guidance), ("demo", 64, 3, 2.5));
    worker.done("room", "w", &id, painted(&job["input"])).await;
    let output = &client.status("room", &id).await["output"];
    assert_eq!(output["image_url"], json!(format!("data:image/png;base64,{PNG}")));
    assert_eq!(output["seed"], json!(order.seed));
    // Who does not say what it reads is given what came.
    client.run("room", input.clone()).await;
    assert_eq!(worker.take("room", "w", "&models=demo").await.unwrap()["input"], input);
}

#[tokio::test]
async fn a_foreign_worker_does_what_our_clients_ask() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let id = client.run("room", json!({"type": "sdxl_image_fast", "prompt": "the sea"})).await;
    let job = worker.take("room", "sdxl", "&models=sdxl&dialect=sdxl").await.unwrap();
    assert_eq!((&job["input"]["num_inference_steps"], &job["input"]["guidance_scale"]), (&json!(15), &json!(6.0)));
    let uri = format!("data:image/png;base64,{PNG}");
    let output = json!({"images": [uri], "image_url": uri, "seed": 5});
    worker.done("room", "sdxl", &id, json!({ "output": output })).await;
    let view = client.get(&format!("/api/jobs/{id}")).await.body;
    assert_eq!(view["status"], "completed");
    assert_eq!(worker.get("/v2/room/job-take/w?dialect=latin").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn only_who_holds_a_lease_delivers() {
    let stage = Stage::start_by_hand().await;
    let (client, bob, eve) = (stage.client("room", "ada"), stage.worker("room", "bob"), stage.worker("room", "eve"));
    let id = client.run("room", json!({"x": 1})).await;
    assert!(!bob.done("room", "w", &id, json!({"output": "nobody took it"})).await);
    bob.take("room", "w", "").await.unwrap();
    assert!(!eve.done("room", "w", &id, json!({"output": "another user's worker of that name"})).await);
    assert!(!bob.done("room", "w2", &id, json!({"output": "another worker of his"})).await);
    stage.app.clock.advance(LEASE_TIME);
    stage.app.store.expire(stage.app.clock.now()).await.unwrap();
    assert!(!bob.done("room", "w", &id, json!({"output": "too late"})).await);
    bob.take("room", "w2", "").await.unwrap();
    assert!(!bob.done("room", "w", &id, json!({"output": "another has it"})).await);
    assert_eq!(client.status("room", &id).await["status"], "IN_PROGRESS");
    assert!(bob.done("room", "w2", &id, json!({"output": "mine"})).await);
    assert_eq!(client.status("room", &id).await["output"], "mine");
    assert!(!bob.done("room", "w2", &id, json!({"error": "a second word"})).await);
    let gone = bob.post(&format!("/v2/room/job-done/w/{id}?dialect=manyhands"), json!({"output": 1})).await;
    assert_eq!(gone.status, StatusCode::GONE, "a worker of ours wants to know");
}

#[tokio::test]
async fn a_worker_that_hands_back_costs_no_try() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let id = client.run("room", json!({"x": 1})).await;
    for _ in 0..5 {
        worker.take("room", "w", "").await.unwrap();
        assert!(worker.done("room", "w", &id, json!({"handBack": true})).await);
    }
    assert_eq!(client.status("room", &id).await["status"], "IN_QUEUE");
    assert_eq!(client.get("/v2/room/health").await.body["jobs"]["retried"], 0);
}

#[tokio::test]
async fn pings_keep_a_lease_and_tell_what_to_stop() {
    let stage = Stage::start_by_hand().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let id = client.run("room", json!({"x": 1})).await;
    worker.take("room", "w", "&dialect=manyhands").await.unwrap();
    for _ in 0..3 {
        stage.app.clock.advance(LEASE_TIME - Duration::from_secs(1));
        let answer = worker.get(&format!("/v2/room/ping/w?job_id={id},job-of-old&dialect=manyhands")).await;
        assert_eq!(answer.status, StatusCode::OK);
        stage.app.store.expire(stage.app.clock.now()).await.unwrap();
        assert_eq!(client.status("room", &id).await["status"], "IN_PROGRESS");
    }
    assert_eq!(worker.get("/v2/room/job-stop/w?x").await.body, json!({"jobsToStop": ["job-of-old"]}));
    stage.app.clock.advance(LEASE_TIME);
    stage.app.store.expire(stage.app.clock.now()).await.unwrap();
    assert_eq!(client.status("room", &id).await["status"], "IN_QUEUE");
    assert_eq!(worker.get("/v2/room/job-stop/w?x").await.body, json!({"jobsToStop": [id]}), "the lease is over");
}

#[tokio::test]
async fn the_relay_keeps_leases_of_foreign_workers_that_were_just_heard_of() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let id = client.run("room", json!({"x": 1})).await;
    worker.take("room", "w", "").await.unwrap();
    assert_eq!(stage.app.keeper.count(), 1);
    worker.done("room", "w", &id, json!({"output": 1})).await;
    client.run("room", json!({"x": 1})).await;
    worker.take("room", "w", "&dialect=manyhands").await.unwrap();
    assert!(stage.app.keeper.count() <= 1, "a worker of ours keeps its own");
}

#[tokio::test]
async fn who_hung_up_is_given_nothing() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let asking = tokio::time::timeout(Duration::from_millis(300), worker.get("/v2/room/job-take/gone?x"));
    assert!(asking.await.is_err());
    let id = client.run("room", json!({"x": 1})).await;
    assert_eq!(worker.take("room", "here", "").await.unwrap()["id"], json!(id));
}

#[tokio::test]
async fn a_worker_waits_for_a_job_until_the_relay_ends() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let (taken, id) = tokio::join!(worker.get("/v2/room/job-take/w?x"), client.run("room", json!({"x": 1})));
    assert_eq!(taken.body["id"], json!(id));
    let ((), nothing, stop) = tokio::join!(
        async { stage.app.closing.close() },
        worker.get("/v2/room/job-take/w?x"),
        worker.get("/v2/room/job-stop/w?x"),
    );
    assert_eq!(nothing.status, StatusCode::NO_CONTENT);
    assert_eq!(stop.body, json!({"jobsToStop": []}));
}

#[tokio::test]
async fn a_batch_is_what_there_is_at_most() {
    let stage = Stage::start_by_hand().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    for index in 0..3 {
        client.run("room", json!({"x": index})).await;
        stage.app.clock.advance(Duration::from_millis(1));
    }
    let batch = |size| format!("/v2/room/job-take-batch/w?gpu=none&batch_size={size}&job_in_progress=0&wait=0");
    let two = worker.get(&batch(2)).await.body;
    assert_eq!([&two[0]["input"]["x"], &two[1]["input"]["x"], &two[2]], [&json!(0), &json!(1), &Value::Null]);
    assert_eq!(worker.get(&batch(5)).await.body.as_array().unwrap().len(), 1);
    assert_eq!(worker.get(&batch(5)).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn an_operators_worker_is_local_and_serves_every_room() {
    let stage = Stage::start_by_hand().await;
    let operator = stage.operator();
    let (ada, eve) = (stage.client("a", "ada"), stage.client("b", "eve"));
    let one = ada.run("a", json!({"x": 1})).await;
    stage.app.clock.advance(Duration::from_millis(1));
    let other = eve.run("b", json!({"x": 2})).await;
    for (id, client, room) in [(one, ada, "a"), (other, eve, "b")] {
        assert_eq!(operator.take("_", "gpu", "").await.unwrap()["id"], json!(id));
        assert!(operator.done("_", "gpu", &id, json!({"output": 1})).await);
        let view = client.get(&format!("/api/jobs/{id}")).await.body;
        assert_eq!(view["source"], "local");
        assert_eq!(client.get(&format!("/v2/{room}/health")).await.body["workers"]["ready"], 1);
    }
    let token = stage.token(None, "worker", &[Right::Work]);
    let stranger = room::Caller { stage: &stage, token };
    assert_eq!(stranger.get("/v2/_/job-take/w?x").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_picture_put_into_the_store_is_believed_only_where_it_belongs() {
    let stage = Stage::start().await;
    let (client, worker) = (stage.client("room", "ada"), stage.worker("room", "bob"));
    let (bucket, user) = (queue::BucketName::new("demo-images").unwrap(), queue::UserName::new("ada").unwrap());
    let own = stage.app.results.put(&bucket, &user, &png()).await.unwrap();
    let others = stage.app.results.put(&bucket, &queue::UserName::new("eve").unwrap(), &png()).await.unwrap();
    let id = client.run("room", json!({"type": "demo_fast", "prompt": "the sea"})).await;
    let stored = |path: &str| json!({"output": {"images": [{"filename": "0.png", "type": "stored", "data": path}]}});
    for path in [others.as_str(), "demo-images/ada/nothing.png", "../../etc/passwd"] {
        worker.take("room", "w", "").await.unwrap();
        worker.done("room", "w", &id, stored(path)).await;
        assert_ne!(client.status("room", &id).await["status"], "COMPLETED", "{path}");
        if path.starts_with("..") {
            client.post_nothing(&format!("/v2/room/retry/{id}")).await;
        }
    }
    worker.take("room", "w", "").await.unwrap();
    worker.done("room", "w", &id, stored(&own)).await;
    let output: Value = client.status("room", &id).await["output"].clone();
    assert_eq!(output["images"][0], json!({"filename": "0.png", "type": "base64", "data": PNG}));
}
