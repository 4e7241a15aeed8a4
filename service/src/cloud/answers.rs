//! What the cloud's workers and the operator ask: claims, webhooks, the ledger, the kill switch.

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::routing::{get, post};
use queue::{AttemptState, Breaker, Endpoint, Entry, MicroUsd, RoomName, Spending, Step, UserName};
use runpod::RemoteId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Claimed;
use tracing::{debug, info, warn};

use super::hints::{attempt_of, is_genuine};
use super::limits::{CLAIM_BYTES_MAX, LEDGER_ENTRIES_MAX, WEBHOOK_BYTES_MAX};
use crate::body::{self, Sent};
use crate::error::ApiError;
use crate::guard::Need;
use crate::rates::Rate;
use crate::routes::Route;
use crate::state::App;

/// The routes of overflow.
pub(crate) fn routes() -> Vec<Route> {
    let operator = |method, path, handler| Route::new(method, path, Need::Operator, handler);
    vec![
        Route::new("POST", "/api/claim", Need::Signed, post(claim))
            .rated(Rate::Work)
            .body(CLAIM_BYTES_MAX)
            .says("A worker of the cloud asks, once, whether it may begin"),
        Route::new("POST", "/api/webhook/{token}", Need::Signed, post(webhook))
            .rated(Rate::Work)
            .body(WEBHOOK_BYTES_MAX)
            .says("An endpoint tells that a job has ended; only a hint"),
        operator("GET", "/api/ledger", get(ledger))
            .says("What was held, charged and saved, and what is left of budgets"),
        operator("GET", "/api/cloud", get(cloud)).says("Every endpoint, its breaker and its health"),
        operator("POST", "/api/cloud/switch", post(turn))
            .says("Turns the kill switch: {\"on\": false} ends all spending"),
        operator("POST", "/api/cloud/reset", post(reset)).says("Closes an endpoint's breaker: {\"endpoint\": NAME}"),
    ]
}

/// What a worker of the cloud says before it begins.
#[derive(Clone, Debug, Deserialize)]
struct Claim {
    nonce: String,
    #[serde(default)]
    id: Option<String>,
}

/// Lets a worker begin, once.
async fn claim(State(app): State<App>, Sent(claim): Sent<Claim>) -> Result<Json<Value>, ApiError> {
    // A name that could not stand in a path is none; the job may begin all the same.
    let remote = claim.id.and_then(|id| RemoteId::new(id).ok()).map(|id| id.to_string());
    match app.store.claim(&claim.nonce, remote, app.clock.now()).await? {
        Claimed::Granted(job) => {
            app.cloud.driven.wake(&job.id);
            debug!(job = %job.id, "a worker of the cloud begins");
            Ok(Json(json!({ "job": job.id })))
        }
        Claimed::Refused => {
            info!("a worker of the cloud may not begin: it is the second, or too late, or nobody's");
            Err(ApiError::conflict("somebody has begun this already, or it is not wanted any more: stop"))
        }
    }
}

/// What is read of a webhook: its name for the job. All else is asked of the endpoint itself.
#[derive(Deserialize)]
struct Told {
    id: Option<String>,
}

/// A hint that an attempt has ended. Nobody signs it, so it only has the relay look.
async fn webhook(State(app): State<App>, Path(token): Path<String>, request: Request) -> Result<Json<Value>, ApiError> {
    let none = || ApiError::not_found("there is no such webhook");
    let key = attempt_of(&token).ok_or_else(none)?;
    let attempt = app.store.attempt(&key).await?.filter(|attempt| is_genuine(&token, attempt)).ok_or_else(none)?;
    // Its body holds the whole result; it is read only for who shows the token.
    let told = body::read(request, &()).await.ok().and_then(|body| serde_json::from_slice::<Told>(&body).ok());
    let remote = told.and_then(|told| told.id).and_then(|id| RemoteId::new(id).ok());
    if let (AttemptState::Unknown, None, Some(remote)) = (attempt.state, &attempt.remote, remote) {
        info!(job = %key.job, %remote, "an attempt whose answer was lost is found by its webhook");
        app.store.step(&key, Step::Submit { remote: remote.to_string() }, app.clock.now()).await?;
    }
    app.cloud.driven.wake(&key.job);
    Ok(Json(json!({})))
}

/// What of the ledger is asked for.
#[derive(Debug, Deserialize)]
struct LedgerQuery {
    #[serde(default)]
    after: u64,
    count: Option<usize>,
    room: Option<RoomName>,
    user: Option<UserName>,
}

/// An entry and its number.
#[derive(Debug, Serialize)]
struct Line {
    number: u64,
    #[serde(flatten)]
    entry: Entry,
    amount_usd: f64,
}

