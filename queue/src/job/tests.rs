//! What a job's life allows and what it does not.

use super::*;

const START: UnixMs = UnixMs(1_000_000);

fn order(priority: i32) -> NewJob {
    NewJob {
        room: RoomName::new("room").unwrap(),
        user: UserName::new("user").unwrap(),
        key: None,
        ask: None,
        model: None,
        input: "{}".to_owned(),
        mode: Mode::Auto,
        quality: Quality::Final,
        priority,
        expected: Duration::from_secs(1),
        webhook: None,
        deadlines: Deadlines::default(),
        may_spend: false,
    }
}

fn job() -> Job {
    Job::new(JobId::from_random([1; 16]), order(0), START)
}

fn leased(job: &mut Job, at: UnixMs) -> u64 {
    job.lease(Owner::new("worker").unwrap(), Source::Peer, at).unwrap().fence
}

fn done() -> Outcome {
    Outcome::Completed { output: Output::default(), cost: MicroUsd(3) }
}

fn failed(is_final: bool) -> Outcome {
    Outcome::Failed { reason: "out of memory".to_owned(), is_final, cost: MicroUsd(2) }
}

#[test]
fn a_result_under_an_older_lease_changes_nothing() {
    let mut job = job();
    let old = leased(&mut job, START);
    assert_eq!(job.expire(START.after(LEASE_TIME)), Change::Requeued);
    let new = leased(&mut job, START.after(LEASE_TIME));
    let before = job.clone();
    assert_eq!(job.finish(old, done(), START), Err(LeaseError::Stale));
    assert_eq!(job.beat(old, None, START), Err(LeaseError::Stale));
    assert_eq!(job, before);
    assert_eq!(job.finish(new, done(), START), Ok(Change::Ended));
    assert_eq!((job.status(), job.cost), (Status::Completed, MicroUsd(3)));
    assert_eq!(job.finish(new, failed(false), START), Err(LeaseError::Stale), "it ends once");
}

#[test]
fn a_leased_job_cannot_be_leased_again() {
    let mut job = job();
    leased(&mut job, START);
    assert_eq!(job.lease(Owner::new("other").unwrap(), Source::Peer, START), None);
}

#[test]
fn a_heartbeat_moves_the_end_and_progress_never_goes_back() {
    let mut job = job();
    let fence = leased(&mut job, START);
    let progress = |permille| Some(Progress { permille, note: None });
    let later = START.after(Duration::from_secs(9));
    job.beat(fence, progress(500), later).unwrap();
    assert_eq!(job.expire(START.after(LEASE_TIME)), Change::None);
    job.beat(fence, progress(400), later).unwrap();
    assert_eq!(job.progress.permille, 500);
    assert_eq!(job.expire(later.after(LEASE_TIME)), Change::Requeued);
    assert_eq!(job.progress.permille, 0);
}

#[test]
fn three_failures_end_a_job_with_their_reasons_and_a_certain_one_at_once() {
    let mut patient = job();
    for tries in 1..=TRIES_MAX {
        let fence = leased(&mut patient, START);
        let change = patient.finish(fence, failed(false), START).unwrap();
        assert_eq!(change, if tries < TRIES_MAX { Change::Requeued } else { Change::Ended });
    }
    assert_eq!(patient.state, JobState::Failed("out of memory; out of memory; out of memory".to_owned()));
    assert_eq!(patient.cost, MicroUsd(6), "what was charged for tries is the job's");
    let mut certain = job();
    let fence = leased(&mut certain, START);
    assert_eq!(certain.finish(fence, failed(true), START), Ok(Change::Ended));
    assert_eq!(certain.retry(), Change::Requeued);
    assert_eq!((certain.status(), certain.tries), (Status::Queued, 0));
}

#[test]
fn a_job_handed_back_loses_no_try() {
    let mut job = job();
    let fence = leased(&mut job, START);
    assert_eq!(job.finish(fence, Outcome::HandedBack, START), Ok(Change::Requeued));
    assert_eq!((job.tries, job.status()), (0, Status::Queued));
}

