//! The HTTP API: who the relay is, whether it is well, and how much it does; and the page, where there is one.

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use service::App;
use tokio::sync::watch;

use crate::limits::HTTP_BODY_BYTES_MAX;
use crate::site::Site;
use crate::stats::Stats;

/// What the welcome says besides where there is a queue.
const QUEUE_WELCOME: &str =
    "GET /api/docs     the queue of jobs: how to ask for pictures here, and how to paint them\n";

/// What `GET /addrs` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// The relay's peer id.
    pub peer: String,
    /// Where to connect, each ending in the peer id.
    pub addrs: Vec<String>,
}

/// Who the relay is and where it is at present.
#[derive(Clone)]
pub(crate) struct Whereabouts {
    /// The relay's peer id.
    pub peer: String,
    /// Where to connect, each ending in the peer id.
    pub addresses: watch::Receiver<Vec<Multiaddr>>,
}

impl Whereabouts {
    fn now(&self) -> Addresses {
        let addrs = self.addresses.borrow().iter().map(Multiaddr::to_string).collect();
        Addresses { peer: self.peer.clone(), addrs }
    }
}

#[derive(Clone)]
struct Known {
    whereabouts: Whereabouts,
    stats: watch::Receiver<Stats>,
    queue: Option<App>,
}

/// All routes. With a site, everything that is not the API is the page's; with a queue, its API is there as well.
pub(crate) fn router(
    whereabouts: Whereabouts,
    stats: watch::Receiver<Stats>,
    site: Option<Site>,
    queue: Option<App>,
) -> Router {
    let api = Router::new().route("/api", get(welcome)).route("/addrs", get(addrs)).route("/api/stats", get(counts));
    // The queue says itself whether it is well.
    let api = if queue.is_none() { api.route("/api/health", get(health)) } else { api };
    let api = if site.is_none() { api.route("/", get(welcome)) } else { api };
    let known = Known { whereabouts, stats, queue: queue.clone() };
    let api = api.layer(map_response(open_to_all)).with_state(known);
    let api = match queue {
        Some(app) => api.merge(service::router(app)),
        None => api,
    };
    let all = match site {
        Some(site) => api.fallback_service(site.routes()),
        None => api,
    };
    all.layer(DefaultBodyLimit::max(HTTP_BODY_BYTES_MAX))
}

/// Pages from other servers may use this relay; what it tells is no secret and is never old.
async fn open_to_all(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn welcome(State(known): State<Known>) -> String {
    let Addresses { peer, addrs } = known.whereabouts.now();
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
         GET /api/stats    how much it does\n{}",
        addrs.join("\n           "),
        if known.queue.is_some() { QUEUE_WELCOME } else { "" },
    )
}

async fn addrs(State(known): State<Known>) -> Json<Addresses> {
    Json(known.whereabouts.now())
}

async fn health() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") }))
}

async fn counts(State(known): State<Known>) -> Json<Stats> {
    let mut stats = known.stats.borrow().clone();
    if let Some(app) = &known.queue {
        // Without its database the relay still counts what it carries.
        stats.queue = service::api::stats(app).await.ok();
    }
    Json(stats)
}
