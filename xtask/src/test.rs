//! `cargo xtask test`: everything CI checks, in the order in which it fails fastest.

use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::browser;
use crate::build::{Programs, cargo, root, step};
use crate::packages;
use crate::target;
use crate::web::{self, Quality};

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
    // The engine of the page is a workspace of its own.
    step("format of the engine", cargo().current_dir(root().join("wasm/engine")).args(["fmt", "--check"]))?;
    step("clippy", cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    let simulator = ["--package", "coordinator", "--features", "mutants"];
    step(
        "clippy of the simulator",
        cargo().args(["clippy", "--quiet", "--all-targets"]).args(simulator).args(["--", "--deny", "warnings"]),
    )?;
    wasm()?;
    if !arguments.lint {
        // The tests of whole processes run the programs as people get them.
        let programs = Programs::build()?;
        wasm_bits()?;
        let rooms = ["test", "--quiet", "--lib", "--test", "sim", "--test", "mutants"];
        step("rooms in virtual time", cargo().args(rooms).args(simulator))?;
        wasm_rooms()?;
        let mut tests = cargo();
        // The tests drive the page in a real browser, and say what they skip without one.
        if browser::install() {
            tests.env(web::BUILT, web::build(&programs, Quality::Dev, None)?);
        }
        packages::install_for_rough_network();
        packages::install_for_queue();
        step("tests", tests.args(["test", "--quiet", "--workspace", "--no-fail-fast"]))?;
    }
    eprintln!("== all passed in {} s", began.elapsed().as_secs());
    Ok(ExitCode::SUCCESS)
}

/// Lints what runs in browsers as it is compiled for them.
fn wasm() -> Result<()> {
    const TARGET: &str = web::TARGET;
    if !target::is_installed(TARGET)? {
        eprintln!("== SKIPPED clippy for the page: the target {TARGET} cannot be installed");
        return Ok(());
    }
    let crates = ["protocol", "coordinator", "sampler", "net", "node", "wasm"].map(|name| ["--package", name]);
    let mut clippy = cargo();
    clippy.args(["clippy", "--quiet", "--lib", "--target", TARGET]).args(crates.as_flattened());
    step("clippy for the page", clippy.args(["--", "--deny", "warnings"]))
}

/// Runs the same simulated rooms natively and as wasm: whatever happens in them is the same, line by line.
fn wasm_rooms() -> Result<()> {
    const TARGET: &str = "wasm32-wasip1";
    if !runs_wasm(TARGET)? {
        eprintln!("== SKIPPED rooms in wasm: needs Node.js and the target {TARGET}");
        return Ok(());
    }
    eprintln!("== the same rooms in wasm");
    let hashes = |target: &[&str]| -> Result<String> {
        let mut rooms = cargo();
        rooms.env("CARGO_TARGET_WASM32_WASIP1_RUNNER", "node --no-warnings xtask/wasi.mjs");
        rooms.args(["run", "--quiet", "--package", "coordinator", "--features", "sim", "--bin", "sim"]).args(target);
        rooms.args(["--", "--hashes", "--seeds", "50", "--threads", "1"]).stderr(Stdio::inherit());
        let output = rooms.output().context("running the simulator")?;
        ensure!(output.status.success(), "the simulator failed; the lines above say where");
        Ok(String::from_utf8(output.stdout)?)
    };
    let native = hashes(&[])?;
    ensure!(native.lines().count() == 50, "the simulator gave no hash for every seed");
    ensure!(native == hashes(&[])?, "two processes play the same rooms differently");
    ensure!(native == hashes(&["--target", TARGET])?, "rooms are played differently in wasm");
    Ok(())
}

/// Whether programs of this target can be built and run.
fn runs_wasm(target: &str) -> Result<bool> {
    let node = Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
    Ok(node && target::is_installed(target)?)
}

/// Runs the sampler's tests as wasm: their pinned hashes say that its bits are those of the native build.
fn wasm_bits() -> Result<()> {
    const TARGET: &str = "wasm32-wasip1";
    if !runs_wasm(TARGET)? {
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
