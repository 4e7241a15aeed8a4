//! Every operation of the contract, as it should be.

use std::time::Duration;

use runpod::emulator::{Behaviour, Orders, Settings};
use runpod::{
    BaseError, CallError, Client, ClientLimits, Dialect, End, Key, Picture, Policy, RemoteId, RunError, RunRequest,
    Status, WaitError, read_output, read_seed,
};
use serde_json::json;

use crate::stage::{CANARY, LONG, client, request, settings, start};

#[tokio::test]
async fn a_job_is_run_looked_at_and_gives_a_picture() {
    let (emulator, client) = start(settings()).await;
    let job = client.run(&request("one")).await.unwrap();
    assert_eq!(job.status, Status::InQueue);
    let mut seen = Vec::new();
    let last = client.wait(&job.id, LONG, |status| seen.push(status.status)).await.unwrap();
    let Some(End::Completed(output)) = last.end() else { panic!("{last:?}") };
    let pictures = read_output(&output, Dialect::Manyhands).unwrap();
    assert!(matches!(pictures.as_slice(), [Picture::Bytes(_, _)]));
    assert_eq!(read_seed(&output), Some(7));
    assert!(last.delay.unwrap() >= Duration::from_secs(8), "the cold start is told: {last:?}");
    assert!(last.execution.unwrap() >= Duration::from_secs(3));
    assert_eq!(seen.last(), Some(&Status::Completed));
    assert_eq!(emulator.meter().runs_by_ref["one"], 1);
}

#[tokio::test]
async fn runsync_gives_the_result_or_where_the_job_is() {
    let (_emulator, client) = start(Settings { workers_max: 0, ..settings() }).await;
    let job = client.runsync(&request("one"), Duration::from_secs(1)).await.unwrap();
    assert_eq!(job.status, Status::InQueue);
    let (_emulator, client) = start(settings()).await;
    let job = client.runsync(&request("one"), Duration::from_secs(90)).await.unwrap();
    assert_eq!(job.status, Status::Completed);
    assert!(job.id.as_str().starts_with("sync-"));
}

#[tokio::test]
async fn what_a_job_yields_is_drained_and_ends() {
    let (emulator, client) = start(settings()).await;
    let job = client.run(&RunRequest::new(json!({"_stream": [1, {"a": 2}], "width": 8, "height": 8}))).await.unwrap();
    client.wait(&job.id, LONG, |_| ()).await.unwrap();
    assert_eq!(client.stream(&job.id).await.unwrap().items, [json!(1), json!({"a": 2})]);
    assert!(client.stream(&job.id).await.unwrap().is_over());
    drop(emulator);
}

#[tokio::test]
async fn a_cancelled_job_stays_cancelled_and_costs_no_run() {
    let (emulator, client) = start(Settings { speed: 1.0, ..settings() }).await;
    let job = client.run(&request("one")).await.unwrap();
    assert_eq!(client.cancel(&job.id).await.unwrap().status, Status::Cancelled);
    emulator.advance(LONG);
    assert_eq!(client.status(&job.id).await.unwrap().end(), Some(End::Cancelled));
    assert_eq!(emulator.meter().runs_in_all(), 0);
    assert!(emulator.meter().worker_seconds > 0, "its worker was started, which is paid");
}

#[tokio::test]
async fn what_waits_is_purged_and_health_tells_of_both() {
    let (_emulator, client) = start(Settings { workers_max: 0, ..settings() }).await;
    for name in ["one", "two"] {
        client.run(&request(name)).await.unwrap();
    }
    let health = client.health().await.unwrap();
    assert_eq!((health.jobs.in_queue, health.workers.running), (Some(2), Some(0)));
    assert!(health.trouble(1).is_some());
    assert_eq!(client.purge().await.unwrap(), Some(2));
    assert_eq!(client.health().await.unwrap().jobs.in_queue, Some(0));
}

#[tokio::test]
async fn only_a_failed_job_is_retried_under_its_id() {
    let (emulator, client) = start(Settings { speed: 1.0, ..settings() }).await;
    emulator.behave(Orders::next(Behaviour::Overrun));
    let policy = Some(Policy { execution_timeout: Some(Duration::from_secs(5)), ..Policy::default() });
    let job = client.run(&RunRequest { policy, ..request("one") }).await.unwrap();
    emulator.advance(Duration::from_secs(8 + 5));
    assert_eq!(client.status(&job.id).await.unwrap().status, Status::TimedOut);
    let again = client.retry(&job.id).await.unwrap();
    assert_eq!((again.id, again.status), (job.id.clone(), Status::InQueue));
    assert!(matches!(client.retry(&job.id).await, Err(RunError::Refused { status: 400, .. })));
    assert_eq!(client.health().await.unwrap().jobs.retried, Some(1));
}

