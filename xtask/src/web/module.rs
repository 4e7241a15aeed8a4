//! One wasm module: compiled, and bound to JavaScript.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::cache::Cache;
use super::{Quality, TARGET, tools};
use crate::build::{cargo, root, step};

/// A module of the page.
pub struct Module {
    /// Its folder in the page's folder, and the name of its files there.
    pub name: &'static str,
    /// The crate's folder.
    source: PathBuf,
    /// Where its lock file lies.
    lock: PathBuf,
    /// Of cargo.
    profile: &'static str,
    /// Its own build folder below the target folder, for a crate outside the workspace.
    own_target: Option<&'static str>,
}

impl Module {
    /// The participant, the JavaScript API and the page's interface.
    pub fn page(quality: Quality) -> Self {
        let profile = match quality {
            Quality::Dev => "dev",
            Quality::Release => "page",
        };
        Self { name: "page", source: root().join("wasm"), lock: root().join("Cargo.lock"), profile, own_target: None }
    }

    /// The engine, a workspace of its own. Its development profile optimises what computes.
    pub fn engine(quality: Quality) -> Self {
        let source = root().join("wasm").join("engine");
        let lock = source.join("Cargo.lock");
        Self { name: "engine", source, lock, profile: quality.engine_profile(), own_target: Some("engine") }
    }

    /// Makes the module; returns the folder of its JavaScript and wasm files.
    pub fn make(&self, target_folder: &Path, quality: Quality, cache: &mut Cache) -> Result<PathBuf> {
        let compiled = self.compile(target_folder)?;
        let wasm = std::fs::read(&compiled).with_context(|| format!("reading {}", compiled.display()))?;
        let bindgen = tools::bindgen(&self.lock, target_folder)?;
        let inputs = [&wasm, self.name.as_bytes(), bindgen.version.as_bytes()];
        cache.take(&inputs, |out| self.bind(&bindgen.program, &compiled, quality, out))
    }

    /// Compiles the crate; returns the path of its wasm file.
    fn compile(&self, target_folder: &Path) -> Result<PathBuf> {
        eprintln!("== compile the {} module", self.name);
        let mut build = cargo();
        // In the crate's folder, for its own cargo configuration.
        build.current_dir(&self.source);
        if let Some(own) = self.own_target {
            build.env("CARGO_TARGET_DIR", target_folder.join(own));
        }
        build.args(["build", "--quiet", "--lib", "--profile", self.profile, "--target", TARGET]);
        build.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
        let output = build.output().context("starting cargo")?;
        ensure!(output.status.success(), "the {} module does not compile; the lines above say where", self.name);
        let messages = output.stdout.split(|byte| *byte == b'\n');
        let messages = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let manifest = self.source.join("Cargo.toml");
        let own = messages.filter(|message| message["manifest_path"].as_str().map(Path::new) == Some(&manifest));
        let files = own.flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default());
        let mut paths = files.filter_map(|file| file.as_str().map(PathBuf::from));
        paths
            .find(|path| path.extension().is_some_and(|ending| ending == "wasm"))
            .with_context(|| format!("{} makes no wasm file; its library must be a cdylib", manifest.display()))
    }

    fn bind(&self, bindgen: &Path, compiled: &Path, quality: Quality, out: &Path) -> Result<()> {
        let mut bind = Command::new(bindgen);
        bind.args(["--target", "web", "--no-typescript", "--out-name", self.name]).arg("--out-dir").arg(out);
        if quality == Quality::Release {
            bind.args(["--remove-name-section", "--remove-producers-section"]);
        }
        step(&format!("bind the {} module", self.name), bind.arg(compiled))
    }
}