#[test]
fn a_cancelled_job_tells_its_worker_so_and_stays_cancelled() {
    let mut job = job();
    let fence = leased(&mut job, START);
    assert_eq!(job.cancel(START), Change::Ended);
    assert_eq!(job.beat(fence, None, START), Err(LeaseError::Cancelled));
    assert_eq!(job.finish(fence, done(), START), Err(LeaseError::Cancelled));
    assert_eq!(job.cancel(START), Change::None);
    assert_eq!(job.retry(), Change::None);
}

#[test]
fn only_a_waiting_job_can_be_refused() {
    let mut job = job();
    leased(&mut job, START);
    assert_eq!(job.refuse("nobody can do it", START), Change::None);
}

#[test]
fn the_clouds_lease_ends_only_with_its_attempt() {
    let mut job = job();
    job.lease(Owner::new("cloud:gpu").unwrap(), Source::Cloud, START).unwrap();
    assert_eq!(job.expire(UnixMs(u64::MAX)), Change::None);
}

#[test]
fn waiting_outweighs_priority_in_the_end() {
    let urgent = |created| Job::new(JobId::from_random([2; 16]), order(5), created);
    let patient = job();
    assert!(urgent(START).rank() < patient.rank());
    assert!(urgent(START.after(6 * AGEING_EVERY)).rank() > patient.rank());
}

#[test]
fn reasons_are_short_plain_text() {
    assert_eq!(cut("a\nb\u{1b}[0m"), "a b [0m");
    assert_eq!(cut(&"ä".repeat(1000)).len(), REASON_BYTES_MAX);
}

#[test]
fn a_job_is_overdue_as_its_submitter_says() {
    let second = Duration::from_secs(1);
    let mut job = job();
    assert_eq!(job.overdue(UnixMs(u64::MAX)), None, "nothing was said");
    job.order.deadlines = Deadlines { ttl: Some(60 * second), execution: Some(5 * second) };
    assert_eq!(job.overdue(START.after(59 * second)), None, "waiting is not executing");
    leased(&mut job, START.after(10 * second));
    assert_eq!(job.overdue(START.after(14 * second)), None);
    assert_eq!(job.overdue(START.after(15 * second)), Some(Overdue::TooSlow));
    assert_eq!(job.overdue(START.after(60 * second)), Some(Overdue::Gone));
    job.finish(1, done(), START.after(14 * second)).unwrap();
    assert_eq!(job.overdue(START.after(59 * second)), None);
    assert_eq!(job.overdue(START.after(60 * second)), Some(Overdue::Gone), "whatever became of it");
}

#[test]
fn the_clouds_time_is_its_attempts_business() {
    let mut job = job();
    job.order.deadlines.execution = Some(Duration::from_secs(5));
    job.lease(Owner::new("cloud:gpu").unwrap(), Source::Cloud, START).unwrap();
    assert_eq!(job.overdue(UnixMs(u64::MAX)), None);
}

#[test]
fn a_head_is_the_job_without_what_may_be_long() {
    let long = "x".repeat(100_000);
    let mut job = job();
    job.order.input = long.clone();
    job.route = Some("waits".to_owned());
    let fence = leased(&mut job, START);
    let progress = Progress { permille: 5, note: Some(long.clone()) };
    job.beat(fence, Some(progress), START).unwrap();
    let whole = job.clone();
    let head = job.head();
    assert!(serde_json::to_string(&head).unwrap().len() < 1000);
    assert_eq!(Job { order: whole.order.clone(), progress: whole.progress.clone(), ..head }, whole);
    let output = Output { json: Some(long), files: vec!["bucket/ada/file.png".to_owned()] };
    job.finish(fence, Outcome::Completed { output, cost: MicroUsd::default() }, START).unwrap();
    let JobState::Completed(output) = job.head().state else { panic!("it is completed") };
    assert_eq!((output.json, output.files.len()), (None, 1));
}
