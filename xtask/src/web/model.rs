//! The model that is served with the page: its files, and the card that says what they are.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::build::{Programs, root};

use super::folder::sha256;

/// Copies the files on the model's card into `page`/models/`name`, and the card with them.
pub fn copy(programs: &Programs, name: &str, page: &Path) -> Result<()> {
    let output = programs.node().args(["card", name]).output().context("starting manyhands card")?;
    let reason = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "manyhands card {name} failed: {}", reason.trim());
    let card: Value = serde_json::from_slice(&output.stdout).context("reading the model's card")?;
    let (from, to) = (root().join("models").join(name), page.join("models").join(name));
    for file in card["files"].as_array().context("the model's card names no files")? {
        let path = file["path"].as_str().context("a file of the model's card has no path")?;
        let copy = to.join(path);
        std::fs::create_dir_all(copy.parent().expect("a file lies in a folder"))?;
        std::fs::copy(from.join(path), &copy).with_context(|| format!("copying {path} of the model {name}"))?;
        let found = sha256(&std::fs::read(&copy)?);
        ensure!(file["sha256"] == found.as_str(), "{path} of the model {name} changed while it was copied");
    }
    std::fs::write(to.join("model.json"), &output.stdout).context("writing the model's card")
}
