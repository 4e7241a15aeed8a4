//! `cargo xtask bench`: figures, each with what it was measured on; ratios come from one run.

mod browser;
mod split;

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::build::Programs;
use crate::processes::{Process, Room};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only the figures whose name contains this: engine, lease or split; with --browser size, picture, path or unet.
    only: Option<String>,
    /// The figures of the page, built small and run in a real Chromium.
    #[arg(long)]
    browser: bool,
}

/// Measures and prints.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let programs = Programs::build()?;
    let wanted = |name: &str| arguments.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    println!("load {} cores {}", load(), std::thread::available_parallelism().map_or(1, usize::from));
    if arguments.browser {
        browser::measure(&programs, arguments.only.as_deref())?;
        println!("load {}", load());
        return Ok(ExitCode::SUCCESS);
    }
    if wanted("engine") {
        let figures = measure(&programs, &["bench", "engine"])?;
        for key in ["step_128x128_s", "step_384x128_s", "decode_128x128_s", "decode_384x128_s"] {
            println!("engine {key} {:.4}", number(&figures, key)?);
        }
    }
    if wanted("lease") {
        let figures = in_room(&programs, 1, 0, &["bench", "lease"])?;
        for key in ["leases", "p50_ms", "p99_ms"] {
            println!("lease-32KiB-quic {key} {:.3}", number(&figures, key)?);
        }
    }
    if wanted("split") {
        split::measure(&programs)?;
    }
    println!("load {}", load());
    Ok(ExitCode::SUCCESS)
}

fn in_room(programs: &Programs, workers: usize, unit_ms: u64, command: &[&str]) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let join = ["--fake-ms", &unit_ms.to_string(), "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];
    let room = Room::open(programs, folder.path(), workers, &join)?;
    let workers = workers.to_string();
    measure(programs, &[command, &["--room", &room.link, "--min-workers", &workers]].concat())
}

fn measure(programs: &Programs, arguments: &[&str]) -> Result<Value> {
    Process::start("the measurement", programs.node().args(arguments))?.json()
}

fn number(figures: &Value, key: &str) -> Result<f64> {
    figures[key].as_f64().with_context(|| format!("the measurement has no {key}: {figures}"))
}

/// The machine's load averages, where it tells them.
fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}
