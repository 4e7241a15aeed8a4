//! Liars in an open room: whatever they deliver, no lie reaches the picture, and each is named in the report.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use tests::programs::{LOOPBACK, Process, node, open_room, program, relay, start, worker};
use tests::tidy::read;

/// Three tiles with two guidance branches: six units in every step.
const PICTURE: [&str; 6] = ["--size", "256x128", "--steps", "6", "--plan", "tiles"];

/// A liar that joins the room, and its peer id.
fn liar(link: &str, lie: &str) -> (Process, String) {
    let mut liar = start(program("dishonest").args([link, lie]));
    let lending = liar.wait_for("lending").unwrap();
    (liar, lending["peer"].as_str().unwrap().to_owned())
}

/// Paints with at least so many workers; gives the report.
fn paint(folder: &Path, link: &str, workers: usize) -> Value {
    let report = folder.join("report.json");
    let mut paint = node();
    paint
        .args(["paint", "mountains at sunset with a lake", "--seed", "7", "--room", link, "--no-local"])
        .args(PICTURE)
        .args(LOOPBACK);
    paint.args(["--wait", "60", "--min-workers", &workers.to_string()]);
    paint.arg("--out").arg(folder.join("a.png")).arg("--report").arg(&report);
    let output = paint.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&read(&report)).unwrap()
}

/// Peers in the report that gave wrong answers.
fn condemned(report: &Value) -> Vec<&str> {
    report["condemned"].as_array().unwrap().iter().map(|entry| entry["peer"].as_str().unwrap()).collect()
}

/// Peers in the report whose last failure says this.
fn failed<'a>(report: &'a Value, how: &str) -> Vec<&'a str> {
    let failed = |worker: &&Value| worker["failure"].as_str().is_some_and(|failure| failure.contains(how));
    report["workers"].as_array().unwrap().iter().filter(failed).map(|worker| worker["peer"].as_str().unwrap()).collect()
}

/// Two honest workers and one liar, for each of these lies: the peers that are `named` in the report are the liar.
fn no_lie_reaches_the_picture(lies: &[&str], named: impl Fn(&Value) -> Vec<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, url) = relay(folder.path());
    let link = open_room(&url);
    // Reached over the loopback interface they are told apart, although they share a machine.
    let _honest = [worker(&link, &LOOPBACK), worker(&link, &LOOPBACK)];
    let honest = paint(folder.path(), &link, 2);
    assert_eq!(condemned(&honest), [""; 0], "honest workers agree");
    for lie in lies {
        let (_liar, peer) = liar(&link, lie);
        let began = Instant::now();
        let report = paint(folder.path(), &link, 3);
        let seconds = began.elapsed().as_secs_f64();
        println!("{lie}: {seconds:.1} s, {} retries, {:?} named", report["retries"], named(&report));
        assert_eq!(report["pixels_sha256"], honest["pixels_sha256"], "{lie}: {report}");
        assert_eq!(report["latent_sha256"], honest["latent_sha256"], "{lie}: {report}");
        assert_eq!(named(&report), [peer.as_str()], "{lie}: {report}");
    }
}

#[test]
fn no_invented_or_borrowed_answer_reaches_the_picture() {
    no_lie_reaches_the_picture(&["garbage", "copied", "stale", "turncoat"], condemned);
}

#[test]
fn no_answer_to_another_question_reaches_the_picture() {
    no_lie_reaches_the_picture(&["other-seed", "other-prompt", "step-short", "perturbed"], condemned);
}

#[test]
fn no_answer_without_numbers_reaches_the_picture() {
    // A broken GPU does that too: it is named among the workers with its failure, and not called a liar.
    no_lie_reaches_the_picture(&["nan"], |report| failed(report, "is not a finite number"));
}
