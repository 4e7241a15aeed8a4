//! Every route, what it needs and who answers it: one table, from which the router, its guards and their test are made.

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get};

use crate::guard::{Need, stand};
use crate::state::App;

/// One line of the table.
pub struct Route {
    /// The method, as it is written in HTTP.
    pub method: &'static str,
    /// The path, with `{room}` and `{id}` where they stand.
    pub path: &'static str,
    /// What it asks of its caller.
    pub need: Need,
    handler: MethodRouter<App>,
}

/// The table.
pub fn routes() -> Vec<Route> {
    let route = |method, path, need, handler| Route { method, path, need, handler };
    vec![route("GET", "/api/health", Need::Nothing, get(health))]
}

/// The routes behind their guards.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    for Route { path, need, handler, .. } in routes() {
        router = router.route(path, handler.layer(from_fn_with_state((app.clone(), need), stand)));
    }
    router.with_state(app)
}

async fn health() -> &'static str {
    "ok"
}
