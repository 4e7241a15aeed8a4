//! Asks an endpoint: every call bounded in time and bytes, and every way it can fail told apart by what may have happened.

mod errors;
mod wire;

use std::time::Duration;

use rand::Rng;
use reqwest::{Method, Url};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

pub use self::errors::{BaseError, CallError, RunError, WaitError};
use self::wire::{About, Ask, Wire};
use crate::contract::{Health, JobStatus, RemoteId, RunRequest, Streamed};
use crate::key::Key;
use crate::limits::{
    CALL_TIME_MAX, CONNECT_TIME_MAX, REPLY_BYTES_MAX, RUN_BYTES_MAX, RUNSYNC_BYTES_MAX, SYNC_SLACK, SYNC_WAIT_MAX,
    SYNC_WAIT_MIN,
};
use crate::pace::{backoff, poll_pause};

/// What a client grants an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// The longest a connection may take to open.
    pub connect_time_max: Duration,
    /// The longest a call may take, from its beginning to the last byte of the reply.
    pub call_time_max: Duration,
    /// The largest reply.
    pub reply_bytes_max: usize,
    /// Whether the key may travel unencrypted to another machine: only inside a private network, to an emulator.
    pub is_plain_http_allowed: bool,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect_time_max: CONNECT_TIME_MAX,
            call_time_max: CALL_TIME_MAX,
            reply_bytes_max: REPLY_BYTES_MAX,
            is_plain_http_allowed: false,
        }
    }
}

/// A client of one endpoint. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    wire: Wire,
    limits: ClientLimits,
}

impl Client {
    /// A client of the endpoint at `base`, such as `https://api.runpod.ai/v2/ENDPOINT`.
    pub fn new(base: &str, key: Key, limits: ClientLimits) -> Result<Self, BaseError> {
        Ok(Self { wire: Wire::new(base, key, &limits)?, limits })
    }

    /// Asks for a job. It is asked once, whatever happens: the contract knows no idempotency, so [`RunError::Unknown`] must
    /// be resolved by its webhook, its claim or time, never by asking again.
    pub async fn run(&self, request: &RunRequest) -> Result<JobStatus, RunError> {
        let body = encoded(request, RUN_BYTES_MAX)?;
        self.start(self.wire.url(&["run"]), body, self.limits.call_time_max).await
    }

    /// Asks for a job and waits for its end up to `wait` (1 s to 300 s); where that is too short, the job is looked at by
    /// [`Self::status`]. Its result is kept for a minute only.
    pub async fn runsync(&self, request: &RunRequest, wait: Duration) -> Result<JobStatus, RunError> {
        let body = encoded(request, RUNSYNC_BYTES_MAX)?;
        let wait = wait.clamp(SYNC_WAIT_MIN, SYNC_WAIT_MAX);
        let mut url = self.wire.url(&["runsync"]);
        url.query_pairs_mut().append_pair("wait", &wait.as_millis().to_string());
        self.start(url, body, wait + SYNC_SLACK).await
    }

    /// Has a job that failed or timed out run once more, under its id. As with [`Self::run`], a lost reply is unknown.
    pub async fn retry(&self, id: &RemoteId) -> Result<JobStatus, RunError> {
        let ask = Ask::post(self.wire.url(&["retry", id.as_str()]), None, self.limits.call_time_max);
        let reply = self.wire.call(ask).await.map_err(RunError::of_loss)?;
        let value = reply.started(self.wire.key())?;
        JobStatus::read(&value, Some(id)).map_err(|wrong| RunError::Unknown { reason: wrong.to_string() })
    }

    /// Looks at a job.
    pub async fn status(&self, id: &RemoteId) -> Result<JobStatus, CallError> {
        let reply = self.ask(Method::GET, &["status", id.as_str()], About::Job).await?;
        noticed(JobStatus::read(&reply, Some(id))?)
    }

