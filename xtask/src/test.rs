//! `cargo xtask test`: everything CI checks, in the order in which it fails fastest.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::build::{cargo, step};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only formatting and clippy.
    #[arg(long)]
    lint: bool,
}

/// Runs the checks.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let began = Instant::now();
    component("fmt", "rustfmt")?;
    component("clippy", "clippy")?;
    step("format", cargo().args(["fmt", "--all", "--check"]))?;
    step("clippy", cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    wasm()?;
    if !arguments.lint {
        // The tests of whole processes run the programs as people get them.
        step("build", cargo().args(["build", "--quiet", "--workspace", "--bins"]))?;
        wasm_bits()?;
        step("tests", cargo().args(["test", "--quiet", "--workspace", "--no-fail-fast"]))?;
    }
    eprintln!("== all passed in {} s", began.elapsed().as_secs());
    Ok(ExitCode::SUCCESS)
}

/// Checks that what runs in browsers compiles for them.
fn wasm() -> Result<()> {
    const TARGET: &str = "wasm32-unknown-unknown";
    if !has_target(TARGET)? {
        eprintln!("== SKIPPED wasm check: rustup could not install the target {TARGET}");
        return Ok(());
    }
    let crates = ["protocol", "coordinator", "sampler", "wasm"].map(|name| ["--package", name]);
    step("wasm check", cargo().args(["check", "--quiet", "--target", TARGET]).args(crates.as_flattened()))
}

/// Runs the sampler's tests as wasm: their pinned hashes say that its bits are those of the native build.
fn wasm_bits() -> Result<()> {
    const TARGET: &str = "wasm32-wasip1";
    let node = Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
    if !node || !has_target(TARGET)? {
        eprintln!("== SKIPPED the sampler's bits in wasm: needs Node.js and the target {TARGET}");
        return Ok(());
    }
    let mut tests = cargo();
    // Tests run in their crate's folder; a path from there holds no spaces, at which cargo would cut it.
    tests.env("CARGO_TARGET_WASM32_WASIP1_RUNNER", "node --no-warnings ../xtask/wasi.mjs");
    step(
        "the sampler's bits in wasm",
        tests.args(["test", "--quiet", "--package", "sampler", "--lib", "--target", TARGET]),
    )
}

/// Whether rustc has the standard library for `target`, after asking rustup for it if not.
fn has_target(target: &str) -> Result<bool> {
    let found = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output()?;
    let is_there = || Path::new(String::from_utf8_lossy(&found.stdout).trim()).is_dir();
    if !is_there() {
        eprintln!("== installing {target}");
        // Whoever needs it looks again, and says what is skipped without it.
        let _ = Command::new("rustup").args(["target", "add", target]).status();
    }
    Ok(is_there())
}

/// Sees that a cargo component is there, or has rustup install it.
fn component(command: &str, name: &str) -> Result<()> {
    let works = |arguments: &[&str]| cargo().args(arguments).output().is_ok_and(|output| output.status.success());
    if works(&[command, "--version"]) {
        return Ok(());
    }
    eprintln!("== installing {name}");
    let installed =
        Command::new("rustup").args(["component", "add", name]).status().is_ok_and(|status| status.success());
    ensure!(installed, "cargo {command} is missing and rustup could not install it; install the component {name}");
    Ok(())
}
