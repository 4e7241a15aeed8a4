//! What an emulated endpoint is like.

use std::time::Duration;

use queue::MicroUsd;

/// Who runs its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// Its own, which paint a small picture.
    Simulated,
    /// Real ones, which take jobs over HTTP.
    External,
}

/// All times are virtual.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The key that clients and workers must have.
    pub key: String,
    /// The endpoint's name in its address.
    pub endpoint: String,
    /// How much faster its clock goes than others.
    pub speed: f64,
    /// Who runs its jobs.
    pub workers: Workers,
    /// The most simulated workers at once.
    pub workers_max: usize,
    /// From the start of a worker until it takes a job.
    pub cold_start: Duration,
    /// How long a job runs.
    pub execution: Duration,
    /// How long a worker stays without work, paid.
    pub idle: Duration,
    /// For each second of a worker.
    pub price_per_second: MicroUsd,
    /// How long the result of `/run` is kept.
    pub result_time: Duration,
    /// How long the result of `/runsync` is kept.
    pub sync_result_time: Duration,
    /// How often a job whose worker died is run again.
    pub retries_max: u32,
    /// Calls of `/run` in 10 s.
    pub run_calls_max: u32,
    /// Calls of any other operation in 10 s.
    pub calls_max: u32,
    /// What its chance is drawn from.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            key: "emulator-key".to_owned(),
            endpoint: "emu".to_owned(),
            speed: 1.0,
            workers: Workers::Simulated,
            workers_max: 3,
            cold_start: Duration::from_secs(8),
            execution: Duration::from_secs(3),
            idle: Duration::from_secs(5),
            price_per_second: MicroUsd(190),
            result_time: Duration::from_secs(30 * 60),
            sync_result_time: Duration::from_secs(60),
            retries_max: 2,
            run_calls_max: 1000,
            calls_max: 2000,
            seed: 1,
        }
    }
}
