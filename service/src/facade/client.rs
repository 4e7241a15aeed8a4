//! What RunPod's clients ask of an endpoint, asked of a room.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use queue::{Job, RoomName, Status, UserName};
use serde_json::{Value, json};

use crate::access::Right;
use crate::body::Sent;
use crate::error::ApiError;
use crate::facade::limits::{LISTED_MAX, PURGED_MAX, STREAM_WAIT, SYNC_WAIT, SYNC_WAIT_MAX, SYNC_WAIT_MIN};
use crate::facade::request::{Asked, Pairs, RunRequest, wait};
use crate::facade::{deadline, status as words};
use crate::guard::{Caller, OwnJob};
use crate::state::App;
use crate::submit;
use crate::waiting::{Waiter, until};
use crate::workers::EVERY_ROOM;

/// Says what was accepted and has no effect.
const NOTE: &str = "x-manyhands-note";

/// `POST /v2/{room}/run`
pub(crate) async fn run(
    State(app): State<App>,
    caller: Caller,
    Path(room): Path<RoomName>,
    Sent(body): Sent<Value>,
) -> Result<Response, ApiError> {
    let (job, notes) = start(&app, &caller, &room, body).await?;
    Ok(noted(words::brief(&job), &notes))
}

/// `POST /v2/{room}/runsync?wait=ms`
pub(crate) async fn run_sync(
    State(app): State<App>,
    caller: Caller,
    Path(room): Path<RoomName>,
    Query(query): Query<Pairs>,
    Sent(body): Sent<Value>,
) -> Result<Response, ApiError> {
    let (job, notes) = start(&app, &caller, &room, body).await?;
    let job = ended(&app, job, sync_wait(&query)).await?;
    Ok(noted(words::full(&app, &job).await?, &notes))
}

/// `GET /v2/{room}/status/{id}`
pub(crate) async fn status(State(app): State<App>, OwnJob(job): OwnJob) -> Result<Json<Value>, ApiError> {
    let job = deadline::wanted(&app, job).await?;
    Ok(Json(words::full(&app, &job).await?))
}

/// `GET /v2/{room}/status-sync/{id}?wait=ms`
pub(crate) async fn status_sync(
    State(app): State<App>,
    OwnJob(job): OwnJob,
    Query(query): Query<Pairs>,
) -> Result<Json<Value>, ApiError> {
    let job = ended(&app, job, sync_wait(&query)).await?;
    Ok(Json(words::full(&app, &job).await?))
}

/// `GET /v2/{room}/stream/{id}`: what the job has yielded since it was last asked; waits a little for something to say.
pub(crate) async fn stream(State(app): State<App>, OwnJob(job): OwnJob) -> Result<Json<Value>, ApiError> {
    let id = job.id;
    let mut waiter = Waiter::new(&app, STREAM_WAIT);
    let mut is_over = false;
    loop {
        // The job first: what it yielded before it ended is drained after its end was seen.
        let job = app.store.job(&id).await?.ok_or_else(|| ApiError::not_found("there is no such job"))?;
        let job = deadline::wanted(&app, job).await?;
        let chunks = app.store.drain_chunks(&id).await?;
        if is_over || !chunks.is_empty() || job.status().is_final() {
            let item = |chunk: &String| Some(json!({ "output": serde_json::from_str::<Value>(chunk).ok()? }));
            let items: Vec<Value> = chunks.iter().filter_map(item).collect();
            return Ok(Json(json!({ "id": id, "status": words::of(&job).as_str(), "stream": items })));
        }
        is_over = !waiter.wait(Some(&id)).await;
    }
}

/// `POST /v2/{room}/cancel/{id}`
pub(crate) async fn cancel(State(app): State<App>, OwnJob(job): OwnJob) -> Result<Json<Value>, ApiError> {
    let job = deadline::wanted(&app, job).await?;
    let cancelled = app.store.cancel(&job.id, app.clock.now()).await?;
    Ok(Json(words::brief(&cancelled.unwrap_or(job))))
}

/// `POST /v2/{room}/retry/{id}`
pub(crate) async fn retry(State(app): State<App>, OwnJob(job): OwnJob) -> Result<Json<Value>, ApiError> {
    let job = deadline::wanted(&app, job).await?;
    if job.status() != Status::Failed {
        return Err(ApiError::wrong("only a job that failed or timed out can be tried again"));
    }
    // What the failed try yielded is no part of the next one's.
    while !app.store.drain_chunks(&job.id).await?.is_empty() {}
    app.store.retry(&job.id).await?;
    let job = app.store.job(&job.id).await?.unwrap_or(job);
    Ok(Json(words::brief(&job)))
}