#[tokio::test]
async fn a_job_is_called_off_when_its_time_is_over() {
    let (emulator, client) = start(Settings { workers_max: 0, ..settings() }).await;
    let job = client.run(&request("one")).await.unwrap();
    let overdue = client.wait(&job.id, Duration::from_millis(1), |_| ()).await;
    assert_eq!(overdue, Err(WaitError::Overdue { is_cancelled: true }));
    assert_eq!(client.status(&job.id).await.unwrap().status, Status::Cancelled);
    drop(emulator);
}

#[tokio::test]
async fn a_result_is_kept_for_half_an_hour_and_a_synchronous_one_for_a_minute() {
    let (emulator, client) = start(settings()).await;
    let job = client.run(&request("one")).await.unwrap();
    client.wait(&job.id, LONG, |_| ()).await.unwrap();
    emulator.advance(Duration::from_secs(25 * 60));
    assert_eq!(client.status(&job.id).await.unwrap().status, Status::Completed);
    emulator.advance(Duration::from_secs(6 * 60));
    assert_eq!(client.status(&job.id).await, Err(CallError::Gone));
    let job = client.runsync(&request("two"), Duration::from_secs(90)).await.unwrap();
    emulator.advance(Duration::from_secs(61));
    assert_eq!(client.status(&job.id).await, Err(CallError::Gone));
}

#[tokio::test]
async fn a_job_that_is_not_there_and_an_endpoint_that_is_not_there_differ() {
    let (emulator, there) = start(settings()).await;
    assert_eq!(there.status(&RemoteId::new("nobody-e1").unwrap()).await, Err(CallError::Gone));
    let elsewhere = client(&emulator.base().replace("/emu", "/other"), ClientLimits::default());
    assert!(matches!(elsewhere.run(&request("one")).await, Err(RunError::Refused { status: 404, .. })));
    assert!(matches!(elsewhere.health().await, Err(CallError::Refused { status: 404, .. })));
}

#[tokio::test]
async fn a_wrong_key_is_not_accepted_and_not_repeated() {
    let (emulator, _) = start(settings()).await;
    let wrong = Client::new(&emulator.base(), Key::new("rpa_WRONG").unwrap(), ClientLimits::default()).unwrap();
    assert_eq!(wrong.run(&request("one")).await, Err(RunError::Unauthorised));
    assert_eq!(wrong.health().await, Err(CallError::Unauthorised));
    assert_eq!(emulator.meter().jobs_taken, 0);
}

#[tokio::test]
async fn who_cannot_be_reached_was_certainly_not_asked() {
    let (emulator, client) = start(settings()).await;
    let id = client.run(&request("one")).await.unwrap().id;
    emulator.stop().await;
    let error = client.run(&request("two")).await.unwrap_err();
    assert!(matches!(error, RunError::NotAsked { .. }), "{error:?}");
    assert!(error.is_certain());
    assert!(!format!("{error} {error:?} {client:?}").contains(CANARY), "{error:?}");
    assert!(!error.to_string().contains("/v2/"), "nor the address: {error}");
    assert!(client.status(&id).await.unwrap_err().is_passing());
}

#[tokio::test]
async fn too_large_a_request_is_not_sent() {
    let (emulator, client) = start(settings()).await;
    let request = RunRequest::new(json!({"init": "x".repeat(10_000_000)}));
    assert!(matches!(client.run(&request).await, Err(RunError::TooLarge { bytes_max: 10_000_000, .. })));
    assert_eq!(emulator.meter().jobs_taken, 0);
    assert!(client.runsync(&request, LONG).await.is_ok(), "twice as much may be sent to wait for");
}

#[tokio::test]
async fn the_rate_is_limited_and_passes() {
    let (emulator, client) = start(Settings { run_calls_max: 3, speed: 0.01, ..settings() }).await;
    for name in ["one", "two", "three"] {
        client.run(&request(name)).await.unwrap();
    }
    assert!(matches!(client.run(&request("four")).await, Err(RunError::Throttled { .. })));
    emulator.advance(Duration::from_secs(10));
    assert!(client.run(&request("four")).await.is_ok());
}

#[test]
fn a_key_never_travels_unencrypted_to_another_machine() {
    let made = Client::new("http://example.com/v2/a", Key::new(CANARY).unwrap(), ClientLimits::default());
    assert_eq!(made.unwrap_err(), BaseError::NotEncrypted);
}