    /// Takes what a job has yielded since it was last asked.
    pub async fn stream(&self, id: &RemoteId) -> Result<Streamed, CallError> {
        let reply = self.ask(Method::GET, &["stream", id.as_str()], About::Job).await?;
        Ok(Streamed::read(&reply)?)
    }

    /// Calls a job off. What it yields later is to be ignored.
    pub async fn cancel(&self, id: &RemoteId) -> Result<JobStatus, CallError> {
        let reply = self.ask(Method::POST, &["cancel", id.as_str()], About::Job).await?;
        noticed(JobStatus::read(&reply, Some(id))?)
    }

    /// How the endpoint is.
    pub async fn health(&self) -> Result<Health, CallError> {
        let reply = self.ask(Method::GET, &["health"], About::Endpoint).await?;
        Ok(Health::read(&reply)?)
    }

    /// Removes all jobs that wait there; says how many, if it does.
    pub async fn purge(&self) -> Result<Option<u64>, CallError> {
        let reply = self.ask(Method::POST, &["purge-queue"], About::Endpoint).await?;
        Ok(reply.get("removed").and_then(Value::as_u64))
    }

    /// Looks at a job until it has ended, telling each look; rarer and rarer, patient with what may pass. After `time_max`
    /// it is called off.
    pub async fn wait(
        &self,
        id: &RemoteId,
        time_max: Duration,
        mut tell: impl FnMut(&JobStatus),
    ) -> Result<JobStatus, WaitError> {
        let start = Instant::now();
        let (mut looks, mut troubles) = (0, 0);
        loop {
            let chance = rand::rng().random();
            let pause = match self.status(id).await {
                Ok(status) => {
                    tell(&status);
                    if status.status.is_final() {
                        return Ok(status);
                    }
                    (looks, troubles) = (looks + 1, 0);
                    poll_pause(looks - 1, chance)
                }
                Err(error) if error.is_passing() => {
                    debug!(%id, %error, "a look failed");
                    troubles += 1;
                    backoff(troubles - 1, chance, error.pause_asked())
                }
                Err(error) => return Err(error.into()),
            };
            let left = time_max.saturating_sub(start.elapsed());
            if left.is_zero() {
                let cancelled = self.cancel(id).await;
                return Err(WaitError::Overdue { is_cancelled: cancelled.is_ok() });
            }
            sleep(pause.min(left)).await;
        }
    }

    async fn start(&self, url: Url, body: Vec<u8>, time_max: Duration) -> Result<JobStatus, RunError> {
        let reply = self.wire.call(Ask::post(url, Some(body), time_max)).await.map_err(RunError::of_loss)?;
        let value = reply.started(self.wire.key())?;
        // Whatever was taken and cannot be named may run all the same.
        JobStatus::read(&value, None).map_err(|wrong| RunError::Unknown { reason: wrong.to_string() })
    }

    async fn ask(&self, method: Method, path: &[&str], about: About) -> Result<Value, CallError> {
        let url = self.wire.url(path);
        let time_max = self.limits.call_time_max;
        let ask = if method == Method::POST { Ask::post(url, None, time_max) } else { Ask::get(url, time_max) };
        let reply = self.wire.call(ask).await.map_err(CallError::of_loss)?;
        reply.answered(self.wire.key(), about)
    }
}

fn encoded(request: &RunRequest, bytes_max: usize) -> Result<Vec<u8>, RunError> {
    let body = serde_json::to_vec(request).expect("texts and numbers are JSON");
    if body.len() > bytes_max {
        return Err(RunError::TooLarge { bytes: body.len(), bytes_max });
    }
    Ok(body)
}

fn noticed(status: JobStatus) -> Result<JobStatus, CallError> {
    if let Some(unknown) = &status.unknown_status {
        warn!(id = %status.id, status = unknown, "the endpoint names a status nobody has heard of; read as in progress");
    }
    Ok(status)
}
