//! Processes of ours that end when we do.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::build::Programs;

/// A child that is killed when dropped and whose standard output is read line by line.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Filled by a thread that always reads, so that the child never waits for us to.
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts `command`; its errors go to ours.
    pub fn start(name: impl Into<String>, command: &mut Command) -> Result<Self> {
        let name = name.into();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().display()))?;
        let output = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { name, child, lines })
    }

    /// The next line it prints, or `None` once it has closed its output.
    pub fn line(&mut self) -> Option<String> {
        self.lines.recv().ok()
    }

    /// The next line as JSON; an error if the process ended instead.
    pub fn json(&mut self) -> Result<Value> {
        let Some(line) = self.line() else {
            let status = self.child.wait()?;
            bail!("{} ended ({status}); the lines above say why", self.name);
        };
        serde_json::from_str(&line).with_context(|| format!("{} printed {line:?} where JSON was due", self.name))
    }

    /// Reads JSON lines until one with this `event`.
    pub fn wait_for(&mut self, event: &str) -> Result<Value> {
        loop {
            let line = self.json()?;
            if line["event"] == event {
                return Ok(line);
            }
        }
    }

    /// SIGKILL on Unix: the process gets no chance to say goodbye.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("killing {}", self.name))
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().with_context(|| format!("waiting for {}", self.name))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is what we want; nothing to do about anything else.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Listen on any port of this machine's loopback interface, for programs and for browsers.
pub const LOOPBACK: [&str; 8] = [
    "--listen",
    "/ip4/127.0.0.1/udp/0/quic-v1",
    "--listen",
    "/ip4/127.0.0.1/tcp/0",
    "--listen",
    "/ip4/127.0.0.1/udp/0/quic-v1/webtransport",
    "--listen",
    "/ip4/127.0.0.1/tcp/0/ws",
];

/// A relay on free ports of the loopback interface, without a page, and its web address.
pub fn relay(programs: &Programs, folder: &Path) -> Result<(Process, String)> {
    relay_with_page(programs, folder, Path::new("none"))
}

/// The same with the page of this folder.
pub fn relay_with_page(programs: &Programs, folder: &Path, page: &Path) -> Result<(Process, String)> {
    relay_with(programs, folder, page, "127.0.0.1:0", None)
}

/// The same at this web address, with the settings of a file.
pub fn relay_with(
    programs: &Programs,
    folder: &Path,
    page: &Path,
    http: &str,
    settings: Option<&Path>,
) -> Result<(Process, String)> {
    let mut command = Command::new(&programs.relay);
    command.args(["--json", "--log", "warn", "--http", http]).args(LOOPBACK).arg("--data").arg(folder);
    command.arg("--web").arg(page);
    if let Some(settings) = settings {
        command.arg("--config").arg(settings);
    }
    let mut relay = Process::start("the relay", &mut command)?;
    let url = relay.json()?["http"].as_str().context("the relay did not say its address")?.to_owned();
    Ok((relay, url))
}

/// The link of a new room at the relay of this web address.
pub fn new_room(programs: &Programs, url: &str) -> Result<String> {
    let output = programs.node().args(["room", "new", "--relay", url]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A worker that has loaded its model and entered the room of `link`, and what it said about itself.
pub fn worker(programs: &Programs, link: &str, name: &str, arguments: &[&str]) -> Result<(Process, Value)> {
    let mut command = programs.node();
    command.args(["join", link, "--progress", "json", "--name", name]).args(arguments);
    let mut worker = Process::start(name, &mut command)?;
    let lending = worker.wait_for("lending")?;
    Ok((worker, lending))
}

/// A worker that takes whole pictures from every room's queue at the relay of this web address, which keeps its data in `folder`.
pub fn serve(programs: &Programs, url: &str, folder: &Path, arguments: &[&str]) -> Result<Process> {
    let mut command = Command::new(&programs.relay);
    command.args(["token", "--user", "worker", "--can", "operate", "--ttl", "7d", "--data"]).arg(folder);
    let output = command.output().context("making a token for the worker of the queue")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let mut command = programs.node();
    command.env("MANYHANDS_TOKEN", String::from_utf8(output.stdout)?.trim());
    command.args(["serve", "--progress", "json", "--queue", &format!("{url}/v2/_")]).args(arguments);
    let mut worker = Process::start("the worker of the queue", &mut command)?;
    worker.wait_for("serving")?;
    Ok(worker)
}

/// A relay and some workers in one room, each a process.
pub struct Room {
    /// The room's link.
    pub link: String,
    /// The workers, in the order they were started.
    pub workers: Vec<Process>,
    /// The relay's web address.
    pub url: String,
    _relay: Process,
}

impl Room {
    /// Starts a relay that keeps its data in `folder`, and `workers` workers, each with `arguments` after `join LINK`.
    pub fn open(programs: &Programs, folder: &Path, workers: usize, arguments: &[&str]) -> Result<Self> {
        Self::open_with_page(programs, folder, Path::new("none"), workers, arguments)
    }

    /// The same with a relay that serves the page of this folder.
    pub fn open_with_page(
        programs: &Programs,
        folder: &Path,
        page: &Path,
        workers: usize,
        arguments: &[&str],
    ) -> Result<Self> {
        let (relay, url) = relay_with_page(programs, folder, page)?;
        let link = new_room(programs, &url)?;
        let join = |index| Ok(worker(programs, &link, &format!("worker-{index}"), arguments)?.0);
        let workers = (1..=workers).map(join).collect::<Result<Vec<_>>>()?;
        Ok(Self { link, workers, url, _relay: relay })
    }
}
