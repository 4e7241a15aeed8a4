//! What the relay handles while a room paints through it holds nothing of the prompt, and a wrong secret opens nothing.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use libp2p::identity::Keypair;
use net::raw::RawPeer;
use protocol::{RoomLink, RoomSecret};
use relay::{Relay, Settings, Tap};
use tests::programs::{new_room, node, relay as relay_process, start, worker};

/// A prompt that occurs nowhere by chance; the demo model reads it as any other.
const CANARY: &str = "xylophone quokka at sunset";

/// A part of it this long in the relay's hands would be a leak.
const PART: usize = 8;

/// Jobs through the relay, and as many on direct connections that it introduced.
const JOBS_EACH: usize = 10;

fn holds_part_of_canary(bytes: &[u8]) -> bool {
    CANARY.as_bytes().windows(PART).any(|part| bytes.windows(PART).any(|window| window == part))
}

#[test]
fn the_search_for_the_canary_finds_it() {
    assert!(holds_part_of_canary(b"....quokka at...."));
    assert!(!holds_part_of_canary(b"mountains at sun"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_relay_never_handles_a_part_of_the_prompt() {
    let seen = Arc::new(Mutex::new(Vec::<u8>::new()));
    let recorder = seen.clone();
    let tap = Tap::new(move |bytes| recorder.lock().unwrap().extend_from_slice(bytes));
    let relay = Relay::bind(Settings { tap: Some(tap), ..Settings::loopback() }).await.unwrap();
    let url = format!("http://{}", relay.http());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(relay.run(async { drop(stopped.await) }));

    let painting = tokio::task::spawn_blocking(move || {
        let mut relayed_bytes = Vec::new();
        for means in [&["--relayed-only"][..], &[]] {
            let link = new_room(&url);
            let _workers = [worker(&link, means), worker(&link, means)];
            for seed in 0..JOBS_EACH {
                let folder = tempfile::tempdir().unwrap();
                let report = folder.path().join("a.json");
                let mut paint = node();
                paint.args(["paint", CANARY, "--negative", CANARY, "--size", "160x128", "--steps", "2", "--no-local"]);
                paint.args(["--seed", &seed.to_string(), "--room", &link, "--min-workers", "2", "--wait", "60"]);
                paint.args(means).arg("--out").arg(folder.path().join("a.png")).arg("--report").arg(&report);
                let output = paint.output().unwrap();
                assert!(output.status.success(), "{means:?}: {}", String::from_utf8_lossy(&output.stderr));
                let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
                for worker in report["workers"].as_array().unwrap() {
                    assert_eq!(worker["path"] == "relayed", !means.is_empty(), "{worker}");
                    if !means.is_empty() {
                        relayed_bytes.push(worker["bytes_in"].as_u64().unwrap());
                    }
                }
            }
        }
        relayed_bytes.iter().sum::<u64>()
    });
    let relayed_bytes = painting.await.unwrap();
    stop.send(()).unwrap();
    serving.await.unwrap();

    let seen = seen.lock().unwrap();
    // The recorder worked: what went through the relay is there, and so are names that the relay must see.
    assert!(seen.len() as u64 > 2 * relayed_bytes, "{} bytes seen of {relayed_bytes} relayed", seen.len());
    let rendezvous = b"/rendezvous/1.0.0";
    assert!(seen.windows(rendezvous.len()).any(|window| window == rendezvous));
    assert!(!holds_part_of_canary(&seen), "a part of the prompt passed the relay in the clear");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_room_id_with_the_wrong_secret_gets_no_lease_and_no_presence() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, url) = relay_process(folder.path());
    let link = new_room(&url);
    let keys = RoomLink::parse(&link).unwrap().secret.keys();
    let mut join = start(node().args(["join", &link, "--progress", "json", "--listen", "/ip4/127.0.0.1/tcp/0"]));
    let address = join.wait_for("listening").unwrap()["address"].as_str().unwrap().parse().unwrap();

    // The room id is right, as the handshake says it; the proof is made with another secret.
    let mut evil = RawPeer::start(Keypair::generate_ed25519(), None).unwrap();
    let mut stream = evil.dial(address).await.unwrap();
    let nonce = [1; 32];
    stream.say_hello(&keys, nonce).await.unwrap();
    let theirs = stream.read_hello().await.unwrap().nonce;
    let wrong = RoomSecret::from_random([9; 16]).keys();
    let _ = stream.say_proof(&stream.proof(&wrong, nonce, theirs)).await;
    // A member would be offered the worker's processor here; this peer hears nothing until it is hung up on.
    let heard = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end()).await.unwrap();
    assert_eq!(heard, b"", "the worker said something to a stranger");

    // The room still works for those who know its secret.
    let output = tokio::task::spawn_blocking(move || {
        let out = folder.path().join("a.png");
        let mut paint = node();
        paint.args([
            "paint",
            "a lake",
            "--size",
            "128x128",
            "--steps",
            "1",
            "--no-local",
            "--wait",
            "60",
            "--room",
            &link,
        ]);
        paint.arg("--out").arg(out).output().unwrap()
    });
    assert!(output.await.unwrap().status.success());
}
