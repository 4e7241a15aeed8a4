//! Every way an endpoint can misbehave, one job each: what becomes of the job, and what is paid.

use queue::{MicroUsd, Status};
use runpod::emulator::{Behaviour, Meter, Orders};
use service::cloud::Rules;

use crate::audit::{Audit, audit, compare};
use crate::stage::{Stage, WORST, Wish};

/// One job whose first call of `/run` misbehaves; everything that can be said afterwards.
struct Told {
    status: Status,
    attempts: u32,
    runs: u32,
    refused_claims: u64,
    audit: Audit,
}

async fn after(behaviour: Behaviour) -> Told {
    let stage = Stage::set(Wish::default()).await;
    stage.behave(Orders::next(behaviour));
    let id = stage.submit("room", "ada").await;
    let (status, attempts) = stage.end_of(&id).await;
    let audit = audit(&*stage.store, &stage.app.cloud.rules().budgets).await;
    let meter: Meter = stage.emulator.meter();
    compare(&audit, &meter);
    assert_eq!(audit.held, MicroUsd(0), "nothing stays held");
    let runs = meter.runs_by_ref.get(id.as_str()).copied().unwrap_or(0);
    Told { status, attempts, runs, refused_claims: meter.claims_refused, audit }
}

/// The job is done by its first attempt, once.
async fn first_attempt_does_it(behaviour: Behaviour) -> Told {
    let told = after(behaviour).await;
    let Told { status, attempts, runs, .. } = told;
    assert_eq!((status, attempts, runs), (Status::Completed, 1, 1), "{behaviour:?}");
    told
}

/// The first attempt ends, and only then the second does the job.
async fn second_attempt_does_it(behaviour: Behaviour) -> Told {
    let told = after(behaviour).await;
    let Told { status, attempts, .. } = told;
    assert_eq!((status, attempts), (Status::Completed, 2), "{behaviour:?}");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_after_the_job_was_taken_is_found_by_its_claim() {
    for behaviour in [Behaviour::TimeoutAfterAccept, Behaviour::ErrorAfterAccept, Behaviour::CutAfterAccept] {
        first_attempt_does_it(behaviour).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_workers_with_one_job_one_runs_it() {
    let told = first_attempt_does_it(Behaviour::DoubleDelivery).await;
    assert!(told.refused_claims <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_and_forged_webhooks_change_nothing() {
    for behaviour in [Behaviour::LateWebhook, Behaviour::ForgedWebhook] {
        first_attempt_does_it(behaviour).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_its_endpoint_does_not_know_any_more_is_paid_in_full() {
    let told = second_attempt_does_it(Behaviour::Vanish).await;
    assert!(told.audit.charged > WORST, "{:?}", told.audit);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_stuck_in_progress_ends_at_its_deadline_and_is_paid_in_full() {
    let told = second_attempt_does_it(Behaviour::Stuck).await;
    assert!(told.audit.charged > WORST, "{:?}", told.audit);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_cost_is_no_more_than_was_held() {
    let told = first_attempt_does_it(Behaviour::WrongCost).await;
    assert!(told.audit.charged <= WORST);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_asks_for_fewer_calls_is_asked_again_under_the_same_hold() {
    let told = first_attempt_does_it(Behaviour::Throttle).await;
    assert_eq!(told.audit.attempts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_ends_is_a_lost_one() {
    for behaviour in [Behaviour::SlowBody, Behaviour::HugeBody] {
        // Its status cannot be read either, so time ends it.
        let told = second_attempt_does_it(behaviour).await;
        assert!(told.audit.charged > WORST, "{behaviour:?}: {:?}", told.audit);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_which_nothing_was_taken_costs_nothing_in_the_end() {
    let told = second_attempt_does_it(Behaviour::Fault).await;
    assert_eq!(told.runs, 1);
    assert!(told.audit.charged < WORST, "{:?}", told.audit);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_and_an_empty_account_open_the_breaker_at_once() {
    for behaviour in [Behaviour::AuthRevoked, Behaviour::OutOfFunds, Behaviour::OutOfFundsSaid] {
        let stage = Stage::set(Wish::default()).await;
        stage.behave(Orders::next(behaviour));
        let id = stage.submit("room", "ada").await;
        let cloud = stage.until(async || {
            let cloud = stage.get("/api/cloud").await;
            let is_open = !cloud["endpoints"][0]["not_asked_because"].is_null();
            is_open.then_some(cloud)
        });
        let cloud = cloud.await;
        assert_eq!(stage.emulator.meter().jobs_taken, 0, "{behaviour:?}: {cloud}");
        // After the cool-down one job tries it, and it is well.
        let (status, attempts) = stage.end_of(&id).await;
        assert_eq!((status, attempts), (Status::Completed, 2), "{behaviour:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_failure_is_followed_by_one_more_attempt() {
    let failures = [
        Behaviour::Refuse,
        Behaviour::Fail,
        Behaviour::FailRaised,
        Behaviour::NoOutput,
        Behaviour::Overrun,
        Behaviour::WorkerDies,
    ];
    for behaviour in failures {
        second_attempt_does_it(behaviour).await;
    }
    first_attempt_does_it(Behaviour::OddStatus).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_claims_a_lost_answer_is_paid_in_full_and_never_asked_again_before_its_time() {
    let stage = Stage::set(Wish { claims: false, ..Wish::default() }).await;
    // Its webhook is late as well, so that nothing tells of it.
    stage.behave(Orders::next(Behaviour::Fault));
    let id = stage.submit("room", "ada").await;
    let (status, attempts) = stage.end_of(&id).await;
    assert_eq!((status, attempts), (Status::Completed, 2));
    let audit = audit(&*stage.store, &stage.app.cloud.rules().budgets).await;
    assert!(audit.charged > WORST, "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_breaker_opens_within_three_failures() {
    let stage = Stage::set(Wish { in_flight_max: 1, ..Wish::default() }).await;
    stage.behave(Orders::always(&[Behaviour::Fail]));
    for _ in 0..10 {
        stage.submit("room", "ada").await;
    }
    let cloud = stage.until(async || {
        let cloud = stage.get("/api/cloud").await;
        let is_open = !cloud["endpoints"][0]["not_asked_because"].is_null();
        is_open.then_some(cloud)
    });
    cloud.await;
    assert_eq!(stage.emulator.meter().jobs_taken, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_without_a_budget_a_right_or_a_key_that_may_spend() {
    let nothing = Wish { budgets: Rules::default().budgets, ..Wish::default() };
    let stage = Stage::set(nothing).await;
    let id = stage.submit("room", "ada").await;
    let route = stage.until(async || stage.job(&id).await.route).await;
    assert!(route.contains("budget"), "{route}");
    let without_right = stage.submit_as("room", "eve", queue::Mode::Cloud, false).await;
    let job = stage.ended(&without_right).await;
    let queue::JobState::Failed(reason) = job.state else { panic!("{job:?}") };
    assert!(reason.contains("no right to spend"), "{reason}");
    assert_eq!(stage.emulator.meter().jobs_taken, 0);
    assert_eq!(stage.job(&id).await.status(), Status::Queued);
}
