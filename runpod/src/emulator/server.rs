//! The emulated endpoint's HTTP: clients' operations, and what tests ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::emulator::Shared;
use crate::emulator::behaviour::{Behaviour, Orders};
use crate::emulator::meter::Meter;
use crate::emulator::platform::{Platform, Submission};
use crate::emulator::reply::{answer, instead, refusal};
use crate::emulator::{deeds, workers};
use crate::limits::{RUN_BYTES_MAX, RUNSYNC_BYTES_MAX, SYNC_WAIT_MAX, SYNC_WAIT_MIN};

/// `/runsync` waits so long unless told.
const SYNC_WAIT: Duration = Duration::from_secs(90);

/// Connections that are still busy at the end are left alone after so long.
const END_TIME_MAX: Duration = Duration::from_secs(1);

type Known = State<Arc<Shared>>;

/// Serves until told to stop.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let router = router(Arc::clone(&shared)).layer(from_fn_with_state(Arc::clone(&shared), until_the_end));
    let mut end = shared.ending.subscribe();
    let ended = async move {
        // Whoever could send is there as long as this server.
        let _ = end.wait_for(|is_ending| *is_ending).await;
    };
    let server = tokio::spawn(axum::serve(listener, router).with_graceful_shutdown(ended).into_future());
    tokio::select! {
        _ = stopped => {}
        () = deeds::attend(Arc::clone(&shared)) => {}
    }
    shared.ending.send_replace(true);
    // An answer that comes byte by byte does not hold up the end.
    let _ = timeout(END_TIME_MAX, server).await;
}

