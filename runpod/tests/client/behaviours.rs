//! Every misbehaviour once: what the client says of it, and what the meter says that it cost.

use std::time::Duration;

use runpod::emulator::{Behaviour, Emulator, Orders, Settings};
use runpod::{CallError, Client, ClientLimits, End, FailureKind, Policy, RunError, RunRequest, Status};
use serde_json::json;

use crate::stage::{CANARY, LONG, Relay, client, request, settings, start};

/// A client that does not wait long and reads little.
fn impatient(emulator: &Emulator) -> Client {
    let call_time_max = Duration::from_secs(1);
    client(&emulator.base(), ClientLimits { call_time_max, ..ClientLimits::default() })
}

/// Runs a job that misbehaves so until it has ended.
async fn ended(behaviour: Behaviour) -> (Emulator, End) {
    let (emulator, client) = start(settings()).await;
    emulator.behave(Orders::next(behaviour));
    let job = client.run(&request("one")).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    (emulator, last.end().unwrap())
}

async fn failed(behaviour: Behaviour) -> runpod::Failure {
    match ended(behaviour).await.1 {
        End::Failed(failure) => failure,
        other => panic!("{behaviour:?}: {other:?}"),
    }
}

/// The error of `/run`, and whether the endpoint took the job all the same.
async fn refused(behaviour: Behaviour) -> (RunError, bool) {
    let (emulator, patient) = start(settings()).await;
    emulator.behave(Orders::next(behaviour));
    let is_slow = matches!(behaviour, Behaviour::TimeoutAfterAccept | Behaviour::SlowBody);
    let client = if is_slow { impatient(&emulator) } else { patient };
    let error = client.run(&request("one")).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains(CANARY), "{error:?}");
    (error, emulator.meter().jobs_taken > 0)
}

#[tokio::test]
async fn a_lost_answer_of_whatever_kind_is_unknown_and_the_job_runs() {
    let ways = [
        Behaviour::TimeoutAfterAccept,
        Behaviour::ErrorAfterAccept,
        Behaviour::CutAfterAccept,
        Behaviour::SlowBody,
        Behaviour::HugeBody,
    ];
    for way in ways {
        let (error, is_taken) = refused(way).await;
        assert!(matches!(error, RunError::Unknown { .. }), "{way:?}: {error:?}");
        assert!(is_taken && !error.is_certain(), "{way:?}");
    }
}

#[tokio::test]
async fn a_fault_before_anything_was_taken_cannot_be_told_from_one_after() {
    let (error, is_taken) = refused(Behaviour::Fault).await;
    assert!(matches!(error, RunError::Unknown { .. }), "{error:?}");
    assert!(!is_taken);
}

