//! The HTTP API: who the relay is, whether it is well, and how much it does.

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::limits::HTTP_BODY_BYTES_MAX;
use crate::stats::Stats;

/// What `GET /addrs` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// The relay's peer id.
    pub peer: String,
    /// Where to connect, each ending in the peer id.
    pub addrs: Vec<String>,
}

#[derive(Clone)]
struct Known {
    addresses: Addresses,
    stats: watch::Receiver<Stats>,
}

/// All routes.
pub(crate) fn router(addresses: Addresses, stats: watch::Receiver<Stats>) -> Router {
    Router::new()
        .route("/", get(welcome))
        .route("/addrs", get(addrs))
        .route("/api/health", get(health))
        .route("/api/stats", get(counts))
        .layer(DefaultBodyLimit::max(HTTP_BODY_BYTES_MAX))
        .with_state(Known { addresses, stats })
}

async fn welcome(State(known): State<Known>) -> String {
    let Addresses { peer, addrs } = known.addresses;
    format!(
        "This is a Manyhands relay. It introduces the members of a room to each other and carries the connections of\n\
         those who cannot reach each other directly. It sees who connects to whom and how much they send, but not what.\n\
         \n\
         To use it, put its address before the secret of a room link: manyhands room new --relay http://THIS-ADDRESS\n\
         \n\
         peer id    {peer}\n\
         addresses  {}\n\
         \n\
         GET /addrs        the same as JSON, for programs\n\
         GET /api/health   whether it is well\n\
         GET /api/stats    how much it does\n",
        addrs.join("\n           ")
    )
}

async fn addrs(State(known): State<Known>) -> Json<Addresses> {
    Json(known.addresses)
}

async fn health() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

async fn counts(State(known): State<Known>) -> Json<Stats> {
    let stats = known.stats.borrow().clone();
    Json(stats)
}
