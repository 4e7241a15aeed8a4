//! The checkout keeps its own rules: import arrows, first lines, purity, known-bad versions.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use tests::tidy::{crates, dependencies, files, read, root};

/// Which of our crates each may import: the arrows of ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("coordinator", &["protocol"]),
    ("sampler", &["protocol"]),
    ("shaders", &[]),
    ("compute", &["protocol", "sampler", "shaders"]),
    ("net", &["protocol"]),
    ("node", &["protocol", "coordinator", "sampler", "net", "compute", "queue"]),
    ("wasm", &["protocol", "coordinator", "sampler", "net", "node"]),
    ("relay", &["protocol", "coordinator", "net", "node", "queue", "runpod", "service", "store"]),
    ("queue", &["protocol"]),
    ("store", &["queue"]),
    ("runpod", &["queue"]),
    ("service", &["protocol", "queue", "runpod", "store"]),
    (
        "tests",
        &[
            "protocol",
            "coordinator",
            "sampler",
            "shaders",
            "compute",
            "net",
            "node",
            "queue",
            "relay",
            "runpod",
            "store",
            "xtask",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that do no IO, read no clock and spawn nothing.
const PURE: &[&str] = &["protocol", "coordinator", "queue", "sampler", "shaders"];

/// Where a pure crate's programs lie: they do the IO around the pure library, which never imports them.
const PROGRAMS: &str = "bin";

/// What a pure crate's sources never name.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "std::time::Instant",
    "SystemTime",
    "tokio",
    "async fn",
    "HashMap",
    "HashSet",
    "println!",
    "eprintln!",
    "rand::",
];

/// Versions below these have known faults (RustSec ids in the comments).
const LEAST_VERSIONS: &[(&str, [u64; 3])] = &[
    ("libp2p-gossipsub", [0, 50, 0]),  // RUSTSEC-2026-0536: GRAFT memory growth
    ("libp2p-rendezvous", [0, 17, 1]), // RUSTSEC-2026-0527: unlimited namespaces and cookies
    ("libp2p-relay", [0, 22, 0]),      // server panic on a connection without reservations
    ("quinn-proto", [0, 11, 15]),      // RUSTSEC-2026-0037, -0185: panic, memory exhaustion
    ("rustls-webpki", [0, 103, 13]),   // RUSTSEC-2026-0104
    ("h2", [0, 4, 16]),                // RUSTSEC-2026-0258: empty DATA frames
];

#[test]
fn crates_import_only_along_the_arrows() {
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for name in crates() {
        let allowed = arrows.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no arrows; add it to the table"));
        let manifest = read(&root().join(&name).join("Cargo.toml"));
        for (dependency, ours) in dependencies(&manifest) {
            assert!(!ours || allowed.contains(&dependency.as_str()), "{name} must not import {dependency}");
        }
    }
}

#[test]
fn pure_crates_name_nothing_impure() {
    for name in PURE {
        let folder = root().join(name).join("src");
        let is_library = |path: &&PathBuf| path.starts_with(&folder) && !path.starts_with(folder.join(PROGRAMS));
        for path in files(".rs").iter().filter(is_library) {
            let text = read(path);
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                let found = IMPURE.iter().find(|word| code.contains(*word));
                assert!(found.is_none(), "{}:{}: {} in a pure crate", path.display(), number + 1, found.unwrap_or(&""));
            }
        }
    }
}

#[test]
fn every_source_file_says_on_line_one_what_it_is_for() {
    for path in files(".rs") {
        let first = read(&path).lines().next().unwrap_or_default().to_owned();
        assert!(first.starts_with("//! ") && first.len() > 12, "{}: {first:?}", path.display());
    }
}

#[test]
fn no_source_file_is_longer_than_a_thought() {
    for path in files(".rs") {
        let lines = read(&path).lines().count();
        assert!(lines <= 600, "{} has {lines} lines; split it by concept", path.display());
    }
}

#[test]
fn nothing_is_left_unfinished_and_no_test_sleeps() {
    // Spelled in halves, so that this file does not find itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];
    let sleeps = [concat!("thread::", "sleep"), concat!("time::", "sleep("), concat!("#[ig", "nore]")];
    for path in files(".rs") {
        let text = read(&path);
        for mark in marks {
            assert!(!text.contains(mark), "{} holds {mark}", path.display());
        }
        if path.components().any(|part| part.as_os_str() == "tests") {
            for sleep in sleeps {
                assert!(!text.contains(sleep), "{} holds {sleep}", path.display());
            }
        }
    }
}

#[test]
fn no_locked_dependency_has_a_known_fault() {
    let lock: toml::Table = read(&root().join("Cargo.lock")).parse().unwrap();
    for package in lock["package"].as_array().unwrap() {
        let (name, version) = (package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        if let Some((_, least)) = LEAST_VERSIONS.iter().find(|(faulty, _)| *faulty == name) {
            let numbers: Vec<u64> = version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect();
            assert!(numbers.as_slice() >= least.as_slice(), "{name} {version} is older than {least:?}");
        }
    }
}
