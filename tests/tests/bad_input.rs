//! Bad input gets one line that says what was wrong and what to do, exit code 2, and nothing is written.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::process::Output;

use tests::programs::{manyhands, node, programs, relay, relay_command};
use tests::tidy::root;

/// Runs `manyhands paint` with an output in `folder`.
fn paint(folder: &Path, arguments: &[&str]) -> Output {
    node().arg("paint").args(arguments).arg("--out").arg(folder.join("a.png")).output().unwrap()
}

/// Asserts the one line and gives it.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    let starts = ["error: ", "manyhands-relay: "];
    let lines: Vec<_> = text.lines().filter(|line| starts.iter().any(|start| line.starts_with(start))).collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(!text.contains("panicked"), "{text}");
    lines[0].to_owned()
}

#[test]
fn bad_arguments_of_paint_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let long = "mountain ".repeat(60);
    for (arguments, says) in [
        (&["a lake", "--size", "130x128"][..], "try 136x128"),
        (&["a lake", "--size", "big"], "is not WIDTHxHEIGHT"),
        (&["a lake", "--size", "8192x8192"], "outside the limits"),
        (&["a lake", "--size", "0x0"], "outside the limits"),
        (&["  "], "the prompt is empty"),
        (&[long.as_str()], "would be cut"),
        (&["a lake", "--negative", long.as_str()], "the negative prompt is longer"),
        (&["a lake", "--steps", "0"], "0 steps are outside"),
        (&["a lake", "--guidance", "-1"], "guidance"),
        (&["a lake", "--guidance", "nan"], "guidance"),
        (&["a lake", "--model", "no-such-model"], "no model \"no-such-model\""),
        (&["a lake", "--room", "nonsense"], "the room link has no secret"),
        (&["a lake", "--room", "http://127.0.0.1:1/#short"], "secret is malformed"),
        (&["a lake", "--room", "ftp://x/#aaaaaaaaaaaaaaaaaaaaaaaaaa"], "must begin with http"),
        (&["a lake", "--room", "http://127.0.0.1:1/#aaaaaaaaaaaaaaaaaaaaaaaaaa"], "does not answer"),
    ] {
        let text = complaint(&paint(folder.path(), arguments));
        assert!(text.contains(says), "{arguments:?}: {text}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was written");
}

#[test]
fn a_place_that_cannot_be_written_is_found_before_painting() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    assert!(complaint(&paint(&missing, &["a lake"])).contains("cannot write"));
    let report = missing.join("a.json");
    let text = complaint(&paint(folder.path(), &["a lake", "--report", report.to_str().unwrap()]));
    assert!(text.contains("a.json"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_named_and_leaves_no_half_picture() {
    // A file size limit makes every write fail as a full disk does, without filling one. SIGXFSZ must be ignored, or the
    // kernel would end the process before its write could fail.
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "trap '' XFSZ; ulimit -f 1; exec {} paint 'a lake' --steps 1 --out {}",
        programs().node.display(),
        folder.path().join("a.png").display()
    );
    let output = std::process::Command::new("sh").current_dir(root()).args(["-c", &script]).output().unwrap();
    assert!(complaint(&output).contains("cannot write"), "{output:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a part of the picture was left");
}

#[test]
fn a_damaged_model_is_named_with_file_and_tensor() {
    let fixture = root().join("tests/fixtures/sd-turbo-tiny");
    let broken = |damage: fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        copy(&fixture, folder.path());
        damage(folder.path());
        let model = folder.path().to_str().unwrap().to_owned();
        complaint(&paint(folder.path(), &["a lake", "--size", "64x64", "--model", &model]))
    };
    let weights = "unet/diffusion_pytorch_model.safetensors";
    let text = broken(|folder| std::fs::remove_file(folder.join("unet/diffusion_pytorch_model.safetensors")).unwrap());
    assert!(text.contains("diffusion_pytorch_model.safetensors"), "{text}");
    let text = broken(|folder| {
        let path = folder.join("unet/diffusion_pytorch_model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert!(text.contains(weights) && text.contains("truncated"), "{text}");
    let text = broken(|folder| {
        let path = folder.join("model_index.json");
        let index = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, index.replace("StableDiffusionPipeline", "FluxPipeline")).unwrap();
    });
    assert!(text.contains("FluxPipeline") && text.contains("StableDiffusionPipeline"), "{text}");
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn bad_arguments_of_join_and_room_are_explained() {
    assert!(complaint(&manyhands(["join", "nonsense"])).contains("the room link has no secret"));
    assert!(complaint(&manyhands(["room", "new", "--relay", "not a url"])).contains("must begin with http"));
    assert!(complaint(&manyhands(["parity", "/no/such/folder"])).contains("/no/such/folder"));
}

#[test]
fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, url) = relay(folder.path());
    let address = url.strip_prefix("http://").unwrap();
    let other = tempfile::tempdir().unwrap();
    let output = relay_command().args(["--http", address, "--data"]).arg(other.path()).output().unwrap();
    assert!(complaint(&output).contains(address), "{output:?}");
}
