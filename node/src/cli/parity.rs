//! `manyhands parity`: this build against results recorded from diffusers.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Ended;

/// Options of `manyhands parity`.
#[derive(Args)]
pub struct Arguments {
    /// A folder with a model and `golden/`, or with recorded schedules.
    folder: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the largest absolute and relative error of every recorded tensor; exit code 1 if any is over its bound.
pub fn run(arguments: &Arguments) -> Ended {
    let report = compute::parity::run(&arguments.folder)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