/// `GET /v2/{room}/health`
pub(crate) async fn health(State(app): State<App>, Path(room): Path<RoomName>) -> Result<Json<Value>, ApiError> {
    let totals = app.store.totals(Some(&room)).await?;
    let again = app.store.list(Some(&room), LISTED_MAX).await?;
    let again = again.iter().filter(|job| job.tries > 0 && !job.status().is_final()).count();
    let workers = app.workers.of(&room, app.clock.now());
    let running = workers.iter().filter(|worker| worker.is_busy).count();
    Ok(Json(json!({
        "jobs": {
            "completed": totals.completed,
            "failed": totals.failed,
            "inProgress": totals.processing,
            "inQueue": totals.queued,
            "retried": again,
        },
        // Who is there is ready; none is started here, throttled, or kept though unwell.
        "workers": {
            "idle": workers.len() - running,
            "initializing": 0,
            "ready": workers.len(),
            "running": running,
            "throttled": 0,
            "unhealthy": 0,
        },
    })))
}

/// `POST /v2/{room}/purge-queue`: one's own waiting jobs, and everybody's for who operates.
pub(crate) async fn purge(
    State(app): State<App>,
    caller: Caller,
    Path(room): Path<RoomName>,
) -> Result<Json<Value>, ApiError> {
    let removed = if caller.may(Right::Operate) {
        app.store.purge(&room, app.clock.now()).await?
    } else {
        purge_own(&app, &room, caller.user()).await?
    };
    Ok(Json(json!({ "removed": removed, "status": "completed" })))
}

/// `GET /v2/{room}/requests`: one's own jobs, the unfinished first.
pub(crate) async fn requests(
    State(app): State<App>,
    caller: Caller,
    Path(room): Path<RoomName>,
) -> Result<Json<Value>, ApiError> {
    let jobs = app.store.list(Some(&room), LISTED_MAX).await?;
    let is_shown = |job: &&Job| caller.may(Right::Operate) || job.order.user == *caller.user();
    let jobs: Vec<Value> = jobs.iter().filter(is_shown).map(words::brief).collect();
    Ok(Json(json!({ "requests": jobs })))
}

async fn start(app: &App, caller: &Caller, room: &RoomName, body: Value) -> Result<(Job, Vec<&'static str>), ApiError> {
    if room.as_str() == EVERY_ROOM {
        return Err(ApiError::wrong("this stands for every room where workers ask; a job is for one"));
    }
    let request = RunRequest::read(body, &app.catalogue)?;
    let RunRequest { asked, webhook, deadlines, priority, notes } = request;
    let submitted = match asked {
        Asked::Typed(submission) => {
            let submitted = submit::typed(app, caller, room, *submission).await?;
            submitted.into_iter().next().ok_or_else(|| ApiError::ours("a submission became no job"))?
        }
        Asked::Raw(input) => submit::raw(app, caller, room, input, webhook, priority, deadlines).await?,
    };
    Ok((submitted.job, notes))
}

/// The job when it has ended, or as it is after so long.
async fn ended(app: &App, job: Job, time: Duration) -> Result<Job, ApiError> {
    let is_there = |job: &Job| job.status().is_final() || job.overdue(app.clock.now()).is_some();
    let job = until(app, &job.id, time, is_there).await?;
    deadline::wanted(app, job.ok_or_else(|| ApiError::not_found("there is no such job"))?).await
}

fn sync_wait(query: &Pairs) -> Duration {
    wait(query, SYNC_WAIT, SYNC_WAIT_MIN, SYNC_WAIT_MAX)
}

async fn purge_own(app: &App, room: &RoomName, user: &UserName) -> Result<u64, ApiError> {
    let jobs = app.store.list(Some(room), PURGED_MAX).await?;
    let mut removed = 0;
    for job in jobs.iter().filter(|job| job.status() == Status::Queued && job.order.user == *user) {
        let cancelled = app.store.cancel(&job.id, app.clock.now()).await?;
        removed += u64::from(cancelled.is_some_and(|job| job.status() == Status::Cancelled));
    }
    Ok(removed)
}

fn noted(body: Value, notes: &[&'static str]) -> Response {
    let mut response = Json(body).into_response();
    for note in notes {
        response.headers_mut().append(NOTE, HeaderValue::from_static(note));
    }
    response
}