/// The ledger's entries, what was spent and saved, and what is left of every budget. The budgets of a room and a user are
/// those of whom the query names.
async fn ledger(State(app): State<App>, Query(query): Query<LedgerQuery>) -> Result<Json<Value>, ApiError> {
    let count = query.count.unwrap_or(LEDGER_ENTRIES_MAX).min(LEDGER_ENTRIES_MAX);
    let entries = app.store.ledger(query.after, count).await?;
    let report = app.store.report(query.room.as_ref()).await?;
    let lines: Vec<Line> =
        entries.into_iter().map(|(number, entry)| Line { number, amount_usd: entry.amount.usd(), entry }).collect();
    let spent = spending(&app, query.room, query.user).await?;
    Ok(Json(json!({
        "next": lines.last().map_or(query.after, |line| line.number),
        "entries": lines,
        "report": {
            "charged_usd": report.charged.usd(),
            "held_usd": report.held.usd(),
            "saved_usd": report.saved.usd(),
            "jobs": { "local": report.local_jobs, "peer": report.peer_jobs, "cloud": report.cloud_jobs },
        },
        "budgets": budgets(&app, &spent),
    })))
}

/// Every endpoint and how it is, and whether anything is spent at all.
async fn cloud(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    let now = app.clock.now();
    let mut endpoints = Vec::new();
    for desk in &app.cloud.desks {
        let breaker: Breaker = desk.breaker(&*app.store).await?;
        let rules = &desk.rules;
        let health = desk.health().map(|health| {
            let (jobs, workers) = (health.jobs, health.workers);
            json!({
                "jobs": { "in_queue": jobs.in_queue, "in_progress": jobs.in_progress, "failed": jobs.failed },
                "workers": {
                    "idle": workers.idle, "running": workers.running, "initializing": workers.initializing,
                    "ready": workers.ready, "throttled": workers.throttled, "unhealthy": workers.unhealthy,
                },
            })
        });
        endpoints.push(json!({
            "name": rules.name, "queues": rules.queues, "models": rules.models, "dialect": rules.dialect,
            "claims": rules.claims, "in_flight": desk.in_flight(), "in_flight_max": rules.in_flight_max,
            "price_per_second_usd": rules.price.per_second.usd(), "worst_usd": rules.price.worst().usd(),
            "breaker": breaker.state(), "not_asked_because": breaker.reason(now), "trouble": desk.trouble(),
            "health": health,
        }));
    }
    let spent = spending(&app, None, None).await?;
    let is_on = !app.cloud.is_off(&*app.store).await?;
    Ok(Json(json!({ "is_on": is_on, "endpoints": endpoints, "budgets": budgets(&app, &spent) })))
}

/// Which way the switch is turned.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    on: bool,
}

/// Turns the kill switch: off, nothing new is asked of any endpoint; what runs there is brought to its end.
async fn turn(State(app): State<App>, Sent(Turn { on }): Sent<Turn>) -> Result<Json<Value>, ApiError> {
    if on && app.cloud.rules.is_switched_off {
        return Err(ApiError::conflict("the configuration says kill_switch = true; change it and restart"));
    }
    app.cloud.turn(&*app.store, on).await?;
    warn!(on, "the kill switch was turned");
    Ok(Json(json!({ "is_on": on })))
}

/// Which endpoint was put right.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    endpoint: Endpoint,
}

/// Closes an endpoint's breaker.
async fn reset(State(app): State<App>, Sent(Reset { endpoint }): Sent<Reset>) -> Result<Json<Value>, ApiError> {
    let none = || ApiError::not_found("there is no such endpoint; GET /api/cloud lists them");
    let desk = app.cloud.desk(&endpoint).ok_or_else(none)?;
    desk.reset(&*app.store).await?;
    Ok(Json(json!({ "endpoint": endpoint, "breaker": Breaker::default().state() })))
}

async fn spending(app: &App, room: Option<RoomName>, user: Option<UserName>) -> Result<Spending, ApiError> {
    // Names that nobody can have: nothing is spent by them.
    let room = room.unwrap_or_else(|| RoomName::new("-").expect("a constant name is a name"));
    let user = user.unwrap_or_else(|| UserName::new("-").expect("a constant name is a name"));
    Ok(app.store.spending(&room, &user, app.clock.now().day()).await?)
}

fn budgets(app: &App, spent: &Spending) -> Value {
    let budgets = &app.cloud.rules.budgets;
    let line = |limit: MicroUsd, spent: MicroUsd| json!({ "limit_usd": limit.usd(), "spent_or_held_usd": spent.usd(), "left_usd": limit.minus(spent).usd() });
    json!({
        "total": line(budgets.total, spent.total),
        "day": line(budgets.day, spent.day),
        "room_day": line(budgets.room_day, spent.room_day),
        "user_day": line(budgets.user_day, spent.user_day),
    })
}
