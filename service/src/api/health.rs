//! Whether the queue is well, and how much it does: for people, supervisors and Prometheus.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use prometheus_client::encoding::text::encode;
use queue::JobId;
use serde::{Deserialize, Serialize};
use tracing::error;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::limits::STREAMS_MAX;
use crate::state::App;

const OPEN_METRICS: (HeaderName, &str) =
    (header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Whether the relay can take jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`, or `unready`.
    status: &'static str,
    /// Whether jobs can be submitted and taken.
    ready: bool,
    /// `ok`, or what is wrong with it.
    database: &'static str,
    /// The program's version.
    version: &'static str,
}

/// Jobs of all rooms, by status, and who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueStats {
    /// Jobs that wait.
    pub queued: u64,
    /// Jobs that somebody does.
    pub processing: u64,
    /// Jobs with a result, as far as they are kept.
    pub completed: u64,
    /// Jobs without one.
    pub failed: u64,
    /// Jobs that were called off.
    pub cancelled: u64,
    /// Event streams and sockets that are open.
    pub streams: u64,
}

/// What the relay tells of the queue beside its own numbers.
pub async fn stats(app: &App) -> Result<QueueStats, ApiError> {
    let totals = app.store.totals(None).await?;
    Ok(QueueStats {
        queued: totals.queued,
        processing: totals.processing,
        completed: totals.completed,
        failed: totals.failed,
        cancelled: totals.cancelled,
        streams: streams(app) as u64,
    })
}

fn streams(app: &App) -> usize {
    STREAMS_MAX - app.streams.available_permits()
}

/// Whether the relay can take jobs: 200 if so, 503 if its database does not answer.
#[utoipa::path(get, path = "/api/health", responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(crate) async fn health(State(app): State<App>) -> impl IntoResponse {
    let probe = JobId::new("health").expect("a constant name is a name");
    let version = env!("CARGO_PKG_VERSION");
    match app.store.job(&probe).await {
        Ok(_) => (StatusCode::OK, Json(Health { status: "ok", ready: true, database: "ok", version })),
        Err(failure) => {
            error!(%failure, "the queue's database does not answer");
            let unready = Health { status: "unready", ready: false, database: "does not answer", version };
            (StatusCode::SERVICE_UNAVAILABLE, Json(unready))
        }
    }
}

/// Every number of the process, in the text that Prometheus reads.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, ApiError> {
    // What the database does not tell now is as it was: the other numbers matter all the more then.
    match app.store.totals(None).await {
        Ok(totals) => app.metrics.look(&totals, streams(&app)),
        Err(failure) => error!(%failure, "the queue's database does not answer"),
    }
    let mut text = String::new();
    encode(&mut text, &app.registry).map_err(|_| ApiError::ours("the numbers cannot be written"))?;
    Ok(([OPEN_METRICS], text))
}
