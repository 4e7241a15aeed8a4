//! What RunPod's workers ask of their platform, asked of a room. Their contract knows no lease: which one a worker means is
//! looked up, and whose it is.

mod asking;

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use queue::{JobId, MicroUsd, Outcome, RoomName};
use runpod::Complaint;
use serde_json::{Value, json};
use store::Beat;

use self::asking::Worker;
use crate::body::Sent;
use crate::delivery;
use crate::error::ApiError;
use crate::facade::limits::{BATCH_MAX, LOOK_PAUSE, PINGED_MAX, STOP_WAIT, TAKE_WAIT};
use crate::facade::request::{Pairs, number, text, wait};
use crate::guard::Caller;
use crate::state::App;
use crate::waiting::Waiter;

/// What a worker says of a job.
enum Said {
    Progress(Value),
    Done(Value),
    Failed(String),
    HandBack,
}

/// `GET /v2/{room}/job-take/{worker}`
pub(crate) async fn take(
    State(app): State<App>,
    caller: Caller,
    Path((room, name)): Path<(RoomName, String)>,
    Query(query): Query<Pairs>,
) -> Result<Response, ApiError> {
    let worker = Worker::read(&app, &caller, room, &name, &query)?;
    let job = worker.wait_for_job(take_wait(&query)).await?;
    Ok(job.map_or_else(|| StatusCode::NO_CONTENT.into_response(), |job| Json(job).into_response()))
}

/// `GET /v2/{room}/job-take-batch/{worker}?batch_size=n`
pub(crate) async fn take_batch(
    State(app): State<App>,
    caller: Caller,
    Path((room, name)): Path<(RoomName, String)>,
    Query(query): Query<Pairs>,
) -> Result<Response, ApiError> {
    let worker = Worker::read(&app, &caller, room, &name, &query)?;
    let count = number(&query, "batch_size").unwrap_or(1).clamp(1, BATCH_MAX);
    let Some(first) = worker.wait_for_job(take_wait(&query)).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let mut jobs = vec![first];
    while jobs.len() < count {
        // What has been taken must be given, whatever becomes of the rest.
        match worker.look_for_job().await {
            Ok(Some(job)) => jobs.push(job),
            Ok(None) | Err(_) => break,
        }
    }
    Ok(Json(jobs).into_response())
}

/// `POST /v2/{room}/job-done/{worker}/{id}`
pub(crate) async fn done(
    State(app): State<App>,
    caller: Caller,
    Path((room, name, id)): Path<(RoomName, String, String)>,
    Query(query): Query<Pairs>,
    Sent(body): Sent<Value>,
) -> Result<Response, ApiError> {
    let worker = Worker::read(&app, &caller, room, &name, &query)?;
    let said = Said::read(body);
    let Some(job) = worker.held(&id).await? else { return worker.ignore(&id) };
    let fence = job.fence;
    let nothing = MicroUsd::default();
    let ended = match said {
        Said::Progress(note) => return worker.progress(&job, note).await,
        Said::Done(output) => delivery::accept(&app, &job, fence, output, nothing).await,
        Said::HandBack => delivery::finish(&app, &job, fence, Outcome::HandedBack).await,
        Said::Failed(reason) => {
            // A foreign client's input fails once, as it would on RunPod; what we know how to do, another worker may do.
            let is_final = job.order.ask.is_none();
            delivery::finish(&app, &job, fence, Outcome::Failed { reason, is_final, cost: nothing }).await
        }
    };
    match ended {
        Ok(_) => {
            app.workers.free(&worker.room, &worker.owner, &job.id);
            Ok(accepted())
        }
        Err(error) if error.status == StatusCode::CONFLICT => worker.ignore(&id),
        Err(error) => Err(error),
    }
}

