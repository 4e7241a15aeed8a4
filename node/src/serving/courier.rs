//! Requests to the queue: blocking ones, each on a thread of the runtime's pool.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::http::StatusCode;

use super::contract::Contract;
use super::limits::{
    ANSWER_BYTES_MAX, CONNECT_TIME_MAX, DELIVER_TIME_MAX, JOB_BYTES_MAX, TAKE_TIME_MAX, TELL_TIME_MAX,
};

/// What RunPod's own workers send with JSON, and what its gateway therefore takes.
const FORM: &str = "application/x-www-form-urlencoded";

/// An answer, whatever it says.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body, cut to nothing if nobody reads it.
    pub body: Vec<u8>,
}

/// Carries requests; cheap to clone.
#[derive(Clone)]
pub struct Courier {
    agent: ureq::Agent,
    contract: Arc<Contract>,
}

impl Courier {
    /// A courier to the queue of `contract`.
    pub fn new(contract: Contract) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIME_MAX))
            // Every status is looked at by who asked.
            .http_status_as_error(false)
            // Nothing that opens doors is carried elsewhere.
            .max_redirects(0)
            .user_agent(concat!("manyhands/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.new_agent(), contract: Arc::new(contract) }
    }

    /// The addresses.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Asks for a job.
    pub async fn take(&self) -> Result<Answer, String> {
        self.ask(self.contract.take(false), TAKE_TIME_MAX, JOB_BYTES_MAX).await
    }

    /// Asks which jobs to stop; `None` if this queue does not tell.
    pub async fn stops(&self) -> Option<Result<Answer, String>> {
        Some(self.ask(self.contract.stop()?, TAKE_TIME_MAX, ANSWER_BYTES_MAX).await)
    }

    /// Says that this worker lives; `None` if this queue does not want to know.
    pub async fn ping(&self, job: Option<&str>) -> Option<Result<Answer, String>> {
        Some(self.ask(self.contract.ping(job)?, TELL_TIME_MAX, ANSWER_BYTES_MAX).await)
    }

    /// Tells how far a job is.
    pub async fn tell(&self, job: &str, body: &Value) -> Result<Answer, String> {
        self.report(job, body, TELL_TIME_MAX).await
    }

    /// Tells how a job ended.
    pub async fn deliver(&self, job: &str, body: &Value) -> Result<Answer, String> {
        self.report(job, body, DELIVER_TIME_MAX).await
    }

    /// Posts JSON to an address that came with a job: without what opens the queue's doors.
    pub async fn post_elsewhere(&self, address: String, body: &Value) -> Result<Answer, String> {
        let (agent, body) = (self.agent.clone(), body.to_string());
        blocking(move || {
            let request = agent.post(&address).content_type("application/json");
            read(request.config().timeout_global(Some(TELL_TIME_MAX)).build().send(body.as_bytes())?, ANSWER_BYTES_MAX)
        })
        .await
    }

    /// Puts a picture to an address that came with a job: without what opens the queue's doors.
    pub async fn put_elsewhere(&self, address: String, png: Arc<[u8]>) -> Result<Answer, String> {
        let agent = self.agent.clone();
        blocking(move || {
            // Both headers are part of what a store's presigned address signs: this type, and nothing overwritten.
            let request = agent.put(&address).content_type("image/png").header("If-None-Match", "*");
            read(request.config().timeout_global(Some(DELIVER_TIME_MAX)).build().send(&png[..])?, ANSWER_BYTES_MAX)
        })
        .await
    }

    async fn ask(&self, address: String, time_max: Duration, bytes_max: u64) -> Result<Answer, String> {
        let (agent, contract) = (self.agent.clone(), self.contract.clone());
        blocking(move || {
            let mut request = agent.get(&address);
            if let Some(authorization) = contract.authorization() {
                request = request.header("Authorization", authorization);
            }
            read(request.config().timeout_global(Some(time_max)).build().call()?, bytes_max)
        })
        .await
    }

    async fn report(&self, job: &str, body: &Value, time_max: Duration) -> Result<Answer, String> {
        let (agent, contract) = (self.agent.clone(), self.contract.clone());
        let (job, body) = (job.to_owned(), body.to_string());
        blocking(move || {
            let mut request = agent.post(contract.done(&job)).content_type(FORM).header("X-Request-ID", &job);
            if let Some(authorization) = contract.authorization() {
                request = request.header("Authorization", authorization);
            }
            let request = request.config().timeout_global(Some(time_max)).build();
            read(request.send(body.as_bytes())?, ANSWER_BYTES_MAX)
        })
        .await
    }
}

fn read(mut answer: ureq::http::Response<ureq::Body>, bytes_max: u64) -> Result<Answer, ureq::Error> {
    let status = answer.status();
    let body = answer.body_mut().with_config().limit(bytes_max).read_to_vec()?;
    Ok(Answer { status, body })
}

async fn blocking(ask: impl FnOnce() -> Result<Answer, ureq::Error> + Send + 'static) -> Result<Answer, String> {
    let asked = tokio::task::spawn_blocking(ask).await.map_err(|error| error.to_string())?;
    asked.map_err(|error| match error {
        // Addresses may hold what opens doors.
        ureq::Error::BadUri(_) | ureq::Error::RequireHttpsOnly(_) => "its address is not understood".to_owned(),
        other => other.to_string(),
    })
}
