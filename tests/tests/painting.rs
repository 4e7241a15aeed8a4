//! The promise itself: separate processes paint one picture, the same whoever helps and whoever dies.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use serde_json::Value;
use tests::programs::{finish, interrupt, new_room, node, relay, start, worker, xtask};
use tests::tidy::read;

const PROMPT: &str = "mountains at sunset with a lake";

/// Runs `cargo xtask demo` and gives its report.
fn demo(folder: &Path, name: &str, arguments: &[&str]) -> Value {
    let (out, report) = (folder.join(format!("{name}.png")), folder.join(format!("{name}.json")));
    let mut demo = xtask();
    demo.args(["demo", "--prompt", PROMPT, "--size", "384x128", "--seed", "7"]);
    demo.arg("--out").arg(&out).arg("--report").arg(&report).args(arguments);
    // On a busy machine the ways may seem too long for tiles.
    demo.args(["--", "--plan", "tiles"]);
    let output = demo.output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {said}{complained}");
    let png = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&out).unwrap())).read_info().unwrap();
    assert_eq!((png.info().width, png.info().height), (384, 128));
    serde_json::from_str(&read(&report)).unwrap()
}

fn helpers(report: &Value) -> usize {
    let workers = report["workers"].as_array().unwrap();
    for worker in workers {
        assert_eq!(worker["local"], false, "the painting process computed something: {worker}");
    }
    let helped = |worker: &&Value| worker["units"].as_u64() > Some(0) && worker["bytes_in"].as_u64() > Some(0);
    workers.iter().filter(helped).count()
}

#[test]
fn the_same_seed_gives_the_same_picture_with_one_two_or_three_workers_and_when_one_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let one = demo(folder.path(), "one", &["--workers", "1"]);
    let two = demo(folder.path(), "two", &["--workers", "2"]);
    let three = demo(folder.path(), "three", &["--workers", "3"]);
    let killed = demo(folder.path(), "killed", &["--workers", "3", "--kill-after-units", "5"]);
    assert_eq!(helpers(&one), 1);
    assert_eq!(helpers(&two), 2, "both workers deliver: {}", two["workers"]);
    assert!(helpers(&three) >= 2);
    // Whether it held a lease when it was killed depends on the moment; that it no longer worked does not.
    assert!(helpers(&killed) >= 2);
    for report in [&two, &three, &killed] {
        assert_eq!(report["pixels_sha256"], one["pixels_sha256"]);
        assert_eq!(report["latent_sha256"], one["latent_sha256"]);
    }
    assert!(one["plan"]["exactness"].as_str().unwrap().starts_with("E0"));
}

#[test]
fn every_plan_gives_the_bits_of_its_layout_alone_or_in_a_room() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, url) = relay(folder.path());
    let link = new_room(&url);
    let _workers = [worker(&link, &[]), worker(&link, &[])];
    let paint = |plan: &str, room: Option<&str>| {
        let report = folder.path().join("report.json");
        let mut paint = node();
        paint.args(["paint", PROMPT, "--size", "192x128", "--steps", "3", "--seed", "3", "--plan", plan]);
        paint.arg("--out").arg(folder.path().join("a.png")).arg("--report").arg(&report);
        if let Some(link) = room {
            paint.args(["--room", link, "--min-workers", "2", "--wait", "60", "--no-local"]);
        }
        let output = paint.output().unwrap();
        assert!(output.status.success(), "{plan} {room:?}: {}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_str(&read(&report)).unwrap();
        report["pixels_sha256"].as_str().unwrap().to_owned()
    };
    let (whole, tiles, shifted) = (paint("whole", None), paint("tiles", None), paint("shifted", None));
    assert_ne!(whole, tiles, "tiles are another function than the whole canvas");
    assert!(shifted != whole && shifted != tiles, "and so are tiles that move");
    assert_eq!(paint("shifted", Some(&link)), shifted);
    for plan in ["whole", "cfg"] {
        assert_eq!(paint(plan, Some(&link)), whole, "{plan}");
    }
    for plan in ["tiles", "auto"] {
        assert_eq!(paint(plan, Some(&link)), tiles, "{plan}");
    }
}