/// `POST /v2/{room}/job-stream/{worker}/{id}`
pub(crate) async fn stream(
    State(app): State<App>,
    caller: Caller,
    Path((room, name, id)): Path<(RoomName, String, String)>,
    Query(query): Query<Pairs>,
    Sent(body): Sent<Value>,
) -> Result<Response, ApiError> {
    let worker = Worker::read(&app, &caller, room, &name, &query)?;
    let Some(job) = worker.held(&id).await? else { return worker.ignore(&id) };
    let item = body.get("output").unwrap_or(&body).to_string();
    match app.store.push_chunk(&job.id, job.fence, item).await? {
        Beat::Renewed => {
            worker.hear(&job, None).await?;
            Ok(accepted())
        }
        Beat::Over(_) | Beat::Unknown => worker.ignore(&id),
    }
}

/// `GET /v2/{room}/job-stop/{worker}`: which of its jobs a worker is to stop; held until there is one.
pub(crate) async fn stop(
    State(app): State<App>,
    caller: Caller,
    Path((room, name)): Path<(RoomName, String)>,
    Query(query): Query<Pairs>,
) -> Result<Json<Value>, ApiError> {
    let worker = Worker::read(&app, &caller, room, &name, &query)?;
    let mut waiter = Waiter::new(&app, wait(&query, STOP_WAIT, Duration::ZERO, STOP_WAIT));
    loop {
        let unwanted = worker.unwanted().await?;
        if !unwanted.is_empty() {
            return Ok(Json(json!({ "jobsToStop": unwanted })));
        }
        waiter.rest(LOOK_PAUSE).await;
        if !waiter.wait(None).await {
            return Ok(Json(json!({ "jobsToStop": [] })));
        }
        worker.seen();
    }
}

/// `GET /v2/{room}/ping/{worker}?job_id=a,b`: that a worker is there, and which jobs it has.
pub(crate) async fn ping(
    State(app): State<App>,
    caller: Caller,
    Path((room, name)): Path<(RoomName, String)>,
    Query(query): Query<Pairs>,
) -> Result<Json<Value>, ApiError> {
    let worker = Worker::read(&app, &caller, room, &name, &query)?;
    let ids = text(&query, "job_id").unwrap_or_default().split(',').filter(|id| !id.is_empty());
    for id in ids.take(PINGED_MAX) {
        let is_own = match worker.held(id).await? {
            Some(job) => worker.hear(&job, None).await?,
            None => false,
        };
        if let (false, Ok(id)) = (is_own, JobId::new(id)) {
            app.workers.unwanted(&worker.room, &worker.owner, &id);
        }
    }
    Ok(Json(json!({})))
}

fn take_wait(query: &Pairs) -> Duration {
    wait(query, TAKE_WAIT, Duration::ZERO, TAKE_WAIT)
}

fn accepted() -> Response {
    Json(json!({ "accepted": true })).into_response()
}

impl Said {
    fn read(mut body: Value) -> Self {
        let is_true = |name: &str| body.get(name).and_then(Value::as_bool).unwrap_or_default();
        if is_true("handBack") {
            return Self::HandBack;
        }
        if body.get("status").and_then(Value::as_str) == Some("IN_PROGRESS") {
            return Self::Progress(body["output"].take());
        }
        match body.get("error") {
            None | Some(Value::Null) => {}
            // Its traceback may hold a prompt, so it is not even logged.
            Some(error) => return Self::Failed(Complaint::read(error).message),
        }
        // A handler that gives nothing, or only `refresh_worker`, leaves no output.
        Self::Done(body.get_mut("output").map(Value::take).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_says_progress_an_output_an_error_or_that_it_hands_back() {
        let read = |body: Value| match Said::read(body) {
            Said::Progress(note) => format!("progress {note}"),
            Said::Done(output) => format!("done {output}"),
            Said::Failed(reason) => format!("failed {reason}"),
            Said::HandBack => "hand back".to_owned(),
        };
        assert_eq!(read(json!({"status": "IN_PROGRESS", "output": {"step": 1}})), "progress {\"step\":1}");
        assert_eq!(read(json!({"output": [1], "stopPod": true})), "done [1]");
        assert_eq!(read(json!({"output": false})), "done false");
        for empty in [json!({}), json!({"stopPod": true}), json!(5)] {
            assert_eq!(read(empty), "done null");
        }
        assert_eq!(read(json!({"error": "{\"error_message\":\"no\"}", "output": {"a": 1}})), "failed no");
        assert_eq!(read(json!({"handBack": true})), "hand back");
    }
}
