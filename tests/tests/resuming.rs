//! A requester that is killed in the middle goes on from its checkpoint, to the same pixels.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::programs::{Process, finish, interrupt, new_room, node, relay, start, worker};
use tests::tidy::read;

const STEPS: u64 = 24;

/// The most that may have to be painted again: a quarter of the picture.
const STEPS_AGAIN_MAX: u64 = STEPS / 4;

/// Paints with these further arguments to the end, and gives the report.
fn paint(folder: &Path, mut paint: Command) -> Value {
    let report = folder.join("report.json");
    paint.arg("--out").arg(folder.join("a.png")).arg("--report").arg(&report);
    let output = paint.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&read(&report)).unwrap()
}

/// A command that paints the picture of this test.
fn picture(folder: &Path) -> Command {
    let mut paint = node();
    paint.args(["paint", "mountains at sunset with a lake", "--size", "128x128", "--seed", "5"]);
    paint.args(["--steps", &STEPS.to_string()]).env("MANYHANDS_STATE", folder.join("state"));
    paint
}

/// A command that goes on with it, from the newest checkpoint or from this one.
fn resume(folder: &Path, file: Option<&Path>) -> Command {
    let mut paint = node();
    paint.args(["paint", "--resume"]).args(file).env("MANYHANDS_STATE", folder.join("state"));
    paint
}

/// Begins to paint, until half of the steps are seen.
fn half(mut paint: Command, folder: &Path) -> Process {
    let mut painting = start(paint.args(["--progress", "json", "--out"]).arg(folder.join("never.png")));
    while painting.wait_for("unit").unwrap()["step"].as_u64() < Some(STEPS / 2) {}
    painting
}

/// Begins to paint, and kills the process when half of the steps are seen; it gets no chance to say goodbye.
fn kill_at_half(paint: Command, folder: &Path) {
    let mut painting = half(paint, folder);
    painting.kill().unwrap();
    painting.wait().unwrap();
    assert!(!folder.join("never.png").exists());
}

/// Asserts that the resumed painting has the pixels of the undisturbed one, and took no more steps than it says.
fn assert_resumed(resumed: &Value, undisturbed: &Value) {
    for hash in ["pixels_sha256", "latent_sha256"] {
        assert_eq!(resumed[hash], undisturbed[hash], "{hash}");
    }
    let kept = resumed["resumed"]["steps_kept"].as_u64().unwrap();
    let again = resumed["resumed"]["steps_again"].as_u64().unwrap();
    assert!(again <= STEPS_AGAIN_MAX && kept > 0, "{kept} steps kept, {again} taken again");
    // The count of steps taken may lag by what was being written when the process died.
    assert!((STEPS / 2 - 3..STEPS).contains(&(kept + again)), "{kept} steps kept, {again} taken again");
    let units: u64 =
        resumed["workers"].as_array().unwrap().iter().map(|worker| worker["units"].as_u64().unwrap()).sum();
    // The picture is decoded once, and none of the kept steps is taken again, however the rest was cut for the room.
    let (kind, left) = (&resumed["plan"]["kind"], STEPS - kept);
    let denoised = match kind["runs"]["steps"].as_u64() {
        Some(steps) => left.div_ceil(steps),
        None if kind == "cfg" => 2 * left,
        None => left,
    };
    assert_eq!(units, 1 + denoised, "units of the plan {kind} after {kept} steps");
    println!("{kept} of {STEPS} steps were kept, {again} were taken again");
}

#[test]
fn a_killed_painting_goes_on_from_its_checkpoint_to_the_same_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let undisturbed = paint(folder, picture(folder));
    assert_eq!(undisturbed["resumed"], Value::Null);
    assert!(undisturbed["kept"]["written"].as_u64() >= Some(4), "{}", undisturbed["kept"]);
    assert_eq!(std::fs::read_dir(folder.join("state")).unwrap().count(), 0, "a finished picture leaves nothing");
    kill_at_half(picture(folder), folder);
    assert_resumed(&paint(folder, resume(folder, None)), &undisturbed);
    assert_eq!(std::fs::read_dir(folder.join("state")).unwrap().count(), 0);
    let nothing = resume(folder, None).output().unwrap();
    assert_eq!(nothing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("no picture to go on with"));
}

#[test]
fn what_is_painted_before_ctrl_c_is_kept_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = folder.join("a.checkpoint");
    let mut command = picture(folder);
    command.arg("--checkpoint").arg(&file);
    let painting = half(command, folder);
    interrupt(&painting);
    let (code, said) = finish(painting);
    assert_eq!(code, Some(130));
    assert!(said.contains(&format!("`manyhands paint --resume {}` goes on from step", file.display())), "{said}");
    assert!(!folder.join("never.png").exists());
    assert_resumed(&paint(folder, resume(folder, Some(&file))), &paint(folder, picture(folder)));
    assert!(!file.exists());
}

#[test]
fn a_killed_requester_goes_on_with_the_workers_of_its_room() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (_relay, url) = relay(folder);
    let link = new_room(&url);
    let _workers = [worker(&link, &[]), worker(&link, &[])];
    let in_room = |mut paint: Command| {
        paint.args(["--room", &link, "--min-workers", "2", "--wait", "60", "--no-local"]);
        paint
    };
    let undisturbed = paint(folder, in_room(picture(folder)));
    let file = folder.join("a.checkpoint");
    let mut killed = in_room(picture(folder));
    // Step by step, so that it can be killed at half of them however long the ways seem on a busy machine.
    killed.args(["--plan", "cfg", "--checkpoint"]).arg(&file);
    kill_at_half(killed, folder);
    assert_resumed(&paint(folder, in_room(resume(folder, Some(&file)))), &undisturbed);
    assert!(!file.exists(), "a finished picture leaves nothing");
}

#[test]
fn a_checkpoint_that_cannot_be_used_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = folder.join("a.checkpoint");
    let mut killed = picture(folder);
    killed.arg("--checkpoint").arg(&file);
    kill_at_half(killed, folder);
    let good = std::fs::read(&file).unwrap();
    let refused = |bytes: &[u8], arguments: &[&str]| {
        std::fs::write(&file, bytes).unwrap();
        let output = resume(folder, Some(&file)).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&good[..good.len() / 2], &[]).contains("the checkpoint is damaged; paint the picture anew"));
    let mut newer = good.clone();
    newer[8] += 1;
    assert!(refused(&newer, &[]).contains("is of version 2, and this program reads version 1"));
    assert!(refused(b"a poem", &[]).contains("not a painting's checkpoint"));
    assert!(refused(&good, &["--model", "tests/fixtures/sd21-v-ddim-tiny"]).contains("give its --model"));
    let both = resume(folder, None).args(["--steps", "9"]).output().unwrap();
    assert_eq!(both.status.code(), Some(2), "what decides pixels stands in the checkpoint");
}
