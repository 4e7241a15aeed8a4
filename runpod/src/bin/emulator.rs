//! `runpod-emulator`: an endpoint for tests, in a process of its own.

use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use queue::MicroUsd;
use runpod::emulator::{Behaviour, Emulator, Orders, Settings, Workers};
use serde_json::json;
use tokio::net::TcpListener;

/// Behaves as a RunPod serverless endpoint does, and misbehaves as told by POST /_behave. For tests alone.
#[derive(Parser)]
#[command(name = "runpod-emulator", version)]
struct Options {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// At which port; 0 for a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The key that clients and workers must have.
    #[arg(long, default_value = "emulator-key")]
    key: String,
    /// The endpoint's name in its address.
    #[arg(long, default_value = "emu")]
    endpoint: String,
    /// Who runs jobs.
    #[arg(long, value_enum, default_value = "simulated")]
    workers: WorkersOption,
    /// The most simulated workers at once.
    #[arg(long, default_value_t = 3)]
    workers_max: usize,
    /// How much faster its clock goes.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// How long a worker takes to start.
    #[arg(long, default_value_t = 8000)]
    cold_start_ms: u64,
    /// How long a job runs.
    #[arg(long, default_value_t = 3000)]
    execution_ms: u64,
    /// How long a worker stays without work.
    #[arg(long, default_value_t = 5000)]
    idle_ms: u64,
    /// What a second of a worker costs, in millionths of a dollar.
    #[arg(long, default_value_t = 190)]
    price_micro_usd: u64,
    /// Calls of /run in 10 s.
    #[arg(long, default_value_t = 1000)]
    run_calls_max: u32,
    /// Calls of any other operation in 10 s.
    #[arg(long, default_value_t = 2000)]
    calls_max: u32,
    /// What chance is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How likely a call misbehaves, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    chance: f64,
    /// In which ways, such as `throttle,stuck`; all if none is given.
    #[arg(long, value_delimiter = ',', value_parser = behaviour)]
    of: Vec<Behaviour>,
    /// Says where it listens as a line of JSON.
    #[arg(long)]
    json: bool,
}

/// Who runs jobs.
#[derive(Clone, Copy, clap::ValueEnum)]
enum WorkersOption {
    /// Its own, which paint a small picture.
    Simulated,
    /// Real ones, which take jobs over HTTP.
    External,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let listener = TcpListener::bind((options.host.as_str(), options.port)).await;
    let listener = listener.with_context(|| format!("cannot listen at {}:{}", options.host, options.port))?;
    let emulator = Emulator::start_at(listener, settings(&options))?;
    let of = if options.of.is_empty() { Behaviour::ALL.to_vec() } else { options.of };
    emulator.behave(Orders::by_chance(options.chance, &of));
    let (base, port) = (emulator.base(), emulator.address().port());
    if options.json {
        println!("{}", json!({"base": base, "port": port}));
    } else {
        println!(
            "endpoint  {base}\nbehave    POST http://{0}/_behave\nmeter     GET http://{0}/_meter",
            emulator.address()
        );
    }
    tokio::signal::ctrl_c().await?;
    emulator.stop().await;
    Ok(())
}

fn settings(options: &Options) -> Settings {
    let ms = Duration::from_millis;
    Settings {
        key: options.key.clone(),
        endpoint: options.endpoint.clone(),
        speed: options.speed,
        workers: match options.workers {
            WorkersOption::Simulated => Workers::Simulated,
            WorkersOption::External => Workers::External,
        },
        workers_max: options.workers_max,
        cold_start: ms(options.cold_start_ms),
        execution: ms(options.execution_ms),
        idle: ms(options.idle_ms),
        price_per_second: MicroUsd(options.price_micro_usd),
        run_calls_max: options.run_calls_max,
        calls_max: options.calls_max,
        seed: options.seed,
        ..Settings::default()
    }
}

fn behaviour(text: &str) -> Result<Behaviour, String> {
    serde_json::from_value(json!(text)).map_err(|_| {
        let names = Behaviour::ALL.map(|one| json!(one).as_str().unwrap_or_default().to_owned());
        format!("one of {}", names.join(", "))
    })
}
