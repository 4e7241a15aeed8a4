//! What an emulated endpoint charges, and how often it ran what: the truth that tests compare ledgers with.

use std::collections::BTreeMap;

use queue::MicroUsd;
use serde::{Deserialize, Serialize};

/// The meter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    /// Charged until now: for each worker every begun second from its start to its stop, idle ones included.
    pub micro_usd: MicroUsd,
    /// The part of it that no job's times tell: starts of workers whose job another one took, and the idling of those that never
    /// had any. Only the endpoint's own limits (workers, idle timeout) bound it.
    pub untold: MicroUsd,
    /// Seconds charged for.
    pub worker_seconds: u64,
    /// Workers started.
    pub workers_started: u64,
    /// Jobs taken.
    pub jobs_taken: u64,
    /// How often each job (by the endpoint's id) was given to a worker.
    pub given: BTreeMap<String, u32>,
    /// How often each job (by the endpoint's id) was begun: after its claim, if it has one.
    pub runs: BTreeMap<String, u32>,
    /// How often each `_client_ref` was begun.
    pub runs_by_ref: BTreeMap<String, u32>,
    /// How often each `_claim.nonce` was begun: more than once is work paid twice.
    pub runs_by_nonce: BTreeMap<String, u32>,
    /// Runs that were not begun because their claim was refused.
    pub claims_refused: u64,
    /// Webhooks sent, and answered with success.
    pub webhooks_sent: u64,
    /// See [`Self::webhooks_sent`].
    pub webhooks_taken: u64,
    /// Pictures put to a presigned URL.
    pub pictures_put: u64,
}

impl Meter {
    /// All runs together.
    pub fn runs_in_all(&self) -> u64 {
        self.runs.values().map(|runs| u64::from(*runs)).sum()
    }

    /// References of clients that were begun more than once.
    pub fn doubled(&self) -> Vec<&str> {
        self.runs_by_ref.iter().filter(|(_, runs)| **runs > 1).map(|(name, _)| name.as_str()).collect()
    }
}
