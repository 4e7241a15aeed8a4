//! Every route, what it needs and who answers it: one table, from which the router, its guards, its document and its test are
//! made.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::MethodRouter;
use utoipa::openapi::path::Operation;

use crate::access::Right;
use crate::guard::{Need, stand};
use crate::limits::JSON_BYTES_MAX;
use crate::rates::Rate;
use crate::state::App;
use crate::{api, cloud, compat, facade};

/// What is known of a route before it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The method, as it is written in HTTP.
    pub method: &'static str,
    /// The path, with `{room}` and `{id}` where they stand.
    pub path: &'static str,
    /// What it asks of its caller.
    pub need: Need,
    /// With what its calls are counted.
    pub rate: Rate,
    /// The most bytes of its body.
    pub body_bytes_max: usize,
    /// Whether it waits for something to happen, as long as it says itself.
    pub waits: bool,
    /// What it does, in a sentence.
    pub summary: &'static str,
}

/// One line of the table, with its handler.
#[derive(Clone)]
pub struct Route {
    line: Line,
    pub(crate) operation: Option<Operation>,
    handler: MethodRouter<App>,
}

impl Route {
    /// A route with JSON in its body at most.
    pub(crate) fn new(method: &'static str, path: &'static str, need: Need, handler: MethodRouter<App>) -> Self {
        let rate = match (need, method) {
            (Need::Room(Right::Work) | Need::Worker, _) => Rate::Work,
            (_, "GET") => Rate::Reads,
            (Need::Nothing | Need::Room(_) | Need::Job(_) | Need::TokenRoom(_) | Need::Operator | Need::Signed, _) => {
                Rate::Submits
            }
        };
        let line = Line { method, path, need, rate, body_bytes_max: JSON_BYTES_MAX, waits: false, summary: "" };
        Self { line, operation: None, handler }
    }

    /// With another limit of its body.
    pub(crate) fn body(mut self, bytes_max: usize) -> Self {
        self.line.body_bytes_max = bytes_max;
        self
    }

    /// Counted with these.
    pub(crate) fn rated(mut self, rate: Rate) -> Self {
        self.line.rate = rate;
        self
    }

    /// It answers when something happens.
    pub(crate) fn waits(mut self) -> Self {
        self.line.waits = true;
        self
    }

    /// What it does, in a sentence, for the document.
    pub fn says(mut self, summary: &'static str) -> Self {
        self.line.summary = summary;
        self
    }

    /// What `#[utoipa::path]` has read from its handler, for the document.
    pub(crate) fn documented<P: utoipa::Path>(mut self) -> Self {
        self.operation = Some(P::operation());
        self
    }
}

impl Deref for Route {
    type Target = Line;

    fn deref(&self) -> &Line {
        &self.line
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.line.fmt(formatter)
    }
}

/// The table.
pub fn routes() -> Vec<Route> {
    [api::routes(), cloud::routes(), facade::routes(), compat::routes()].into_iter().flatten().collect()
}

/// The routes behind their guards.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    for Route { line, handler, .. } in routes() {
        let (path, bytes_max) = (line.path, line.body_bytes_max);
        let guarded = handler
            .layer(DefaultBodyLimit::max(bytes_max))
            .layer(from_fn_with_state((app.clone(), Arc::new(line)), stand));
        router = router.route(path, guarded);
    }
    router.with_state(app)
}
