//! The command line: what can be said, and how everything that goes wrong is told.

mod bench;
mod card;
mod doctor;
mod interrupt;
mod join;
mod paint;
mod parity;
mod room;
mod screen;
mod serve;
mod supervise;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Rooms of browsers and machines that paint one picture together.
///
/// Make a room with `manyhands room new`, share its link, lend machines with `manyhands join LINK`, and paint with
/// `manyhands paint "mountains at sunset with a lake" --room LINK`. Without --room, `paint` uses this machine alone.
#[derive(Parser)]
#[command(name = "manyhands", version, propagate_version = true)]
#[command(after_help = "MANYHANDS_LOG=debug tells more on standard error; MANYHANDS_MODELS names the models folder.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make rooms.
    Room(room::Arguments),
    /// Lend this machine to a room until Ctrl-C.
    Join(join::Arguments),
    /// Paint a picture, with a room or alone.
    Paint(paint::Arguments),
    /// Take whole pictures from a queue, of a relay or on RunPod, until Ctrl-C.
    Serve(serve::Arguments),
    /// Say what this machine can do, and why not.
    Doctor(doctor::Arguments),
    /// Compare this build with recorded diffusers results.
    Parity(parity::Arguments),
    /// Print a model's card, which pages need beside its files.
    Card(card::Arguments),
    /// Figures for `cargo xtask bench`.
    #[command(hide = true)]
    Bench(bench::Arguments),
}

/// A reason to stop, in one line that says what was wrong and what to do; exit code 2.
#[derive(Debug)]
pub struct Complaint(pub String);

/// Exit code of a command stopped by Ctrl-C, as shells have it (128 + SIGINT).
const INTERRUPTED: u8 = 130;

/// How a command ends.
pub type Ended = Result<ExitCode, Complaint>;

impl<T: ToString> From<T> for Complaint {
    fn from(reason: T) -> Self {
        Self(reason.to_string())
    }
}

/// Runs what the arguments say.
pub fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("MANYHANDS_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let ended = match Arguments::parse().command {
        Command::Room(arguments) => room::run(&arguments),
        Command::Join(arguments) => in_runtime(1, join::run(arguments)),
        Command::Paint(arguments) => in_runtime(2, paint::run(arguments)),
        Command::Serve(arguments) => in_runtime(2, serve::run(arguments)),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Parity(arguments) => parity::run(&arguments),
        Command::Card(arguments) => card::run(&arguments),
        Command::Bench(arguments) => in_runtime(2, bench::run(arguments)),
    };
    ended.unwrap_or_else(|Complaint(reason)| {
        tell(&reason);
        ExitCode::from(2)
    })
}

/// Ends a lender because of what may pass by itself, as a relay that is away: exit code 1, after which a supervisor tries again.
fn setback(reason: impl ToString) -> Ended {
    tell(&reason.to_string());
    Ok(ExitCode::FAILURE)
}

/// Tells why a command ends, in one line, whatever a library or a peer put into its message.
fn tell(reason: &str) {
    eprintln!("error: {}", screen::plain(&reason.split_whitespace().collect::<Vec<_>>().join(" ")));
}

/// Runs a command, with `threads` beside this one for the network and the loop. A lender needs one: its engine has threads of its own,
/// and two that share what little there is to do mostly wake each other.
fn in_runtime(threads: usize, command: impl Future<Output = Ended>) -> Ended {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let ended = runtime.block_on(command);
    // An engine in the middle of a unit does not keep the process from ending.
    runtime.shutdown_background();
    ended
}
