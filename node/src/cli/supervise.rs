//! `--supervise`: this program as its own small supervisor.

use std::ffi::OsStr;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant as Clock};

use clap::Args;
use node::memory::{self, Budget};
use node::supervision::{Exit, MEMORY_LOOK_EVERY, News, Output, Supervisor};
use protocol::Instant;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};

use super::Ended;
use super::interrupt::{Interrupt, SUPERVISED};
use super::screen::Screen;

/// The flag, which the supervised process is started without.
const FLAG: &str = "--supervise";

/// What a process needs beside the time for its work to end when it is asked to.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// Without anything due, this soon enough.
const LONG: Duration = Duration::from_secs(60 * 60);

/// Options of commands that can be supervised.
#[derive(Args)]
pub struct Supervision {
    /// Run under a supervisor: a small process that starts this command again after a crash (after 1 s, doubling to 60 s, from
    /// the beginning again once it ran for 5 minutes), or when it holds more memory than its budget, and passes on requests to
    /// end. A clean end and wrong usage (exit code 2) end it too, with the same exit code.
    #[arg(long)]
    pub supervise: bool,
    /// The most memory to hold, for example 6GB, 512MiB or unlimited. Looked at under --supervise, where the system tells
    /// (Linux) [default: three quarters of this machine's or container's].
    #[arg(long, value_name = "AMOUNT", env = "MANYHANDS_MEMORY_BUDGET", hide_env_values = true)]
    pub memory_budget: Option<Budget>,
}

impl Supervision {
    /// The budget as given, or this machine's.
    pub fn budget(&self) -> Budget {
        self.memory_budget.unwrap_or_else(Budget::of_this_machine)
    }
}

/// A child and the way to ask it to end.
struct Supervised {
    process: Child,
    asks: ChildStdin,
}

/// Keeps this very command running, without the flag; when asked to end it gives it `grace` for that.
pub async fn run(arguments: &Supervision, screen: &Screen, grace: Duration) -> Ended {
    let mut interrupt = Interrupt::listen()?;
    let mut supervisor = Supervisor::new(arguments.budget(), grace);
    let mut child: Option<Supervised> = None;
    let mut look = tokio::time::interval(MEMORY_LOOK_EVERY);
    let origin = Clock::now();
    let now = || Instant::from_origin(origin.elapsed());
    loop {
        while let Some(output) = supervisor.poll_output() {
            match output {
                Output::Start => match start() {
                    Ok(started) => {
                        let process = started.process.id();
                        child = Some(started);
                        let text = format!("Supervising process {}.", process.unwrap_or_default());
                        screen.tell("started", &text, json!({ "process": process }));
                        supervisor.handle_started(now());
                    }
                    Err(error) => supervisor.handle_not_started(format!("it cannot be started: {error}"), now()),
                },
                Output::Ask => {
                    if let Some(child) = &mut child {
                        // One that is gone needs no asking.
                        let _ = child.asks.write_all(b"\n").await;
                    }
                }
                Output::Kill => child.iter_mut().for_each(|child| drop(child.process.start_kill())),
                Output::Tell(news) => show(screen, &news),
                Output::End(code) => return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
            }
        }
        let due = supervisor.poll_timeout().map_or(LONG, |due| due.since(now()));
        tokio::select! {
            exit = exited(&mut child) => {
                child = None;
                supervisor.handle_exited(exit, now());
            }
            () = interrupt.asked() => supervisor.handle_asked(now()),
            _ = look.tick() => {
                let process = child.as_ref().and_then(|child| child.process.id());
                if let Some(bytes) = process.and_then(memory::resident_bytes) {
                    supervisor.handle_memory(bytes, now());
                }
            }
            () = tokio::time::sleep(due) => {}
        }
        supervisor.handle_timeout(now());
    }
}

fn start() -> std::io::Result<Supervised> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1).filter(|argument| argument.as_os_str() != OsStr::new(FLAG)));
    command.env(SUPERVISED, "1").stdin(Stdio::piped()).kill_on_drop(true);
    let mut process = command.spawn()?;
    // Taken out of it, because waiting for the process would close it.
    let asks = process.stdin.take().ok_or_else(|| std::io::Error::other("it has no standard input"))?;
    Ok(Supervised { process, asks })
}

async fn exited(child: &mut Option<Supervised>) -> Exit {
    match child {
        Some(child) => child.process.wait().await.map_or(Exit::Code(1), exit_of),
        None => std::future::pending().await,
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return Exit::Signal(signal);
    }
    Exit::Code(status.code().unwrap_or(1))
}

fn show(screen: &Screen, news: &News) {
    match news {
        News::Restart { how, again_in } => {
            let text =
                format!("The supervised process ended ({how}); it is started again in {} s.", again_in.as_secs());
            screen.tell("restart", &text, json!({ "again_in_s": again_in.as_secs() }));
        }
        News::OverBudget { bytes } => {
            let held = memory::in_words(*bytes);
            let text = format!("The supervised process holds {held}, more than its memory budget; it is started anew.");
            screen.tell("over-budget", &text, json!({ "bytes": bytes }));
        }
        News::Stubborn => screen.say("stubborn", "The supervised process does not stop when asked, and is killed."),
    }
}
