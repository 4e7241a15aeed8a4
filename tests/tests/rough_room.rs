//! A room on a rough network: one worker behind delay and loss, one that stops, one that dies. The picture is the same, and
//! comes nearly as soon.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::programs::{Process, node, relay_command, signal, start};
use tests::rough::{NEAR, Rough, Weather};
use tests::tidy::read;

/// Each way takes 35 to 65 ms, so that there and back is 100 ms give or take 30; one datagram in a hundred is lost each way.
const WEATHER: Weather =
    Weather { delay: Duration::from_millis(35)..Duration::from_millis(65), loss: 0.01, seed: 20_261_126 };

/// A picture of 35 tiles with two guidance branches.
const PICTURE: [&str; 6] = ["--size", "512x384", "--steps", "12", "--plan", "tiles"];

/// The bound: this many times as long as undisturbed.
const SLOWER_MAX: f64 = 1.5;

/// Other work on the machine can only make a run slower: of so many, the fastest counts.
const RUNS_MAX: usize = 3;

/// Workers of a room, and whose processor is behind the rough way.
struct Room<'a> {
    rough: &'a Rough,
    link: String,
    _relay: Process,
    workers: Vec<Process>,
}

impl<'a> Room<'a> {
    /// A relay and four workers, the last one at the far place if so wished.
    fn open(rough: &'a Rough, folder: &Path, is_last_far: bool) -> Self {
        let mut relay = relay_command();
        relay.args(["--json", "--log", "warn", "--http", &format!("{NEAR}:0"), "--web", "none"]).args(listen(NEAR));
        let mut relay = start(&mut rough.near(relay.arg("--data").arg(folder)));
        let url = relay.json().unwrap()["http"].as_str().unwrap().to_owned();
        let output = node().args(["room", "new", "--relay", &url]).output().unwrap();
        let link = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let workers = (1..=4).map(|number| {
            let mut join = node();
            join.args(["join", &link, "--progress", "json", "--threads", "1", "--name", &format!("worker-{number}")]);
            let is_far = is_last_far && number == 4;
            start(&mut if is_far { rough.far(&join) } else { rough.near(&join) })
        });
        let mut workers: Vec<Process> = workers.collect();
        workers.iter_mut().for_each(|worker| _ = worker.wait_for("lending").unwrap());
        Self { rough, link, _relay: relay, workers }
    }

    /// Paints with all four; `at` is told the share that is done, and may disturb.
    fn paint(&mut self, folder: &Path, mut at: impl FnMut(f64, &mut [Process])) -> Value {
        let report = folder.join("report.json");
        let mut paint = node();
        paint.args(["paint", "mountains at sunset with a lake", "--seed", "7", "--room", &self.link, "--no-local"]);
        paint.args(["--progress", "json", "--wait", "120", "--min-workers", "4"]).args(PICTURE);
        paint.arg("--out").arg(folder.join("a.png")).arg("--report").arg(&report);
        let mut painting = start(&mut self.rough.near(&paint));
        while let Some(line) = painting.line() {
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"] == "unit" {
                at(event["done"].as_f64().unwrap() / event["total"].as_f64().unwrap(), &mut self.workers);
            }
        }
        assert!(painting.wait().unwrap().success());
        serde_json::from_str(&read(&report)).unwrap()
    }
}

fn listen(address: &str) -> [String; 4] {
    let on = |transport: &str| format!("/ip4/{address}/{transport}");
    ["--listen".into(), on("udp/0/quic-v1"), "--listen".into(), on("tcp/0")]
}

fn undisturbed(rough: &Rough) -> Value {
    let folder = tempfile::tempdir().unwrap();
    Room::open(rough, folder.path(), false).paint(folder.path(), |_, _| {})
}

/// One worker is far, one stops after a third of the picture, and one dies at half.
fn disturbed(rough: &Rough) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let mut room = Room::open(rough, folder.path(), true);
    let (mut has_stopped, mut has_died) = (false, false);
    let report = room.paint(folder.path(), |done, workers| {
        if !has_stopped && done >= 1.0 / 3.0 {
            has_stopped = true;
            signal(&workers[0], "-STOP");
        }
        if !has_died && done >= 0.5 {
            has_died = true;
            workers[1].kill().unwrap();
        }
    });
    assert!(has_stopped && has_died);
    report
}

fn seconds(report: &Value) -> f64 {
    report["wall_ms"]["paint"].as_f64().unwrap() / 1000.0
}

fn units(report: &Value, name: &str) -> u64 {
    let workers = report["workers"].as_array().unwrap();
    workers.iter().find(|worker| worker["name"] == name).map_or(0, |worker| worker["units"].as_u64().unwrap())
}

#[test]
fn a_room_on_a_rough_network_paints_the_same_picture_in_nearly_the_same_time() {
    let Some(rough) = Rough::open(&WEATHER) else { return };
    let (mut calm_s, mut rough_s) = (f64::INFINITY, f64::INFINITY);
    let mut pixels = None;
    for _ in 0..RUNS_MAX {
        let calm = undisturbed(&rough);
        let (carried_before, lost_before) = rough.carried_and_lost();
        let stormy = disturbed(&rough);
        let (carried, lost) = rough.carried_and_lost();
        let (carried, lost) = (carried - carried_before, lost - lost_before);
        println!(
            "undisturbed {:.1} s, disturbed {:.1} s with {} retries; {carried} datagrams carried, {lost} lost; load {}",
            seconds(&calm),
            seconds(&stormy),
            stormy["retries"],
            read(Path::new("/proc/loadavg")).trim(),
        );
        for report in [&calm, &stormy] {
            let names = ["worker-1", "worker-2", "worker-3", "worker-4"].map(|name| (name, units(report, name)));
            println!("  units {names:?}");
            assert_eq!(report["pixels_sha256"], *pixels.get_or_insert(calm["pixels_sha256"].clone()));
        }
        assert!(units(&stormy, "worker-4") > 0, "the far worker helps: {stormy}");
        assert!(lost > 0, "nothing was lost of {carried} datagrams");
        (calm_s, rough_s) = (calm_s.min(seconds(&calm)), rough_s.min(seconds(&stormy)));
        if rough_s <= calm_s * SLOWER_MAX {
            break;
        }
    }
    let slower = rough_s / calm_s;
    println!("disturbed takes {slower:.2} times as long as undisturbed");
    assert!(slower <= SLOWER_MAX, "{slower:.2} times as long");
}

#[test]
fn what_is_far_is_far() {
    let Some(rough) = Rough::open(&WEATHER) else { return };
    // Nobody listens there: the answer that says so takes the way there and back.
    let script = format!("exec 3<>/dev/tcp/{}/9", tests::rough::FAR);
    let began = std::time::Instant::now();
    let knocked = rough.near(Command::new("bash").args(["-c", &script])).output().unwrap();
    assert!(!knocked.status.success());
    assert!(began.elapsed() >= 2 * WEATHER.delay.start, "{:?}", began.elapsed());
}
