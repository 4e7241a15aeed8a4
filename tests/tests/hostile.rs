//! A member that sends rubbish is dropped; the node neither panics nor grows, and its room keeps painting.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use net::raw::RawPeer;
use protocol::frame::{chunk_prefix, encode_credit, encode_header};
use protocol::message::RefuseReason;
use protocol::{
    Branches, Capabilities, Hash, JobId, LeaseId, Message, ModelId, Pilot, RoomKeys, RoomLink, ToRequester, ToWorker,
    Unit, UnitId, Work,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use tests::programs::{new_room, node, relay, resident_kib, start};

/// Streams with one malformed frame each, every one from a peer of its own.
const STREAMS: usize = 10_000;

/// Frames on every stream: whole ones of nonsense, so that the malformed last one is read.
const FRAMES_PER_STREAM: usize = 2;

/// Streams at once.
const AT_ONCE: usize = 8;

/// Growth that a flat memory may show: allocator slack and the bounded records about peers that left.
const GROWTH_KIB_MAX: u64 = 48 * 1024;

/// A message of the protocol whose content is nonsense.
fn nonsense(rng: &mut StdRng) -> (Message, Vec<u8>) {
    let hash = Hash::of(&rng.next_u64().to_le_bytes());
    let lease = LeaseId(rng.random_range(0..4));
    let mut body = vec![0; rng.random_range(0..2000)];
    rng.fill_bytes(&mut body);
    let text = "\u{1b}[2J\0".repeat(rng.random_range(0..40));
    let work = match rng.random_range(0..4) {
        0 => Work::Encode { prompt: text.clone(), negative: Some(text.clone()) },
        1 => Work::Decode { rows: rng.next_u32(), columns: rng.next_u32() },
        _ => Work::Denoise {
            conditioning: hash,
            conditioning_rows: rng.next_u32(),
            branches: Branches::Both,
            timestep: f32::from_bits(rng.next_u32()),
            rows: rng.random_range(0..40),
            columns: rng.next_u32(),
        },
    };
    let id = UnitId { stage: rng.next_u32(), index: rng.next_u32() };
    let unit = Unit { job: JobId([7; 16]), id, model: ModelId(hash), work };
    let message = match rng.random_range(0..10) {
        8 => Message::ToWorker(ToWorker::Probe { lease }),
        0 => Message::ToWorker(ToWorker::Store { blob: hash }),
        1 | 2 => Message::ToWorker(ToWorker::Assign { lease, unit: Box::new(unit) }),
        3 => Message::ToWorker(ToWorker::Cancel { lease }),
        4 => Message::ToWorker(ToWorker::Release { job: JobId([7; 16]) }),
        5 => Message::ToRequester(ToRequester::Offer(Capabilities {
            models: vec![ModelId(hash); rng.random_range(0..100)],
            threads: rng.next_u32(),
            device: text.clone(),
            pilots: vec![Pilot { model: ModelId(hash), nanoseconds_per_cost: rng.next_u64() }; rng.random_range(0..40)],
            throttled: rng.random(),
            ..Capabilities::new(text.clone(), text)
        })),
        6 => Message::ToRequester(ToRequester::Deliver { lease, compute_ms: rng.next_u32() }),
        7 => Message::ToRequester(ToRequester::Refuse { lease, reason: RefuseReason::Failed(text) }),
        _ => Message::ToRequester(ToRequester::Heartbeat { lease }),
    };
    (message, body)
}

fn frame(rng: &mut StdRng) -> Vec<u8> {
    if rng.random_ratio(1, 16) {
        return encode_credit(rng.random_range(1..1000));
    }
    let (message, body) = nonsense(rng);
    let mut bytes = encode_header(&message, body.len()).unwrap();
    if !body.is_empty() {
        bytes.extend(chunk_prefix(body.len()));
        bytes.extend(body);
    }
    bytes
}

/// A frame with some of its bytes changed, cut or added; or no frame at all.
fn malformed(rng: &mut StdRng) -> Vec<u8> {
    if rng.random_ratio(1, 4) {
        let mut bytes = vec![0; rng.random_range(1..300)];
        rng.fill_bytes(&mut bytes);
        return bytes;
    }
    let mut bytes = frame(rng);
    for _ in 0..rng.random_range(1..5) {
        let at = rng.random_range(0..bytes.len().min(200));
        match [0, 1, 2].choose(rng) {
            Some(0) => bytes[at] = rng.random(),
            Some(1) => bytes.truncate(at.max(1)),
            _ => bytes.insert(at, rng.random()),
        }
    }
    bytes
}

/// One stream of a member with an identity of its own: whole nonsense, then something malformed, then the end.
async fn attack(address: Multiaddr, keys: RoomKeys, seed: u64) {
    let rng = &mut StdRng::seed_from_u64(seed);
    let mut evil = RawPeer::start(Keypair::generate_ed25519(), None).unwrap();
    let mut link = evil.dial(address).await.unwrap();
    link.join(&keys).await.unwrap_or_else(|error| panic!("seed {seed}: an honest handshake failed: {error:?}"));
    for _ in 1..FRAMES_PER_STREAM {
        // The node may hang up in the middle; that is its right.
        let _ = link.write(&frame(rng)).await;
    }
    let _ = link.write(&malformed(rng)).await;
    link.close().await;
    let ended = tokio::time::timeout(Duration::from_secs(60), link.read_to_end()).await;
    assert!(ended.is_ok(), "seed {seed}: the node did not hang up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_rotten_frames_leave_the_node_and_its_room_unharmed() {
    let folder = tempfile::tempdir().unwrap();
    let (_relay, url) = relay(folder.path());
    let link = new_room(&url);
    let keys = RoomLink::parse(&link).unwrap().secret.keys();
    let mut worker = start(node().args(["join", &link, "--progress", "json", "--listen", "/ip4/127.0.0.1/tcp/0"]));
    let address: Multiaddr = worker.wait_for("listening").unwrap()["address"].as_str().unwrap().parse().unwrap();
    let paint = |name: &str| {
        let out = folder.path().join(name);
        let mut paint = node();
        paint.args(["paint", "a lake", "--size", "128x128", "--steps", "2", "--seed", "1", "--no-local"]);
        let output = paint.args(["--room", &link, "--wait", "60", "--out"]).arg(&out).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(out).unwrap()
    };
    let before = paint("before.png");
    // The first half fills what is bounded but not empty: records of peers that left, allocator pools.
    run_attacks(&address, &keys, 0..STREAMS / 2).await;
    let during = tokio::task::block_in_place(|| paint("during.png"));
    let settled = resident_kib(&worker);
    run_attacks(&address, &keys, STREAMS / 2..STREAMS).await;
    let grown = resident_kib(&worker).zip(settled).map(|(after, settled)| after.saturating_sub(settled));
    let after = tokio::task::block_in_place(|| paint("after.png"));
    assert_eq!(before, during);
    assert_eq!(before, after);
    match grown {
        Some(kib) => assert!(kib < GROWTH_KIB_MAX, "the node grew by {kib} KiB"),
        None => println!("skipped: memory of a process is not told on this system"),
    }
    println!("{} frames on {STREAMS} streams, growth {grown:?} KiB", STREAMS * FRAMES_PER_STREAM);
}

async fn run_attacks(address: &Multiaddr, keys: &RoomKeys, seeds: std::ops::Range<usize>) {
    let seeds: Vec<_> = seeds.collect();
    let lanes = seeds.chunks(seeds.len().div_ceil(AT_ONCE)).map(|seeds| {
        let (seeds, address, keys) = (seeds.to_vec(), address.clone(), keys.clone());
        tokio::spawn(async move {
            for seed in seeds {
                attack(address.clone(), keys.clone(), seed as u64).await;
            }
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await.unwrap();
    }
}
