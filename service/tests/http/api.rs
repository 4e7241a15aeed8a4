//! What clients and workers can rely on.

use std::collections::BTreeSet;
use std::time::Duration;

use queue::RoomName;
use queue::limits::LEASE_TIME;
use reqwest::StatusCode;
use serde_json::{Value, json};
use service::Settings;
use service::access::Right;
use service::api::stats;
use service::limits::WORKER_SEEN_TIME;
use store::limits::Limits;

use crate::support::{MEMBER, ROOM, TestService, USER, picture_output, png, unlimited};

fn queue_path() -> String {
    format!("/api/queue/{ROOM}")
}

fn worker(service: &TestService) -> String {
    service.token(Some(ROOM), "bob", &[Right::Work])
}

async fn show(service: &TestService, id: &str) -> Value {
    service.get(&format!("/api/jobs/{id}"), &service.member()).await.json()
}

#[tokio::test]
async fn a_job_is_queued_taken_painted_and_shown() {
    let service = TestService::start().await;
    let body = json!({ "type": "demo_fast", "prompt": "a lake", "seed": 5 });
    let submitted = service.post(&queue_path(), &service.member(), body).await;
    assert_eq!(submitted.status, StatusCode::ACCEPTED);
    let job = submitted.json()["jobs"][0].clone();
    let id = job["id"].as_str().unwrap();
    assert_eq!(submitted.header("location"), format!("/api/jobs/{id}"));
    assert_eq!((&job["status"], &job["position"], &job["version"]), (&json!("queued"), &json!(0), &json!(1)));
    assert_eq!((&job["order"]["prompt"], &job["order"]["seed"]), (&json!("a lake"), &json!(5)));
    assert_eq!((&job["cost_usd"], &job["progress"]), (&json!(0.0), &json!(0.0)));
    let expected = service.app.catalogue.types().find(|one| one.id.as_str() == "demo_fast").unwrap().expected;
    assert_eq!(job["eta_s"], json!(expected.as_secs_f64()));

    let token = worker(&service);
    let work = service.take(&token, "gpu-1").await;
    assert_eq!(work.status, StatusCode::OK);
    let work = work.json();
    assert_eq!((&work["id"], &work["type"]), (&json!(id), &json!("demo_fast")));
    assert_eq!((&work["input"]["prompt"], &work["input"]["task"]), (&json!("a lake"), &json!("txt2img")));
    assert_eq!(work["lease"], json!({ "fence": 1, "seconds": 10, "beat_every_s": 3 }));
    let (beat, deliver) = (work["urls"]["beat"].as_str().unwrap(), work["urls"]["deliver"].as_str().unwrap());
    service.advance(Duration::from_secs(1));
    let beaten = service.post(beat, &token, json!({ "fence": 1, "progress": 0.25 })).await;
    assert_eq!((beaten.status, &beaten.json()["status"]), (StatusCode::OK, &json!("processing")));
    let job = show(&service, id).await;
    assert_eq!((&job["status"], &job["progress"], &job["eta_s"]), (&json!("processing"), &json!(0.25), &json!(3.0)));

    let delivered = service.post(deliver, &token, json!({ "fence": 1, "output": picture_output(&png(500)) })).await;
    assert_eq!((delivered.status, &delivered.json()["status"]), (StatusCode::OK, &json!("completed")));
    let job = show(&service, id).await;
    assert_eq!(
        (&job["status"], &job["source"], &job["output"]["seed"]),
        (&json!("completed"), &json!("peer"), &json!(7))
    );
    assert_eq!(job["files"][0]["mime"], "image/png");
    let (created, finished) = (job["created_ms"].as_u64().unwrap(), job["finished_ms"].as_u64().unwrap());
    assert_eq!(finished - created, 1000);
    let picture = service.send(service.request("GET", job["files"][0]["url"].as_str().unwrap(), None)).await;
    assert_eq!((picture.status, picture.bytes), (StatusCode::OK, png(500)));
}

