//! The programs under test, as people get them, and rooms made of their processes.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::tidy::root;

/// The path of a program of the workspace. Built here if `cargo xtask test` has not done so just before.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let arguments = ["build", "--quiet", "--workspace", "--bins"];
        let status = Command::new(cargo).current_dir(root()).args(arguments).status().expect("cargo runs");
        assert!(status.success(), "the programs do not build");
    });
    let test = std::env::current_exe().expect("a test knows its own path");
    // target/PROFILE/deps/this-test, and the programs two folders up.
    let folder = test.parent().and_then(Path::parent).expect("tests lie in the target folder's deps");
    folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// A command that runs a program of the workspace, with nothing of the caller's environment that changes what it does.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    for variable in ["MANYHANDS_ROOM", "MANYHANDS_RELAY", "MANYHANDS_MODELS", "MANYHANDS_LOG"] {
        command.env_remove(variable);
    }
    // Models are found from the checkout, wherever the programs were built to.
    command.current_dir(root());
    command
}

/// Runs `manyhands` to its end.
pub fn manyhands<const N: usize>(arguments: [&str; N]) -> Output {
    command("manyhands").args(arguments).output().expect("manyhands runs")
}

/// A process that is killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it with its standard output read here.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a built program starts");
        let lines = BufReader::new(child.stdout.take().expect("standard output is piped"));
        Self { child, lines }
    }

    /// The next line as JSON; panics if there is none.
    pub fn json(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the process's output can be read");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    /// Reads JSON lines until one with this event.
    pub fn wait_for(&mut self, event: &str) -> Value {
        loop {
            let line = self.json();
            if line["event"] == event {
                return line;
            }
        }
    }

    /// Reads text up to and with the line `last`.
    pub fn read_until(&mut self, last: &str) -> String {
        let mut text = String::new();
        while !text.lines().any(|line| line == last) {
            let read = self.lines.read_line(&mut text).expect("the process's output can be read");
            assert!(read > 0, "the process ended before it said {last:?}: {text}");
        }
        text
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("our own child can be killed");
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-INT", &pid]).status().expect("kill is there");
        assert!(status.success());
    }

    /// Waits for its end: exit code and the rest of its output.
    pub fn finish(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).expect("the process's output can be read");
        (self.child.wait().expect("our own child can be waited for").code(), rest)
    }

    /// Resident memory in KiB, from /proc; `None` elsewhere.
    pub fn resident_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A relay process on any port; its web address.
pub fn relay(folder: &Path) -> (Process, String) {
    let mut relay =
        Process::start(command("manyhands-relay").args(["--json", "--http", "127.0.0.1:0", "--data"]).arg(folder));
    let url = relay.json()["http"].as_str().expect("the relay says its address").to_owned();
    (relay, url)
}

/// The link of a new room at this relay.
pub fn new_room(url: &str) -> String {
    let output = manyhands(["room", "new", "--relay", url]);
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("a link is text").trim().to_owned()
}

/// A worker process that has entered the room, and its peer id.
pub fn worker(link: &str, arguments: &[&str]) -> (Process, String) {
    let mut command = command("manyhands");
    command.args(["join", link, "--progress", "json", "--threads", "1"]).args(arguments);
    let mut worker = Process::start(&mut command);
    let peer = worker.wait_for("lending")["peer"].as_str().expect("a worker says its id").to_owned();
    (worker, peer)
}
