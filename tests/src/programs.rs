//! The programs under test, as people get them, and rooms made of their processes.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use xtask::build::Programs;
use xtask::processes;

pub use xtask::processes::{LOOPBACK, Process};

use crate::tidy::root;

/// The programs. Built here if `cargo xtask test` has not done so just before.
pub fn programs() -> &'static Programs {
    static BUILT: OnceLock<Programs> = OnceLock::new();
    BUILT.get_or_init(|| Programs::build().expect("the programs build"))
}

/// A command that runs a program, with nothing of the caller's environment that changes what it does.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if (name.starts_with("MANYHANDS_") && name != xtask::web::BUILT) || name.starts_with("RUNPOD_") {
            command.env_remove(variable);
        }
    }
    // What is kept of paintings that are killed here is none of the user's.
    command.env("MANYHANDS_STATE", std::env::temp_dir().join("manyhands-tests"));
    // Models are found from the checkout, wherever the programs were built to.
    command.current_dir(root());
    command
}

/// A command that runs `manyhands`.
pub fn node() -> Command {
    command(&programs().node)
}

/// A command that runs `manyhands-relay`.
pub fn relay_command() -> Command {
    command(&programs().relay)
}

/// A command that runs another program of the checkout: `xtask`, as `cargo xtask` does, or one that only tests have.
pub fn program(name: &str) -> Command {
    command(&programs().node.with_file_name(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
}

/// A command that runs `xtask`.
pub fn xtask() -> Command {
    program("xtask")
}

/// Runs `manyhands` to its end.
pub fn manyhands<const N: usize>(arguments: [&str; N]) -> Output {
    node().args(arguments).output().expect("manyhands runs")
}

/// Starts a command whose standard output is read here.
pub fn start(command: &mut Command) -> Process {
    Process::start("the process under test", command).expect("a built program starts")
}

/// A relay process on free ports; its web address.
pub fn relay(folder: &Path) -> (Process, String) {
    processes::relay(programs(), folder).expect("the relay starts")
}

/// The link of a new room at this relay.
pub fn new_room(url: &str) -> String {
    processes::new_room(programs(), url).expect("a room can be made")
}

/// The link of a new room at this relay in which nobody is believed alone.
pub fn open_room(url: &str) -> String {
    let output = manyhands(["room", "new", "--relay", url, "--trust", "open"]);
    String::from_utf8(output.stdout).expect("a link is text").trim().to_owned()
}

/// A worker process that has entered the room, and its peer id.
pub fn worker(link: &str, arguments: &[&str]) -> (Process, String) {
    let arguments = [&["--threads", "1"], arguments].concat();
    let (worker, lending) = processes::worker(programs(), link, "worker", &arguments).expect("a worker starts");
    (worker, lending["peer"].as_str().expect("a worker says its id").to_owned())
}

/// Sends Ctrl-C.
pub fn interrupt(process: &Process) {
    signal(process, "-INT");
}

/// Sends a signal by its name for `kill`.
pub fn signal(process: &Process, signal: &str) {
    let status = Command::new("kill").args([signal, &process.id().to_string()]).status().expect("kill is there");
    assert!(status.success());
}

/// Waits for a process's end: its exit code and the rest of its output.
pub fn finish(mut process: Process) -> (Option<i32>, String) {
    let rest: Vec<String> = std::iter::from_fn(|| process.line()).collect();
    (process.wait().expect("our own child can be waited for").code(), rest.join("\n"))
}

/// Resident memory of a process in KiB, from /proc; `None` on other systems.
pub fn resident_kib(process: &Process) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}