#[test]
fn several_pictures_at_once_are_those_of_their_seeds() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, url) = relay(folder.path());
    let link = new_room(&url);
    let _workers = [worker(&link, &[]), worker(&link, &[])];
    let paint = |seed: &str, arguments: &[&str]| {
        let mut paint = node();
        paint.args(["paint", PROMPT, "--size", "128x128", "--steps", "3", "--seed", seed]).args(arguments);
        paint.arg("--out").arg(folder.path().join("a.png")).arg("--report").arg(folder.path().join("a.json"));
        let output = paint.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let hash = |name: &str| {
        let report: Value = serde_json::from_str(&read(&folder.path().join(name))).unwrap();
        report["pixels_sha256"].as_str().unwrap().to_owned()
    };
    let alone: Vec<String> = ["5", "6", "7"]
        .iter()
        .map(|seed| {
            paint(seed, &[]);
            hash("a.json")
        })
        .collect();
    let said = paint("5", &["--count", "3", "--room", &link, "--min-workers", "2", "--wait", "60", "--no-local"]);
    assert!(said.contains("for each of 3 pictures"), "{said}");
    for (number, alone) in (1..).zip(&alone) {
        assert_eq!(&hash(&format!("a-{number}.json")), alone);
        assert!(folder.path().join(format!("a-{number}.png")).exists());
    }
}

#[test]
fn a_worker_that_comes_late_helps() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, url) = relay(folder.path());
    let link = new_room(&url);
    let (_first, first_peer) = worker(&link, &[]);
    let report = folder.path().join("report.json");
    let mut paint = node();
    paint.args(["paint", PROMPT, "--size", "384x128", "--steps", "60", "--room", &link, "--no-local", "--wait", "60"]);
    paint.args(["--plan", "tiles", "--progress", "json"]);
    paint.arg("--out").arg(folder.path().join("a.png")).arg("--report").arg(&report);
    let mut painting = start(&mut paint);
    painting.wait_for("unit").unwrap();
    let (_second, second_peer) = worker(&link, &[]);
    assert_eq!(finish(painting).0, Some(0));
    let report: Value = serde_json::from_str(&read(&report)).unwrap();
    for peer in [first_peer, second_peer] {
        let workers = report["workers"].as_array().unwrap();
        let worker =
            workers.iter().find(|worker| worker["peer"] == peer.as_str()).expect("the worker is in the report");
        assert!(worker["units"].as_u64() > Some(0), "{worker}");
    }
}

#[test]
fn a_room_without_workers_paints_here_unless_told_not_to() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, url) = relay(folder.path());
    let link = new_room(&url);
    let paint = |arguments: &[&str]| {
        let mut paint = node();
        paint.args(["paint", PROMPT, "--size", "128x128", "--steps", "2", "--room", &link, "--wait", "1", "--out"]);
        paint.arg(folder.path().join("a.png")).args(arguments).output().unwrap()
    };
    let refused = paint(&["--no-local"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no worker with this model came into the room"));
    assert!(!folder.path().join("a.png").exists());
    let alone = paint(&[]);
    assert!(alone.status.success());
    assert!(String::from_utf8_lossy(&alone.stderr).contains("this machine paints alone"));
    assert!(folder.path().join("a.png").exists());
}

#[test]
fn ctrl_c_ends_a_painting_at_once_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut paint = node();
    paint.args(["paint", PROMPT, "--size", "384x128", "--steps", "200", "--progress", "json", "--out"]);
    let mut painting = start(paint.arg(folder.path().join("a.png")));
    painting.wait_for("unit").unwrap();
    interrupt(&painting);
    let (code, said) = finish(painting);
    assert_eq!(code, Some(130));
    assert!(said.contains("Cancelled; nothing was written"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