#[tokio::test]
async fn a_definite_refusal_is_certain_and_nothing_was_taken() {
    type Fits = fn(&RunError) -> bool;
    let ways: [(Behaviour, Fits); 5] = [
        (Behaviour::Throttle, |error| *error == RunError::Throttled { retry_after: Some(Duration::from_secs(1)) }),
        (Behaviour::AuthRevoked, |error| *error == RunError::Unauthorised),
        (Behaviour::OutOfFunds, |error| matches!(error, RunError::OutOfFunds { .. })),
        (Behaviour::OutOfFundsSaid, |error| matches!(error, RunError::OutOfFunds { .. })),
        (Behaviour::Refuse, |error| matches!(error, RunError::Refused { status: 400, .. })),
    ];
    for (way, fits) in ways {
        let (error, is_taken) = refused(way).await;
        assert!(fits(&error) && error.is_certain() && !is_taken, "{way:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_revoked_key_stops_everything_until_it_is_accepted_again() {
    let (emulator, client) = start(settings()).await;
    let job = client.run(&request("one")).await.unwrap();
    emulator.behave(Orders::always(&[Behaviour::AuthRevoked]));
    assert_eq!(client.status(&job.id).await, Err(CallError::Unauthorised));
    assert_eq!(client.run(&request("two")).await, Err(RunError::Unauthorised));
    emulator.behave(Orders::always(&[]));
    assert!(client.wait(&job.id, LONG, |_| ()).await.is_ok());
}

#[tokio::test]
async fn looks_that_fail_for_a_while_are_repeated_and_then_tell() {
    let (emulator, client) = start(settings()).await;
    let job = client.run(&request("one")).await.unwrap();
    let next_call = vec![Some(Behaviour::Throttle), Some(Behaviour::Fault)];
    emulator.behave(Orders { next_call, ..Orders::default() });
    assert_eq!(client.wait(&job.id, LONG, |_| ()).await.unwrap().status, Status::Completed);
}

#[tokio::test]
async fn a_slow_look_ends_and_a_huge_one_is_not_read() {
    let (emulator, patient) = start(settings()).await;
    let job = patient.run(&request("one")).await.unwrap();
    patient.wait(&job.id, LONG, |_| ()).await.unwrap();
    emulator.behave(Orders::next_call(Behaviour::SlowBody));
    let slow = impatient(&emulator).status(&job.id).await.unwrap_err();
    assert_eq!(slow, CallError::Unreachable { reason: "it took too long".to_owned() });
    emulator.behave(Orders::next_call(Behaviour::HugeBody));
    assert_eq!(patient.status(&job.id).await, Err(CallError::TooLarge { bytes_max: 24_000_000 }));
}

#[tokio::test]
async fn a_job_delivered_twice_runs_twice_without_claims_and_once_with_them() {
    let relay = Relay::start().await;
    let claim = json!({"url": relay.url("/claim"), "nonce": "once"});
    for (claim, runs) in [(None, 2), (Some(claim), 1)] {
        let (emulator, client) = start(settings()).await;
        emulator.behave(Orders::next(Behaviour::DoubleDelivery));
        let mut request = request("one");
        if let Some(claim) = claim {
            request.input["_claim"] = claim;
        }
        let job = client.run(&request).await.unwrap();
        assert_eq!(client.wait(&job.id, LONG, |_| ()).await.unwrap().status, Status::Completed);
        emulator.ended(&job.id).await;
        let meter = emulator.meter();
        assert_eq!((meter.given[job.id.as_str()], meter.runs_by_ref["one"]), (2, runs));
        assert_eq!(meter.doubled().len(), usize::from(runs == 2));
        assert_eq!(meter.claims_refused, u64::from(runs == 1));
    }
}

#[tokio::test]
async fn a_worker_that_dies_has_its_job_run_again_and_a_claim_prevents_that() {
    let (emulator, end) = ended(Behaviour::WorkerDies).await;
    assert!(matches!(end, End::Completed(_)));
    assert_eq!(emulator.meter().runs_by_ref["one"], 2, "the endpoint's own retry");
    let relay = Relay::start().await;
    let (emulator, client) = start(settings()).await;
    emulator.behave(Orders::next(Behaviour::WorkerDies));
    let mut request = request("one");
    request.input["_claim"] = json!({"url": relay.url("/claim"), "nonce": "once"});
    let job = client.run(&request).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    assert_eq!(last.status, Status::Failed, "{last:?}");
    assert_eq!(emulator.meter().runs_by_nonce["once"], 1);
}

#[tokio::test]
async fn a_worker_that_cannot_claim_does_not_begin() {
    let (emulator, client) = start(settings()).await;
    let relay = Relay::start().await;
    let mut request = request("one");
    request.input["_claim"] = json!({"url": relay.url("/nowhere"), "nonce": "once"});
    let job = client.run(&request).await.unwrap();
    assert_eq!(client.wait(&job.id, LONG, |_| ()).await.unwrap().status, Status::Failed);
    assert_eq!(emulator.meter().runs_in_all(), 0);
}

#[tokio::test]
async fn a_webhook_may_be_forged_late_and_told_thrice() {
    let relay = Relay::start().await;
    let (emulator, client) = start(settings()).await;
    let hooked = || RunRequest { webhook: Some(relay.url("/hook")), ..request("one") };
    emulator.behave(Orders::next(Behaviour::ForgedWebhook));
    let job = client.run(&hooked()).await.unwrap();
    relay.told(1).await;
    assert_eq!(relay.hooks()[0]["output"]["images"], json!(["forged"]));
    client.wait(&job.id, LONG, |_| ()).await.unwrap();
    relay.told(2).await;
    assert_eq!(relay.hooks()[1]["id"], json!(job.id.as_str()));
    emulator.behave(Orders::next(Behaviour::LateWebhook));
    let job = client.run(&hooked()).await.unwrap();
    client.wait(&job.id, LONG, |_| ()).await.unwrap();
    emulator.advance(Duration::from_secs(60));
    relay.told(5).await;
    assert!(relay.hooks()[2..].iter().all(|hook| hook["id"] == json!(job.id.as_str())));
}

#[tokio::test]
async fn a_webhook_that_fails_is_told_twice_more() {
    let relay = Relay::start().await;
    relay.refuse_hooks(2);
    let (_emulator, client) = start(settings()).await;
    client.run(&RunRequest { webhook: Some(relay.url("/hook")), ..request("one") }).await.unwrap();
    relay.told(3).await;
    assert_eq!(relay.hooks().len(), 1);
}

#[tokio::test]
async fn a_job_that_vanished_is_gone_and_was_paid() {
    let (emulator, client) = start(settings()).await;
    emulator.behave(Orders::next(Behaviour::Vanish));
    let job = client.run(&request("one")).await.unwrap();
    assert_eq!(client.status(&job.id).await, Err(CallError::Gone));
    emulator.ended(&job.id).await;
    assert_eq!(emulator.meter().runs_by_ref["one"], 1);
}

#[tokio::test]
async fn a_job_past_its_ttl_is_gone_even_while_it_runs() {
    let (emulator, client) = start(Settings { execution: Duration::from_secs(1000), ..settings() }).await;
    let policy = Some(Policy { ttl: Some(Duration::from_secs(300)), ..Policy::default() });
    let job = client.run(&RunRequest { policy, ..request("one") }).await.unwrap();
    emulator.advance(Duration::from_secs(300));
    assert_eq!(client.status(&job.id).await, Err(CallError::Gone));
    assert_eq!(emulator.meter().runs_by_ref["one"], 1);
}

#[tokio::test]
async fn a_stuck_job_is_in_progress_until_it_is_called_off() {
    let (emulator, client) = start(settings()).await;
    emulator.behave(Orders::next(Behaviour::Stuck));
    let job = client.run(&request("one")).await.unwrap();
    emulator.ended(&job.id).await;
    emulator.advance(Duration::from_secs(3600));
    assert_eq!(client.status(&job.id).await.unwrap().status, Status::InProgress);
    assert_eq!(client.cancel(&job.id).await.unwrap().status, Status::Cancelled);
}

#[tokio::test]
async fn an_absurd_time_is_told_as_it_is_and_the_price_bounds_it() {
    let (emulator, client) = start(settings()).await;
    emulator.behave(Orders::next(Behaviour::WrongCost));
    let job = client.run(&request("one")).await.unwrap();
    let last = client.wait(&job.id, LONG, |_| ()).await.unwrap();
    assert!(last.execution.unwrap() > Duration::from_secs(900_000_000));
    let price = queue::Price {
        per_second: Settings::default().price_per_second,
        cold_start_max: Duration::from_secs(60),
        execution_max: Duration::from_secs(120),
        idle: Duration::from_secs(5),
    };
    assert!(price.measured(last.delay.unwrap(), last.execution.unwrap()) <= price.worst());
}

#[tokio::test]
async fn a_failure_says_why_in_one_line_and_keeps_its_traceback_apart() {
    let failure = failed(Behaviour::FailRaised).await;
    assert_eq!(failure.kind, FailureKind::Worker);
    assert_eq!(failure.complaint.message, "CUDA error: out of memory");
    assert!(failure.complaint.traceback.unwrap().contains("/app/handler.py"));
    let message = failed(Behaviour::Fail).await.complaint.message;
    assert!(message.starts_with("the model could not be loaded"), "{message}");
}

#[tokio::test]
async fn completed_without_a_result_is_a_failure() {
    assert_eq!(failed(Behaviour::NoOutput).await.kind, FailureKind::ResultMissing);
}

#[tokio::test]
async fn a_status_that_nobody_has_heard_of_is_progress() {
    let (emulator, client) = start(Settings { execution: Duration::from_secs(1000), ..settings() }).await;
    emulator.behave(Orders::next(Behaviour::OddStatus));
    let job = client.run(&request("one")).await.unwrap();
    emulator.advance(Duration::from_secs(10));
    let status = client.status(&job.id).await.unwrap();
    assert_eq!((status.status, status.unknown_status.as_deref()), (Status::InProgress, Some("WARMING_UP")));
}

#[tokio::test]
async fn a_picture_is_put_where_the_input_says() {
    let relay = Relay::start().await;
    let (emulator, client) = start(settings()).await;
    let mut request = request("one");
    let place = json!({"put": relay.url("/files/a.png"), "path": "bucket/user/a.png"});
    request.input["_output"] = json!({ "put": [place] });
    let job = client.run(&request).await.unwrap();
    let Some(End::Completed(output)) = client.wait(&job.id, LONG, |_| ()).await.unwrap().end() else { panic!() };
    let pictures = runpod::read_output(&output, runpod::Dialect::Manyhands).unwrap();
    assert_eq!(pictures, [runpod::Picture::Stored("bucket/user/a.png".to_owned())]);
    assert_eq!(runpod::Mime::of(&relay.files()[0].1), Some(runpod::Mime::Png));
    assert_eq!(emulator.meter().pictures_put, 1);
}
