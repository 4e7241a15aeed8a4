//! `cargo xtask demo`: a room on this machine, every member its own process.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;

use anyhow::{Context, Result, bail, ensure};

use crate::build::Programs;
use crate::processes::{LOOPBACK, Process, Room, serve};
use crate::web::{self, Quality};

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Paint this, then exit; without it the room stays open until Ctrl-C.
    #[arg(long)]
    prompt: Option<String>,
    /// Picture size in pixels.
    #[arg(long, default_value = "384x128", value_name = "WxH")]
    size: String,
    /// Do not build and serve the page; --prompt does not need it and never does.
    #[arg(long)]
    no_web: bool,
    /// Worker processes.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Seed of the noise.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Where the picture goes.
    #[arg(long, default_value = "demo.png", value_name = "FILE.png")]
    out: PathBuf,
    /// Where the report goes.
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    /// SIGKILL one worker after the room has delivered this many units.
    #[arg(long, value_name = "K", requires = "prompt")]
    kill_after_units: Option<u64>,
    /// More options for `manyhands paint`, after `--`.
    #[arg(last = true)]
    paint: Vec<String>,
}

/// Runs the demo.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(arguments.workers >= 1, "the demo needs at least one worker; give --workers 1 or more");
    let programs = Programs::build()?;
    let folder = tempfile::tempdir().context("making a folder for the relay's data")?;
    let threads = (cores() / arguments.workers).max(1).to_string();
    let join = [&["--threads", &threads], LOOPBACK.as_slice()].concat();
    let page = match arguments.prompt.is_some() || arguments.no_web {
        true => PathBuf::from("none"),
        false => web::build(&programs, Quality::Dev, None)?,
    };
    let mut room = Room::open_with_page(&programs, folder.path(), &page, arguments.workers, &join)?;
    match &arguments.prompt {
        Some(prompt) => paint(&programs, &mut room, prompt, arguments),
        None => {
            let threads = ["--threads", &threads];
            let _painter = serve(&programs, &room.url, folder.path(), &threads)?;
            stay_open(&programs, &room, !arguments.no_web)
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn stay_open(programs: &Programs, room: &Room, has_page: bool) -> Result<ExitCode> {
    println!("A relay, {} workers and one for its queue run on this machine. The room is\n", room.workers.len());
    println!("    {}\n", room.link);
    match has_page {
        true => println!("Open it in a browser, or use another terminal:\n"),
        false => println!("Paint in it from another terminal:\n"),
    }
    let node = programs.node.display();
    println!(
        "    {node} paint \"mountains at sunset with a lake\" --size 384x128 --room '{}' --out a.png\n",
        room.link
    );
    println!("Ctrl-C closes the room.");
    let (closed, close) = mpsc::channel();
    ctrlc::set_handler(move || {
        let _ = closed.send(());
    })?;
    close.recv().context("waiting for Ctrl-C")?;
    Ok(ExitCode::SUCCESS)
}

fn paint(programs: &Programs, room: &mut Room, prompt: &str, arguments: &Arguments) -> Result<ExitCode> {
    let mut command = programs.node();
    command
        .args(["paint", prompt, "--room", &room.link, "--no-local", "--progress", "json", "--wait", "60"])
        .args(LOOPBACK);
    command.args(["--size", &arguments.size, "--seed", &arguments.seed.to_string()]);
    command.args(["--min-workers", &arguments.workers.to_string()]).arg("--out").arg(&arguments.out);
    if let Some(report) = &arguments.report {
        command.arg("--report").arg(report);
    }
    let mut painting = Process::start("the painting", command.args(&arguments.paint))?;
    let mut killed = false;
    while let Some(line) = painting.line() {
        let event: serde_json::Value = serde_json::from_str(&line).with_context(|| format!("reading {line:?}"))?;
        let units = event["units"].as_u64();
        if let Some(text) = event["text"].as_str() {
            println!("{text}");
        }
        if !killed && arguments.kill_after_units.is_some_and(|after| units.is_some_and(|units| units >= after)) {
            room.workers[0].kill()?;
            killed = true;
            println!("killed worker-1 after {} units", units.unwrap_or_default());
        }
    }
    let status = painting.wait()?;
    if !status.success() {
        return Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)));
    }
    if arguments.kill_after_units.is_some() && !killed {
        bail!("the picture was finished before the worker was to be killed; give a smaller --kill-after-units");
    }
    Ok(ExitCode::SUCCESS)
}
