//! `cargo xtask`: what people, CI and the README all call.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{bench, demo, screenshots, test, web};

/// Runs, checks and measures Manyhands from a checkout.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start a relay and workers on this machine; with --prompt, also paint one picture with them and exit.
    Demo(demo::Arguments),
    /// Everything CI checks: formatting, clippy, all tests. Exits 1 at the first that fails.
    Test(test::Arguments),
    /// Build the page: both wasm modules, what they need and the demo model, as a folder for any web server.
    Web(web::Arguments),
    /// Measure: seconds per step, lease round trips, split efficiency.
    Bench(bench::Arguments),
    /// Take pictures of the page, as they stand in docs.
    Screenshots(screenshots::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Web(arguments) => web::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Screenshots(arguments) => screenshots::run(&arguments),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
