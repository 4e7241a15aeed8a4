//! `--supervise`: crashes are survived, budgets kept, requests to end passed on.

use std::path::Path;
use std::process::Command;

use tests::programs::{Process, finish, interrupt, new_room, node, programs, relay, start};
use xtask::processes;

use crate::queue::Queue;
use crate::{order, pictures};

fn supervised(queue: &Queue, arguments: &[&str]) -> Process {
    let mut command = node();
    command.args(["serve", "--queue", &queue.room(), "--threads", "1", "--progress", "json", "--supervise"]);
    start(command.args(arguments))
}

/// Kills the process that is supervised.
pub fn kill(process: u64) {
    assert!(Command::new("kill").args(["-KILL", &process.to_string()]).status().unwrap().success());
}

/// Waits for the child's start and gives its process id.
fn started(supervisor: &mut Process) -> u64 {
    supervisor.wait_for("started").unwrap()["process"].as_u64().unwrap()
}

#[test]
#[cfg(unix)]
fn a_worker_that_crashes_is_started_again_and_works() {
    let queue = Queue::open();
    let mut supervisor = supervised(&queue, &[]);
    let first = started(&mut supervisor);
    supervisor.wait_for("serving").unwrap();
    kill(first);
    let restart = supervisor.wait_for("restart").unwrap();
    assert!(restart["text"].as_str().unwrap().contains("signal 9"), "{restart}");
    assert_ne!(started(&mut supervisor), first);
    supervisor.wait_for("serving").unwrap();
    queue.give("job", order(2, 1));
    assert_eq!(pictures(queue.reports_until_end("job").last().unwrap()).len(), 1);
    interrupt(&supervisor);
    let (code, said) = finish(supervisor);
    assert_eq!(code, Some(0));
    assert!(said.contains("No more jobs are taken"), "the worker was asked, not killed: {said}");
}

#[test]
#[cfg(unix)]
fn a_lender_that_crashes_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, url) = relay(folder.path());
    let link = new_room(&url);
    let mut supervisor = start(node().args(["join", &link, "--threads", "1", "--progress", "json", "--supervise"]));
    let first = started(&mut supervisor);
    supervisor.wait_for("lending").unwrap();
    kill(first);
    assert_ne!(started(&mut supervisor), first);
    supervisor.wait_for("lending").unwrap();
    interrupt(&supervisor);
    let (code, said) = finish(supervisor);
    assert_eq!(code, Some(0));
    assert!(said.contains("Leaving the room"), "{said}");
}

#[test]
#[cfg(unix)]
fn a_lender_whose_relay_is_away_is_started_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (first, url) = relay(folder.path());
    let link = new_room(&url);
    interrupt(&first);
    assert_eq!(finish(first).0, Some(0));
    let mut supervisor = start(node().args(["join", &link, "--threads", "1", "--progress", "json", "--supervise"]));
    let restart = supervisor.wait_for("restart").unwrap();
    assert!(restart["text"].as_str().unwrap().contains("exit code 1"), "{restart}");
    let address = url.strip_prefix("http://").unwrap();
    let _again = processes::relay_with(programs(), folder.path(), Path::new("none"), address, None).unwrap();
    supervisor.wait_for("lending").unwrap();
    interrupt(&supervisor);
    assert_eq!(finish(supervisor).0, Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn a_worker_over_its_memory_budget_is_started_anew() {
    let queue = Queue::open();
    let mut supervisor = supervised(&queue, &["--memory-budget", "1MB"]);
    let first = started(&mut supervisor);
    assert!(supervisor.wait_for("over-budget").unwrap()["bytes"].as_u64() > Some(1_000_000));
    supervisor.wait_for("restart").unwrap();
    assert_ne!(started(&mut supervisor), first);
}

#[test]
#[cfg(unix)]
fn models_are_freed_after_a_job_and_loaded_for_the_next() {
    let queue = Queue::open();
    // Without --supervise nobody ends it for that.
    let mut worker = crate::serve(&queue, &["--memory-budget", "1MB"]);
    for id in ["first", "second"] {
        queue.give(id, order(2, 1));
        assert_eq!(pictures(queue.reports_until_end(id).last().unwrap()).len(), 1);
        if cfg!(target_os = "linux") {
            assert!(worker.wait_for("freed").unwrap()["bytes"].as_u64() > Some(1_000_000));
        }
    }
}

#[test]
fn wrong_usage_is_not_tried_again() {
    let mut command = node();
    command.args(["serve", "--supervise", "--queue", "http://127.0.0.1:9/v2/room", "--model", "no-such-model"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no model \"no-such-model\"") && !said.contains("again"), "{said}");
}

#[test]
#[cfg(unix)]
fn a_worker_ends_when_its_supervisor_is_killed() {
    let queue = Queue::open();
    let mut supervisor = supervised(&queue, &[]);
    supervisor.wait_for("serving").unwrap();
    supervisor.kill().unwrap();
    // The worker writes to the same output, which ends when it does.
    let (_, said) = finish(supervisor);
    assert!(said.contains("No more jobs are taken"), "{said}");
}
