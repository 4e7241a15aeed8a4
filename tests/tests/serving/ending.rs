//! Pictures that end early: called off by the queue, or by whoever runs the worker.

use serde_json::json;
use tests::programs::{Process, finish, interrupt, node, start};

use crate::queue::Queue;
use crate::{on_runpod, order, pictures, serve};

/// Steps of a picture that is still being painted when it is to end.
const LONG: u32 = 200;

/// Gives a job and waits until it is under way.
fn begin(queue: &Queue, id: &str, steps: u32) {
    queue.give(id, order(steps, 1));
    queue.wait_for(|seen| seen.is_progress() && seen.job == id && seen.json()["output"]["step"].as_u64() > Some(0));
}

#[test]
fn a_picture_that_is_called_off_is_stopped_and_nothing_more_is_told_of_it() {
    let queue = Queue::open();
    let mut worker = serve(&queue, &[]);
    begin(&queue, "unwanted", LONG);
    queue.stop("another");
    queue.stop("unwanted");
    let stopped = worker.wait_for("stopped").unwrap();
    assert_eq!(stopped["job"], "unwanted");
    assert!(queue.so_far().iter().all(|seen| seen.what != "job-done" || seen.is_progress()), "it had no end");
    // What follows is another job, done as if nothing had happened.
    queue.give("wanted", order(2, 1));
    let reports = queue.reports_until_end("wanted");
    assert!(reports.iter().all(|report| report.job == "wanted"), "{reports:?}");
    assert_eq!(pictures(reports.last().unwrap()).len(), 1);
}

#[test]
fn who_is_asked_to_end_finishes_the_running_picture_first() {
    let queue = Queue::open();
    let worker = serve(&queue, &["--drain", "100"]);
    begin(&queue, "last", 60);
    interrupt(&worker);
    let reports = queue.reports_until_end("last");
    assert_eq!(pictures(reports.last().unwrap()).len(), 1);
    let (code, said) = finish(worker);
    assert_eq!(code, Some(0));
    assert!(said.contains("No more jobs are taken"), "{said}");
    assert!(queue.so_far().iter().all(|seen| seen.what != "job-take"), "it asks for no other job");
}

#[test]
fn who_has_no_time_to_finish_hands_the_picture_back() {
    let queue = Queue::open();
    let worker = serve(&queue, &["--drain", "0"]);
    begin(&queue, "long", LONG);
    interrupt(&worker);
    let reports = queue.reports_until_end("long");
    assert_eq!(reports.last().unwrap().json(), json!({ "handBack": true }));
    assert_eq!(finish(worker).0, Some(0));
}

#[test]
fn on_runpod_which_takes_nothing_back_the_picture_fails_and_the_pod_ends() {
    let queue = Queue::open();
    let mut command = node();
    command.args(["serve", "--threads", "1", "--progress", "json", "--drain", "0"]);
    on_runpod(&mut command, &queue.room(), "the-key");
    let mut worker: Process = start(&mut command);
    worker.wait_for("serving").unwrap();
    begin(&queue, "long", LONG);
    interrupt(&worker);
    let reports = queue.reports_until_end("long");
    let end = reports.last().unwrap().json();
    assert_eq!(end, json!({ "error": "worker stopped", "refresh_worker": true, "stopPod": true }));
    assert_eq!(finish(worker).0, Some(0));
}

#[test]
fn an_idle_worker_ends_at_once_and_one_without_a_queue_says_what_to_do() {
    let queue = Queue::open();
    let worker = serve(&queue, &[]);
    queue.wait_for(|seen| seen.what == "job-take");
    interrupt(&worker);
    assert_eq!(finish(worker).0, Some(0));
    let lost = node().args(["serve", "--threads", "1"]).output().unwrap();
    assert_eq!(lost.status.code(), Some(2));
    let said = String::from_utf8_lossy(&lost.stderr).into_owned();
    assert!(said.contains("--queue https://RELAY/v2/ROOM"), "{said}");
}
