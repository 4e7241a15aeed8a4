//! Processes of ours that end when we do.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::build::Programs;

/// A child that is killed when dropped and whose standard output is read line by line.
pub struct Process {
    name: String,
    child: Child,
    lines: BufReader<ChildStdout>,
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
        let lines = BufReader::new(child.stdout.take().expect("standard output is piped"));
        Ok(Self { name, child, lines })
    }

    /// The next line it prints, or `None` once it has closed its output.
    pub fn line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        let bytes = self.lines.read_line(&mut line).with_context(|| format!("reading from {}", self.name))?;
        Ok((bytes > 0).then(|| line.trim_end().to_owned()))
    }

    /// The next line as JSON; an error if the process ended instead.
    pub fn json(&mut self) -> Result<Value> {
        let Some(line) = self.line()? else {
            let status = self.child.wait()?;
            bail!("{} ended at once ({status}); the lines above say why", self.name);
        };
        serde_json::from_str(&line).with_context(|| format!("{} printed {line:?} where JSON was due", self.name))
    }

    /// SIGKILL on Unix: the process gets no chance to say goodbye.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("killing {}", self.name))
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().with_context(|| format!("waiting for {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is what we want; nothing to do about anything else.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A relay and some workers in one room, each a process.
pub struct Room {
    /// The room's link.
    pub link: String,
    /// The workers, in the order they were started.
    pub workers: Vec<Process>,
    _relay: Process,
}

impl Room {
    /// Starts a relay that keeps its data in `folder` and `workers` workers, each with `arguments` after `join LINK`.
    pub fn open(programs: &Programs, folder: &Path, port: u16, workers: usize, arguments: &[&str]) -> Result<Self> {
        let mut relay = Command::new(&programs.relay);
        relay.args(["--json", "--http", &format!("127.0.0.1:{port}"), "--data"]).arg(folder);
        let mut relay = Process::start("the relay", &mut relay)?;
        let url = relay.json()?["http"].as_str().context("the relay did not say its address")?.to_owned();
        let link = Command::new(&programs.node).args(["room", "new", "--relay", &url]).output()?;
        let link = String::from_utf8(link.stdout)?.trim().to_owned();
        let join = |index: usize| {
            let mut command = Command::new(&programs.node);
            command.args(["join", &link, "--progress", "json", "--name", &format!("worker-{}", index + 1)]);
            Process::start(format!("worker {}", index + 1), command.args(arguments))
        };
        let mut workers = (0..workers).map(join).collect::<Result<Vec<_>>>()?;
        for worker in &mut workers {
            // The first line says that the model is loaded and the room is entered.
            worker.json()?;
        }
        Ok(Self { link, workers, _relay: relay })
    }
}
