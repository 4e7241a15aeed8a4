//! The worker side of the emulated endpoint: what real workers, such as the Python SDK's loop, take jobs from.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::emulator::Shared;
use crate::emulator::reply::refusal;
use crate::emulator::server::Words;

/// A call that waits for a job or a stop waits so long; workers give up after 90 s.
const LONG_POLL: Duration = Duration::from_secs(60);

/// Jobs of one batch.
const BATCH_MAX: usize = 64;

type Known = State<Arc<Shared>>;

/// Routes of workers.
pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/job-take/{worker}", get(take))
        .route("/job-take-batch/{worker}", get(take_batch))
        .route("/job-done/{worker}/{id}", post(done))
        .route("/job-stream/{worker}/{id}", post(push))
        .route("/job-stop/{worker}", get(stop))
        .route("/ping/{worker}", get(ping))
}

async fn take(State(shared): Known, Path(worker): Path<String>) -> Response {
    match taken(&shared, &worker, 1).await.pop() {
        Some(job) => Json(job).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn take_batch(State(shared): Known, Path(worker): Path<String>, Query(words): Words) -> Response {
    let size = words.get("batch_size").and_then(|size| size.parse().ok()).unwrap_or(1);
    let jobs = taken(&shared, &worker, size).await;
    if jobs.is_empty() { StatusCode::NO_CONTENT.into_response() } else { Json(jobs).into_response() }
}

async fn taken(shared: &Shared, worker: &str, count_max: usize) -> Vec<Value> {
    let until = shared.clock.now() + LONG_POLL;
    let count_max = count_max.clamp(1, BATCH_MAX);
    let jobs =
        shared.wait(until, |platform, now| Some(platform.take(worker, count_max, now)).filter(|jobs| !jobs.is_empty()));
    let jobs = jobs.await.unwrap_or_default();
    if !jobs.is_empty() {
        shared.with(|_, _| ());
    }
    jobs
}

/// The body is JSON, though it is called a form.
async fn done(State(shared): Known, Path((worker, id)): Path<(String, String)>, body: Bytes) -> Response {
    let Ok(body) = serde_json::from_slice::<Value>(&body) else {
        return refusal(StatusCode::BAD_REQUEST, "not JSON");
    };
    shared.with(|platform, now| platform.done(&worker, &id, &body, now));
    Json(json!({})).into_response()
}

async fn push(State(shared): Known, Path((worker, id)): Path<(String, String)>, body: Bytes) -> Response {
    let Ok(mut body) = serde_json::from_slice::<Value>(&body) else {
        return refusal(StatusCode::BAD_REQUEST, "not JSON");
    };
    let item = body.get_mut("output").map(Value::take).unwrap_or(body);
    shared.with(|platform, now| platform.push(&worker, &id, item, now));
    Json(json!({})).into_response()
}

async fn stop(State(shared): Known, Path(worker): Path<String>) -> Response {
    let until = shared.clock.now() + LONG_POLL;
    match shared.wait(until, |platform, _| platform.stops(&worker)).await {
        Some(ids) => Json(json!({"jobsToStop": ids})).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn ping(State(shared): Known, Path(worker): Path<String>) -> Json<Value> {
    shared.with(|platform, now| platform.ping(&worker, now));
    Json(json!({}))
}
