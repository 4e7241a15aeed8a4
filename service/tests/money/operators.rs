//! What the cloud's workers and the operator ask of the relay.

use queue::{MicroUsd, Mode, Owner, RoomName, Source, Status};
use runpod::emulator::{Behaviour, Orders};
use serde_json::{Value, json};
use service::limits::WORKER_SEEN_TIME;

use crate::stage::{KEY, Stage, Wish};

#[tokio::test(flavor = "multi_thread")]
async fn the_kill_switch_stops_what_is_new_and_survives_the_relay() {
    let mut stage = Stage::set(Wish::default()).await;
    assert_eq!(stage.post("/api/cloud/switch", &json!({ "on": false })).await, (200, json!({ "is_on": false })));
    stage.crash().await;
    stage.drive();
    let id = stage.submit("room", "ada").await;
    let route = stage.until(async || stage.job(&id).await.route).await;
    assert!(route.contains("switched off"), "{route}");
    assert_eq!(stage.emulator.meter().jobs_taken, 0);
    assert_eq!(stage.get("/api/cloud").await["is_on"], false);
    stage.post("/api/cloud/switch", &json!({ "on": true })).await;
    assert_eq!(stage.ended(&id).await.status(), Status::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_tells_entries_savings_and_what_is_left() {
    let stage = Stage::set(Wish::default()).await;
    let id = stage.submit("room", "ada").await;
    stage.ended(&id).await;
    let ledger = stage.get("/api/ledger?room=room&user=ada").await;
    let kinds: Vec<&Value> = ledger["entries"].as_array().unwrap().iter().map(|entry| &entry["kind"]).collect();
    assert_eq!(kinds, ["hold", "release", "charge"]);
    let charged = ledger["report"]["charged_usd"].as_f64().unwrap();
    assert!(charged > 0.0 && ledger["report"]["jobs"]["cloud"] == 1, "{ledger}");
    for budget in ["total", "day", "room_day", "user_day"] {
        let line = &ledger["budgets"][budget];
        let sum = line["left_usd"].as_f64().unwrap() + line["spent_or_held_usd"].as_f64().unwrap();
        assert!((sum - line["limit_usd"].as_f64().unwrap()).abs() < 1e-6, "{ledger}");
        assert_eq!(line["spent_or_held_usd"].as_f64(), Some(charged), "{ledger}");
    }
    let next = ledger["next"].as_u64().unwrap();
    let rest = stage.get(&format!("/api/ledger?after={next}")).await;
    assert_eq!(rest["entries"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_granted_once_and_a_guess_never() {
    let stage = Stage::set(Wish::default()).await;
    let (status, _) = stage.post("/api/claim", &json!({ "nonce": "guess", "id": "x" })).await;
    assert_eq!(status, 409);
    // The worker starts after 8 s and claims; whoever comes second with its nonce is refused.
    let id = stage.submit("room", "ada").await;
    stage.until(async || (stage.emulator.meter().runs_in_all() == 1).then_some(())).await;
    let nonce = stage.emulator.meter().runs_by_nonce.keys().next().unwrap().clone();
    let (status, answer) = stage.post("/api/claim", &json!({ "nonce": nonce, "id": "y" })).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("conflict")));
    assert_eq!(stage.ended(&id).await.status(), Status::Completed);
    let long = json!({ "nonce": "n".repeat(100_000) });
    assert_eq!(stage.post("/api/claim", &long).await.0, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_known_by_its_token_alone() {
    let stage = Stage::set(Wish::default()).await;
    let id = stage.submit("room", "ada").await;
    stage.ended(&id).await;
    for token in ["x", &format!("{id}.1.00000000000000000000000000000000"), "job-a.1.b"] {
        let (status, _) = stage.post(&format!("/api/webhook/{token}"), &json!({ "id": "forged" })).await;
        assert_eq!(status, 404, "{token}");
    }
    stage.until(async || (stage.emulator.meter().webhooks_taken > 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_cancels_pays_for_what_ran_and_gets_nothing_more() {
    let stage = Stage::set(Wish { speed: 20.0, ..Wish::default() }).await;
    let id = stage.submit("room", "ada").await;
    stage.until(async || (stage.emulator.meter().runs_in_all() == 1).then_some(())).await;
    stage.store.cancel(&id, stage.clock.now()).await.unwrap();
    let settled = stage.until(async || {
        let report = stage.store.report(None).await.unwrap();
        (report.held == MicroUsd(0)).then_some(report)
    });
    let report = settled.await;
    assert!(report.charged > MicroUsd(0));
    assert_eq!(stage.job(&id).await.status(), Status::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_in_no_answer_and_no_job() {
    let stage = Stage::set(Wish::default()).await;
    stage.behave(Orders::always(&[Behaviour::Refuse]));
    let id = stage.submit("room", "ada").await;
    let job = stage.until(async || Some(stage.job(&id).await).filter(|job| !job.reasons.is_empty())).await;
    let cloud = stage.get("/api/cloud").await.to_string();
    let ledger = stage.get("/api/ledger").await.to_string();
    for text in [format!("{job:?}"), cloud, ledger, format!("{:?}", stage.app.cloud)] {
        assert!(!text.contains(KEY), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_for_whoever_is_best_overflows_where_no_worker_is() {
    let stage = Stage::set(Wish::default()).await;
    let id = stage.submit_as("room", "ada", Mode::Auto, true).await;
    let job = stage.ended(&id).await;
    assert_eq!(job.status(), Status::Completed);
    assert!(job.route.unwrap().contains("only the cloud can do it now"));
    let queue::JobState::Completed(output) = job.state else { panic!("it is completed") };
    let [file] = output.files.as_slice() else { panic!("{output:?}") };
    assert_eq!(stage.app.results.inspect(file).await.unwrap(), service::results::FileKind::Png);
    let local = stage.submit_as("room", "ada", Mode::Local, true).await;
    stage.until(async || stage.job(&local).await.route).await;
    assert_eq!(stage.emulator.meter().jobs_taken, 1, "a job for workers alone never overflows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_submitters_time_is_over_is_called_off_and_never_paid_for() {
    let mut stage = Stage::set_still(Wish::default()).await;
    let waiting = stage.submit_overdue("room", "ada").await;
    // A relay died after it held the money, and before it asked.
    let held = stage.submit_overdue("room", "ada").await;
    stage.hold(&held).await;
    stage.drive();
    for id in [&waiting, &held] {
        assert_eq!(stage.ended(id).await.status(), Status::Cancelled);
    }
    let settled = async || {
        let report = stage.store.report(None).await.unwrap();
        (report.held == MicroUsd(0)).then_some(report.charged)
    };
    assert_eq!(stage.until(settled).await, MicroUsd(0));
    assert_eq!(stage.emulator.meter().jobs_taken, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_starts_waits_for_workers_before_it_pays_for_what_they_can_do() {
    let await_workers = WORKER_SEEN_TIME;
    let mut stage = Stage::set_still(Wish { await_workers, ..Wish::default() }).await;
    let [auto, cloud] = [Mode::Auto, Mode::Cloud].map(|mode| stage.submit_as("room", "ada", mode, true));
    let (auto, cloud) = (auto.await, cloud.await);
    let start = stage.clock.now();
    stage.drive();
    let begun = |job: &queue::Job| job.started.unwrap().since(start);
    let [auto, cloud] = [stage.ended(&auto).await, stage.ended(&cloud).await];
    assert_eq!((auto.status(), cloud.status()), (Status::Completed, Status::Completed));
    assert!(begun(&auto) >= await_workers, "{:?}", begun(&auto));
    assert!(cloud.started < auto.started, "no worker can do what is for the cloud alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_relay_hears_of_workers_every_relay_on_its_queue_knows() {
    let stage = Stage::set(Wish::default()).await;
    let (other, _order) = stage.beside();
    let (room, worker) = (RoomName::new("room").unwrap(), Owner::new("worker").unwrap());
    let known = async || {
        stage.app.workers.seen(&room, &worker, Source::Peer, None, stage.clock.now());
        let workers = other.workers.of(&room, other.clock.now());
        (!workers.is_empty()).then_some(workers)
    };
    assert_eq!(stage.until(known).await[0].owner, worker);
}
