//! Reads the checkout itself: manifests, lock file and sources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The checkout's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the checkout").to_owned()
}

/// The dependencies of a crate's manifest, without those of its tests: name to whether it is one of ours.
pub fn dependencies(manifest: &str) -> BTreeMap<String, bool> {
    let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
    let ours = crates();
    let mut found = BTreeMap::new();
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let targets = targets.into_iter().flat_map(|targets| targets.values().filter_map(toml::Value::as_table));
    for table in targets.chain([&manifest]) {
        for key in ["dependencies", "build-dependencies"] {
            for name in table.get(key).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys) {
                found.insert(name.clone(), ours.contains(name));
            }
        }
    }
    found
}

/// The workspace's crates, from its manifest.
pub fn crates() -> Vec<String> {
    let manifest: toml::Table = read(&root().join("Cargo.toml")).parse().expect("the workspace's manifest is TOML");
    let members = manifest["workspace"]["members"].as_array().expect("members are a list");
    members.iter().map(|member| member.as_str().expect("a member is a path").to_owned()).collect()
}

/// Every file of the checkout with this ending, outside build folders.
pub fn files(ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(&root(), ending, &mut found);
    found.sort();
    found
}

/// A file as text.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn collect(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the checkout can be read").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                collect(&path, ending, found);
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}