#[tokio::test]
async fn an_unknown_job_is_none_and_a_cancelled_one_says_so() {
    let service = TestService::start().await;
    let token = service.member();
    for id in ["job-unknown", "a%20b", &"a".repeat(100)] {
        for end in ["", "/events"] {
            let answer = service.get(&format!("/api/jobs/{id}{end}"), &token).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{id}{end}");
            let stranger = service.get(&format!("/api/jobs/{id}{end}"), "rubbish").await;
            assert_eq!(stranger.status, StatusCode::UNAUTHORIZED, "whoever has no token learns nothing");
        }
    }
    let id = service.submit("a lake").await;
    let path = format!("/api/jobs/{id}");
    assert_eq!(service.delete(&path, &token).await.json()["status"], "cancelled");
    assert_eq!(service.delete(&path, &token).await.json()["status"], "cancelled", "twice is once");
    assert_eq!(show(&service, &id).await["status"], "cancelled");
    assert_eq!(service.take(&worker(&service), "").await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn what_has_ended_is_not_called_off() {
    let service = TestService::start().await;
    let id = service.submit("a lake").await;
    let token = worker(&service);
    let fence = service.take(&token, "").await.json()["lease"]["fence"].clone();
    service.deliver(&id, &token, &fence).await;
    let refused = service.delete(&format!("/api/jobs/{id}"), &service.member()).await;
    assert_eq!((refused.status, refused.code().as_str()), (StatusCode::CONFLICT, "conflict"));
    assert_eq!(show(&service, &id).await["status"], "completed");
}

#[tokio::test]
async fn a_worker_is_told_to_stop_when_its_job_is_called_off() {
    let service = TestService::start().await;
    let id = service.submit("a lake").await;
    let token = worker(&service);
    let fence = service.take(&token, "").await.json()["lease"]["fence"].clone();
    service.delete(&format!("/api/jobs/{id}"), &service.member()).await;
    let beat = service.post(&format!("/api/jobs/{id}/beat"), &token, json!({ "fence": fence })).await;
    assert_eq!((beat.status, beat.code().as_str()), (StatusCode::GONE, "cancelled"));
    assert!(!service.deliver(&id, &token, &fence).await.status.is_success());
    assert_eq!(show(&service, &id).await["status"], "cancelled");
}

#[tokio::test]
async fn asking_twice_with_one_key_is_one_job() {
    let service = TestService::start().await;
    let token = service.member();
    let body = json!({ "type": "demo_fast", "prompt": "a lake", "images": 2 });
    let ask = async |key: &str, body: &Value| {
        let request = service.request("POST", &queue_path(), Some(&token)).header("idempotency-key", key).json(body);
        service.send(request).await
    };
    let ids = |answer: &Value| -> Vec<Value> {
        answer["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()).collect()
    };
    let first = ask("k1", &body).await;
    let second = ask("k1", &body).await;
    assert_eq!((first.status, second.status), (StatusCode::ACCEPTED, StatusCode::OK));
    assert_eq!(ids(&first.json()), ids(&second.json()));
    assert_eq!(ids(&first.json()).len(), 2);
    let in_body = json!({ "type": "demo_fast", "prompt": "a lake", "images": 2, "idempotency_key": "k1" });
    assert_eq!(ids(&service.post(&queue_path(), &token, in_body.clone()).await.json()), ids(&first.json()));
    assert_eq!(ask("k2", &in_body).await.status, StatusCode::BAD_REQUEST, "two keys are no key");
    assert_eq!(ask("a b", &body).await.status, StatusCode::BAD_REQUEST);
    let eve = service.token(Some(ROOM), "eve", MEMBER);
    let request = service.request("POST", &queue_path(), Some(&eve)).header("idempotency-key", "k1").json(&body);
    assert_eq!(service.send(request).await.status, StatusCode::ACCEPTED, "a key is its user's own");
}

#[tokio::test]
async fn a_submission_that_a_full_room_refused_is_queued_whole_when_it_comes_again() {
    let limits = Limits { unfinished_per_room_max: 3, ..Limits::default() };
    let service = TestService::within(limits, unlimited()).await;
    let first = service.submit("a lake").await;
    let body = json!({ "type": "demo_fast", "prompt": "a sea", "images": 3, "idempotency_key": "k" });
    let refused = service.post(&queue_path(), &service.member(), body.clone()).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{}", refused.message());
    assert_eq!(service.app.store.list(None, 10).await.unwrap().len(), 1, "nothing of it is there");
    service.delete(&format!("/api/jobs/{first}"), &service.member()).await;
    let again = service.post(&queue_path(), &service.member(), body).await;
    let json = again.json();
    let states: Vec<&str> = json["jobs"].as_array().unwrap().iter().filter_map(|job| job["status"].as_str()).collect();
    assert_eq!((again.status, states), (StatusCode::ACCEPTED, vec!["queued"; 3]));
}

#[tokio::test]
async fn pictures_of_one_submission_have_seeds_of_their_own() {
    let service = TestService::start().await;
    let body = json!({ "type": "demo_fast", "prompt": "a", "seed": 10, "images": 2 });
    let jobs = service.post(&queue_path(), &service.member(), body).await.json()["jobs"].clone();
    assert_eq!((&jobs[0]["order"]["seed"], &jobs[1]["order"]["seed"]), (&json!(10), &json!(11)));
}

#[tokio::test]
async fn a_submission_that_cannot_be_done_is_refused_with_what_to_do() {
    let service = TestService::start().await;
    for (body, word) in [
        (json!({ "type": "no_such_type", "prompt": "a" }), "GET /api/job-types"),
        (json!({ "type": "demo_fast" }), "prompt"),
        (json!({ "type": "demo_fast", "prompt": "a", "steps": 100_000 }), "steps"),
        (json!({ "type": "demo_fast", "prompt": "a", "width": 65 }), "width"),
        (json!({ "type": "demo_fast", "prompt": "a", "prio": 1 }), "priority"),
        (json!({ "type": "sdxl_img2img", "prompt": "a" }), "init image"),
        (json!({ "type": "video_fast", "prompt": "a", "mode": "local" }), "cloud"),
        (json!([]), "not what is read here"),
    ] {
        let answer = service.post(&queue_path(), &service.member(), body.clone()).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::BAD_REQUEST, "wrong_request"), "{body}");
        assert!(answer.message().contains(word), "{body}: {}", answer.message());
    }
}

#[tokio::test]
async fn only_who_may_spend_is_taken_to_the_cloud() {
    let service = TestService::start().await;
    let body = json!({ "type": "demo_fast", "prompt": "a", "mode": "cloud" });
    assert_eq!(service.post(&queue_path(), &service.member(), body.clone()).await.status, StatusCode::FORBIDDEN);
    let clip = json!({ "type": "video_fast", "prompt": "a" });
    assert_eq!(service.post(&queue_path(), &service.member(), clip).await.status, StatusCode::FORBIDDEN);
    let auto = json!({ "type": "demo_fast", "prompt": "a" });
    let spender = service.token(Some(ROOM), USER, &[Right::Submit, Right::Spend]);
    let mut may_spend = Vec::new();
    for (token, body) in [(service.member(), &auto), (spender.clone(), &auto), (spender, &body)] {
        let answer = service.post(&queue_path(), &token, body.clone()).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        let id = answer.json()["jobs"][0]["id"].as_str().unwrap().to_owned();
        let job = service.app.store.job(&queue::JobId::new(id).unwrap()).await.unwrap().unwrap();
        may_spend.push(job.order.may_spend);
    }
    assert_eq!(may_spend, [false, true, true]);
}

#[tokio::test]
async fn the_list_of_a_room_shows_places_and_times_and_nothing_of_others() {
    let service = TestService::start().await;
    let eve = service.token(Some(ROOM), "eve", MEMBER);
    let own = service.submit("my own words").await;
    let body = json!({ "type": "demo_fast", "prompt": "eves secret words", "priority": 1 });
    let answer = service.post(&queue_path(), &eve, body).await;
    let theirs = answer.json()["jobs"][0]["id"].as_str().unwrap().to_owned();
    let seen = service.get(&queue_path(), &service.member()).await;
    let text = String::from_utf8(seen.bytes.clone()).unwrap();
    for secret in ["eves secret", "my own words", "\"eve\"", theirs.as_str()] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let jobs = seen.json()["jobs"].clone();
    assert_eq!((&jobs[0]["position"], jobs[0].get("id")), (&json!(0), None), "the higher priority goes first");
    assert_eq!((&jobs[1]["position"], &jobs[1]["id"]), (&json!(1), &json!(own)));
    let eta = |index: usize| jobs[index]["eta_s"].as_f64().unwrap();
    assert!(eta(1) >= 1.9 * eta(0), "{jobs}");
    let single = show(&service, &own).await;
    assert_eq!((&single["position"], &single["eta_s"]), (&jobs[1]["position"], &jobs[1]["eta_s"]), "both say the same");
    let elsewhere = service.token(Some("elsewhere"), USER, MEMBER);
    assert_eq!(service.get("/api/queue/elsewhere", &elsewhere).await.json()["jobs"], json!([]));
}

#[tokio::test]
async fn times_are_told_by_what_was_measured() {
    let service = TestService::start().await;
    let token = worker(&service);
    for _ in 0..3 {
        let id = service.submit("a").await;
        let fence = service.take(&token, "").await.json()["lease"]["fence"].clone();
        service.advance(Duration::from_secs(9));
        assert_eq!(service.deliver(&id, &token, &fence).await.status, StatusCode::OK);
    }
    let (first, second) = (service.submit("b").await, service.submit("c").await);
    assert_eq!(show(&service, &first).await["eta_s"], json!(9.0));
    assert_eq!(show(&service, &second).await["eta_s"], json!(18.0));
    service.take(&token, "").await;
    service.advance(Duration::from_secs(4));
    assert_eq!(show(&service, &first).await["eta_s"], json!(5.0), "what is left of it");
    assert_eq!(show(&service, &second).await["eta_s"], json!(9.0));
}

#[tokio::test]
async fn two_workers_halve_the_wait_and_one_without_the_model_does_not() {
    let service = TestService::start().await;
    let token = worker(&service);
    let join = async |name: &str, model: &str| {
        let body = json!({ "worker": name, "models": [model], "wait_s": 0 });
        service.post(&format!("/api/join/{ROOM}"), &token, body).await
    };
    for (name, model) in [("a", "demo"), ("b", "other")] {
        assert_eq!(join(name, model).await.status, StatusCode::NO_CONTENT);
    }
    let mut last = String::new();
    for prompt in ["a", "b", "c"] {
        last = service.submit(prompt).await;
    }
    let eta = async || show(&service, &last).await["eta_s"].as_f64().unwrap();
    let alone = eta().await;
    join("c", "demo").await; // It takes the first job, so that one is left before the last.
    let one = alone / 3.0;
    assert!((eta().await - 1.5 * one).abs() < 0.11, "{alone}: {}", eta().await);
}

#[tokio::test]
async fn a_rooms_answer_says_who_is_there_and_a_strangers_does_not() {
    let service = TestService::start().await;
    let ready = async |path: &str, token: Option<&str>| {
        let types = service.send(service.request("GET", path, token)).await.json();
        types.as_array().unwrap().iter().find(|one| one["id"] == "demo_fast").unwrap()["ready"].clone()
    };
    let (member, room) = (service.member(), format!("/api/job-types/{ROOM}"));
    assert_eq!(ready(&room, Some(&member)).await, json!([]));
    let body = json!({ "worker": "a", "models": ["demo"], "wait_s": 0 });
    service.post(&format!("/api/join/{ROOM}"), &worker(&service), body.clone()).await;
    assert_eq!(ready(&room, Some(&member)).await, json!(["peer"]));
    assert_eq!(ready("/api/job-types", None).await, json!([]), "who is in a room is no stranger's business");
    service.post("/api/join/_", &service.operator(), body).await;
    assert_eq!(ready(&room, Some(&member)).await, json!(["local", "peer"]));
    assert_eq!(ready("/api/job-types", None).await, json!(["local"]));
    service.advance(WORKER_SEEN_TIME + Duration::from_millis(1));
    assert_eq!(ready(&room, Some(&member)).await, json!([]), "nobody was heard of for long");
}

#[tokio::test]
async fn a_worker_of_every_room_is_the_operators_and_is_there_while_it_beats() {
    let service = TestService::start().await;
    let id = service.submit("a lake").await;
    let body = json!({ "worker": "a", "models": ["demo"], "wait_s": 0 });
    let member = service.post("/api/join/_", &service.token(Some("_"), "eve", MEMBER), body.clone()).await;
    assert_eq!(member.status, StatusCode::FORBIDDEN);
    let operator = service.operator();
    let work = service.post("/api/join/_", &operator, body).await.json();
    assert_eq!(work["id"], json!(id));
    let room = RoomName::new(ROOM).unwrap();
    for _ in 0..3 {
        service.advance(WORKER_SEEN_TIME / 2);
        let beat = json!({ "fence": work["lease"]["fence"] });
        assert_eq!(service.post(&format!("/api/jobs/{id}/beat"), &operator, beat).await.status, StatusCode::OK);
        let seen = service.app.workers.of(&room, service.app.clock.now());
        assert_eq!(seen.iter().map(|one| one.is_busy).collect::<Vec<_>>(), [true], "once, and at work");
    }
    service.deliver(&id, &operator, &work["lease"]["fence"]).await;
    assert!(!service.app.workers.of(&room, service.app.clock.now())[0].is_busy);
}

#[tokio::test]
async fn a_job_taken_for_a_worker_that_hung_up_goes_back() {
    let service = TestService::start().await;
    let token = worker(&service);
    let path = format!("/api/join/{ROOM}");
    let waiting = service.request("POST", &path, Some(&token)).json(&json!({ "wait_s": 20 })).send();
    // It waits for its answer, and then does not any more.
    assert!(tokio::time::timeout(Duration::from_millis(200), waiting).await.is_err());
    let id = service.submit("a lake").await;
    let other = service.post(&path, &token, json!({ "worker": "other", "wait_s": 20 })).await;
    assert_eq!((other.status, &other.json()["id"]), (StatusCode::OK, &json!(id)));
}

#[tokio::test]
async fn what_comes_under_a_lease_that_has_ended_changes_nothing() {
    let service = TestService::start().await;
    let id = service.submit("a lake").await;
    let token = worker(&service);
    let late = service.take(&token, "slow").await.json()["lease"]["fence"].clone();
    service.advance(LEASE_TIME);
    service.app.store.expire(service.app.clock.now()).await.unwrap();
    let fence = service.take(&token, "quick").await.json()["lease"]["fence"].clone();
    assert_eq!((late.clone(), fence.clone()), (json!(1), json!(2)));
    let refused = service.deliver(&id, &token, &late).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let beat = service.post(&format!("/api/jobs/{id}/beat"), &token, json!({ "fence": late })).await;
    assert_eq!((beat.status, beat.code().as_str()), (StatusCode::CONFLICT, "stale"));
    assert_eq!(show(&service, &id).await["status"], "processing");
    assert_eq!(service.deliver(&id, &token, &fence).await.status, StatusCode::OK);
    assert_eq!(service.deliver(&id, &token, &fence).await.status, StatusCode::CONFLICT, "twice is once");
}

#[tokio::test]
async fn a_fence_is_no_lease_in_somebody_elses_hands() {
    let service = TestService::start().await;
    let id = service.submit("a lake").await;
    let (token, mallory) = (worker(&service), service.token(Some(ROOM), "mallory", &[Right::Work]));
    let fence = service.take(&token, "gpu").await.json()["lease"]["fence"].clone();
    for (end, body) in [
        ("beat", json!({ "fence": fence, "progress": 1.0 })),
        ("deliver", json!({ "fence": fence, "output": picture_output(&png(10)) })),
        ("deliver", json!({ "fence": fence, "error": "no", "is_final": true })),
        ("deliver", json!({ "fence": fence, "handed_back": true })),
    ] {
        let refused = service.post(&format!("/api/jobs/{id}/{end}"), &mallory, body).await;
        assert_eq!((refused.status, refused.code().as_str()), (StatusCode::CONFLICT, "stale"), "{end}");
    }
    let job = show(&service, &id).await;
    assert_eq!((&job["status"], &job["progress"]), (&json!("processing"), &json!(0.0)));
    assert_eq!(service.deliver(&id, &token, &fence).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_job_that_is_handed_back_or_fails_goes_to_others_until_it_is_given_up() {
    let service = TestService::start().await;
    let id = service.submit("a lake").await;
    let token = worker(&service);
    let end = async |body: Value| {
        let fence = service.take(&token, "").await.json()["lease"]["fence"].clone();
        let mut body = body;
        body["fence"] = fence;
        service.post(&format!("/api/jobs/{id}/deliver"), &token, body).await.json()["status"].clone()
    };
    assert_eq!(end(json!({ "handed_back": true })).await, "queued");
    assert_eq!(end(json!({ "error": "out of memory" })).await, "queued");
    assert_eq!(end(json!({ "error": "the model is broken", "is_final": true })).await, "failed");
    let job = show(&service, &id).await;
    assert_eq!((&job["status"], &job["error"]), (&json!("failed"), &json!("out of memory; the model is broken")));
    let odd = service.post(&format!("/api/jobs/{id}/deliver"), &token, json!({ "fence": 1 })).await;
    assert_eq!(odd.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn whoever_waits_for_work_gets_it_when_it_comes() {
    let service = TestService::start().await;
    let token = worker(&service);
    let path = format!("/api/join/{ROOM}");
    let waiting = service.post(&path, &token, json!({ "wait_s": 20 }));
    let (work, id) = tokio::join!(waiting, service.submit("a lake"));
    assert_eq!((work.status, work.json()["id"].as_str()), (StatusCode::OK, Some(id.as_str())));
}

#[tokio::test]
async fn a_worker_is_not_given_what_its_submitter_has_no_time_for_any_more() {
    let service = TestService::start().await;
    let run = json!({ "input": { "x": 1 }, "policy": { "ttl": 10_000 } });
    let late = service.post(&format!("/v2/{ROOM}/run"), &service.member(), run).await.json()["id"].clone();
    service.advance(Duration::from_secs(10));
    let wanted = service.submit("a lake").await;
    let work = service.take(&worker(&service), "w").await;
    assert_eq!(work.json()["id"], wanted);
    let late = service.app.store.job(&queue::JobId::new(late.as_str().unwrap()).unwrap()).await.unwrap().unwrap();
    assert_eq!(late.status(), queue::Status::Cancelled);
}

#[tokio::test]
async fn a_worker_is_given_what_it_can_do() {
    let service = TestService::start().await;
    service.submit("a lake").await;
    let token = worker(&service);
    let join = async |models: Value| {
        let body = json!({ "wait_s": 0, "models": models });
        service.post(&format!("/api/join/{ROOM}"), &token, body).await.status
    };
    assert_eq!(join(json!(["other"])).await, StatusCode::NO_CONTENT);
    assert_eq!(join(json!(["other", "demo"])).await, StatusCode::OK);
    assert_eq!(join(json!(vec!["m"; 100])).await, StatusCode::BAD_REQUEST);
    let odd = service.post(&format!("/api/join/{ROOM}"), &token, json!({ "worker": "a/b", "wait_s": 0 })).await;
    assert_eq!(odd.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_operators_worker_is_local_and_others_are_peers() {
    let service = TestService::start().await;
    for (token, source) in [(service.operator(), "local"), (worker(&service), "peer")] {
        let id = service.submit("a lake").await;
        service.take(&token, "").await;
        assert_eq!(show(&service, &id).await["source"], source);
    }
}

#[tokio::test]
async fn the_words_of_a_job_are_its_owners_alone() {
    let service = TestService::start().await;
    let token = worker(&service);
    let (done, failed) = (service.submit("a lake").await, service.submit("a lake").await);
    let fence = service.take(&token, "").await.json()["lease"]["fence"].clone();
    let output = json!({ "images": picture_output(&png(100))["images"], "info": "painted a lake" });
    let path = |id: &str| format!("/api/jobs/{id}/deliver");
    service.post(&path(&done), &token, json!({ "fence": fence, "output": output })).await;
    let fence = service.take(&token, "").await.json()["lease"]["fence"].clone();
    let error = json!({ "fence": fence, "error": "cannot paint a lake", "is_final": true });
    service.post(&path(&failed), &token, error).await;
    for (id, status, shown) in [(&done, "completed", "output"), (&failed, "failed", "error")] {
        let own = show(&service, id).await;
        assert!(own["order"]["prompt"] == "a lake" && own.get(shown).is_some(), "{own}");
        let operator = service.get(&format!("/api/jobs/{id}"), &service.operator()).await.json();
        assert_eq!((&operator["status"], &operator["files"]), (&json!(status), &json!([])));
        assert!(!operator.to_string().contains("a lake"), "{operator}");
    }
}

#[tokio::test]
async fn the_relay_says_what_it_can_do_and_how_it_is() {
    let service = TestService::start().await;
    let open = async |path: &str| service.send(service.request("GET", path, None)).await;
    let health = open("/api/health").await;
    assert_eq!(
        (health.status, &health.json()["ready"], &health.json()["database"]),
        (StatusCode::OK, &json!(true), &json!("ok"))
    );
    let types = open("/api/job-types").await.json();
    let clip = types.as_array().unwrap().iter().find(|one| one["id"] == "video_fast").unwrap();
    assert_eq!(clip["processors"], json!(["cloud"]));
    assert_eq!(clip["ready"], json!([]));
    let id = service.submit("a").await;
    service.submit("b").await;
    service.delete(&format!("/api/jobs/{id}"), &service.member()).await;
    let told = serde_json::to_value(stats(&service.app).await.unwrap()).unwrap();
    assert_eq!((&told["queued"], &told["cancelled"]), (&json!(1), &json!(1)));
    let document = open("/api/docs").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert!(document["paths"]["/api/queue/{room}"]["post"].is_object());
}

#[tokio::test]
async fn numbers_have_few_labels_and_none_of_them_is_a_name() {
    let service = TestService::start().await;
    let token = worker(&service);
    let id = service.submit("a").await;
    let fence = service.take(&token, "gpu").await.json()["lease"]["fence"].clone();
    service.deliver(&id, &token, &fence).await;
    service.get("/api/jobs/none", &service.member()).await;
    let metrics = service.send(service.request("GET", "/metrics", None)).await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    let text = String::from_utf8(metrics.bytes).unwrap();
    for line in [
        "manyhands_jobs_submitted_total 1",
        "manyhands_jobs_ended_total{status=\"completed\",source=\"peer\"} 1",
        "manyhands_deliveries_total{outcome=\"completed\"} 1",
        "manyhands_http_requests_total{method=\"GET\",route=\"/api/jobs/{id}\",status=\"4xx\"} 1",
        "manyhands_store_call_seconds_count{operation=\"take\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    for name in [ROOM, USER, "bob", id.as_str(), "none\""] {
        assert!(!text.contains(&format!("\"{name}")), "{name} is a label");
    }
    let labels: BTreeSet<&str> =
        text.split(['{', ',']).filter_map(|part| part.split_once("=\"")).map(|(name, _)| name).collect();
    let known = ["le", "method", "operation", "outcome", "route", "source", "status"];
    assert!(labels.iter().all(|label| known.contains(label)), "{labels:?}");
}

#[tokio::test]
async fn what_is_old_is_forgotten_with_its_files() {
    let service = TestService::with(Settings { keep_days: 3650, ..unlimited() }).await;
    let id = service.submit("a").await;
    let token = worker(&service);
    let fence = service.take(&token, "").await.json()["lease"]["fence"].clone();
    service.deliver(&id, &token, &fence).await;
    let path = show(&service, &id).await["files"][0]["path"].as_str().unwrap().to_owned();
    service.app.sweep().await.unwrap();
    assert!(service.app.results.get(&path).await.is_ok());
    // Far beyond the machine's own clock, by which files are dated.
    service.advance(Duration::from_secs(100 * 366 * 86_400));
    service.app.sweep().await.unwrap();
    assert!(service.app.results.get(&path).await.is_err());
    assert!(service.app.store.job(&queue::JobId::new(id).unwrap()).await.unwrap().is_none());
}