/// A call that waits is not answered any more when the emulator ends.
async fn until_the_end(State(shared): Known, request: Request, next: Next) -> Response {
    let mut end = shared.ending.subscribe();
    tokio::select! {
        response = next.run(request) => response,
        _ = end.wait_for(|is_ending| *is_ending) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

fn router(shared: Arc<Shared>) -> Router {
    let clients = Router::new()
        .route("/run", post(run).layer(DefaultBodyLimit::max(RUN_BYTES_MAX)))
        .route("/runsync", post(runsync).layer(DefaultBodyLimit::max(RUNSYNC_BYTES_MAX)))
        .route("/status/{id}", get(status))
        .route("/status-sync/{id}", get(status_sync))
        .route("/stream/{id}", get(stream))
        .route("/cancel/{id}", post(cancel))
        .route("/retry/{id}", post(retry))
        .route("/purge-queue", post(purge))
        .route("/health", get(health));
    let known = clients.merge(workers::router()).layer(from_fn_with_state(Arc::clone(&shared), authorise));
    Router::new()
        .nest(&format!("/v2/{}", shared.settings.endpoint), known)
        .route("/_behave", post(behave))
        .route("/_meter", get(meter))
        .route("/_advance", post(advance))
        .with_state(shared)
}

async fn authorise(State(shared): Known, request: Request, next: Next) -> Response {
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    // Workers send the bare key.
    let is_right = header.strip_prefix("Bearer ").unwrap_or(header) == shared.settings.key;
    if is_right { next.run(request).await } else { StatusCode::UNAUTHORIZED.into_response() }
}

async fn run(State(shared): Known, headers: HeaderMap, body: Bytes) -> Response {
    match submit(&shared, &headers, &body, false) {
        Ok((id, behaviours)) => answer(json!({"id": id, "status": "IN_QUEUE"}), &behaviours).await,
        Err(refused) => *refused,
    }
}

async fn runsync(State(shared): Known, wait: Query<Wait>, headers: HeaderMap, body: Bytes) -> Response {
    let (id, behaviours) = match submit(&shared, &headers, &body, true) {
        Ok(submitted) => submitted,
        Err(refused) => return *refused,
    };
    let said = final_status(&shared, &id, &wait).await;
    answer(said.unwrap_or_else(|| json!({"id": id, "status": "IN_QUEUE"})), &behaviours).await
}

async fn status(State(shared): Known, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let behaviours = match admit(&shared, "status", &headers, &id) {
        Ok(behaviours) => behaviours,
        Err(refused) => return *refused,
    };
    match shared.look(|platform, now| platform.status(&id, now)) {
        Some(said) => answer(said, &behaviours).await,
        None => unknown(),
    }
}

async fn status_sync(State(shared): Known, headers: HeaderMap, Path(id): Path<String>, wait: Query<Wait>) -> Response {
    let behaviours = match admit(&shared, "status-sync", &headers, &id) {
        Ok(behaviours) => behaviours,
        Err(refused) => return *refused,
    };
    match final_status(&shared, &id, &wait).await {
        Some(said) => answer(said, &behaviours).await,
        None => unknown(),
    }
}

async fn stream(State(shared): Known, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let behaviours = match admit(&shared, "stream", &headers, &id) {
        Ok(behaviours) => behaviours,
        Err(refused) => return *refused,
    };
    match shared.look(|platform, now| platform.stream(&id, now)) {
        Some(said) => answer(said, &behaviours).await,
        None => unknown(),
    }
}

async fn cancel(State(shared): Known, headers: HeaderMap, Path(id): Path<String>) -> Response {
    if let Err(refused) = admit(&shared, "cancel", &headers, &id) {
        return *refused;
    }
    match shared.with(|platform, now| platform.cancel(&id, now)) {
        Some(said) => Json(said).into_response(),
        None => unknown(),
    }
}

async fn retry(State(shared): Known, headers: HeaderMap, Path(id): Path<String>) -> Response {
    if let Err(refused) = admit(&shared, "retry", &headers, &id) {
        return *refused;
    }
    match shared.with(|platform, now| platform.retry(&id, now)) {
        Some(Ok(said)) => Json(said).into_response(),
        Some(Err(reason)) => refusal(StatusCode::BAD_REQUEST, reason),
        None => unknown(),
    }
}

async fn purge(State(shared): Known, headers: HeaderMap) -> Response {
    if let Err(refused) = admit(&shared, "purge-queue", &headers, "") {
        return *refused;
    }
    let removed = shared.with(|platform, now| platform.purge(now));
    Json(json!({"removed": removed, "status": "completed"})).into_response()
}

async fn health(State(shared): Known, headers: HeaderMap) -> Response {
    match admit(&shared, "health", &headers, "") {
        Ok(behaviours) => answer(shared.look(|platform, now| platform.health(now)), &behaviours).await,
        Err(refused) => *refused,
    }
}

async fn behave(State(shared): Known, Json(orders): Json<Orders>) -> StatusCode {
    shared.with(|platform, _| platform.obey(orders));
    StatusCode::NO_CONTENT
}

async fn meter(State(shared): Known) -> Json<Meter> {
    Json(shared.look(|platform, now| platform.meter(now)))
}

async fn advance(State(shared): Known, Json(by): Json<By>) -> StatusCode {
    shared.clock.advance(Duration::from_millis(by.ms));
    shared.with(|_, _| ());
    StatusCode::NO_CONTENT
}

/// How far the clock is to jump.
#[derive(Deserialize)]
struct By {
    ms: u64,
}

/// How long a call waits.
#[derive(Deserialize)]
struct Wait {
    wait: Option<u64>,
}

/// Takes a job, unless something is in the way.
fn submit(
    shared: &Shared,
    headers: &HeaderMap,
    body: &[u8],
    is_sync: bool,
) -> Result<(String, BTreeSet<Behaviour>), Box<Response>> {
    let (operation, calls_max) =
        if is_sync { ("runsync", shared.settings.calls_max) } else { ("run", shared.settings.run_calls_max) };
    let behaviours = shared
        .look(|platform, now| if platform.admit(operation, calls_max, now) { Some(platform.draw(true)) } else { None });
    let behaviours = behaviours.unwrap_or_else(|| BTreeSet::from([Behaviour::Throttle]));
    if let Some(refused) = instead(&behaviours, headers, body) {
        return Err(Box::new(refused));
    }
    let wrong = |reason: &str| Box::new(refusal(StatusCode::BAD_REQUEST, reason));
    let body: Value = serde_json::from_slice(body).map_err(|_| wrong("not JSON"))?;
    if !body.get("input").is_some_and(Value::is_object) {
        return Err(wrong("input is required"));
    }
    let submission = Submission { body, is_sync };
    let id = shared.with(|platform, now| platform.submit(submission, behaviours.clone(), now));
    Ok((id, behaviours))
}

/// How the answer to a call about a job misbehaves, unless that is all there is of it.
fn admit(
    shared: &Shared,
    operation: &'static str,
    headers: &HeaderMap,
    id: &str,
) -> Result<BTreeSet<Behaviour>, Box<Response>> {
    let calls_max = shared.settings.calls_max;
    let drawn = shared.look(|platform, now| {
        if !platform.admit(operation, calls_max, now) {
            return BTreeSet::from([Behaviour::Throttle]);
        }
        let mut drawn = platform.draw(false);
        // A job that was taken to have a slow or huge answer has it here.
        let own = platform.behaviours(id);
        drawn.extend(own.into_iter().filter(|one| matches!(one, Behaviour::SlowBody | Behaviour::HugeBody)));
        drawn
    });
    match instead(&drawn, headers, &[]) {
        Some(refused) => Err(Box::new(refused)),
        None => Ok(drawn),
    }
}

/// The status when it is final, or when the wait is over.
async fn final_status(shared: &Shared, id: &str, wait: &Query<Wait>) -> Option<Value> {
    let wait = wait.wait.map_or(SYNC_WAIT, Duration::from_millis).clamp(SYNC_WAIT_MIN, SYNC_WAIT_MAX);
    let until = shared.clock.now() + wait;
    let ended = |platform: &mut Platform, now: Duration| {
        let said = platform.status(id, now);
        platform.is_final(id).then_some(said)
    };
    match shared.wait(until, ended).await {
        Some(said) => said,
        None => shared.look(|platform, now| platform.status(id, now)),
    }
}

fn unknown() -> Response {
    refusal(StatusCode::NOT_FOUND, "job not found")
}

/// What a query may say, for workers.
pub(crate) type Words = Query<BTreeMap<String, String>>;
