//! A queue as a worker sees one: gives jobs, hears reports, and shows tests everything in the order it came.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// More than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Something a worker asked or told.
#[derive(Debug)]
pub struct Seen {
    /// `job-take`, `job-done`, `ping`, `claim` or `put`.
    pub what: &'static str,
    /// The worker, where the address names it.
    pub worker: String,
    /// The job, where the address names it.
    pub job: String,
    /// The address's query.
    pub query: String,
    /// Headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Seen {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// A header as text; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Whether it tells that a job is under way.
    pub fn is_progress(&self) -> bool {
        self.what == "job-done" && self.json()["status"] == "IN_PROGRESS"
    }
}

/// A queue on a free port, until it is dropped.
pub struct Queue {
    /// Where it is: `http://127.0.0.1:PORT`.
    pub url: String,
    seen: mpsc::Receiver<Seen>,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

struct Shared {
    seen: mpsc::Sender<Seen>,
    jobs: Mutex<VecDeque<Value>>,
    stops: Mutex<Vec<String>>,
    changed: Notify,
    claim: Mutex<StatusCode>,
}

impl Queue {
    /// An empty queue, which grants claims.
    pub fn open() -> Self {
        let (sender, seen) = mpsc::channel();
        let shared = Arc::new(Shared {
            seen: sender,
            jobs: Mutex::default(),
            stops: Mutex::default(),
            changed: Notify::new(),
            claim: Mutex::new(StatusCode::OK),
        });
        let router = Router::new()
            .route("/v2/room/job-take/{worker}", get(take))
            .route("/v2/room/job-done/{worker}/{job}", post(done))
            .route("/v2/room/job-stop/{worker}", get(stop))
            .route("/v2/room/ping/{worker}", get(ping))
            .route("/claim", post(claim))
            .route("/store/{*path}", put(store))
            .with_state(shared.clone());
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async { axum::serve(listener, router).await });
        Self { url, seen, shared, _runtime: runtime }
    }

    /// Its room.
    pub fn room(&self) -> String {
        format!("{}/v2/room", self.url)
    }

    /// Gives a job to the next worker that asks.
    pub fn give(&self, id: &str, input: Value) {
        self.shared.jobs.lock().unwrap().push_back(json!({ "id": id, "input": input }));
        self.shared.changed.notify_waiters();
    }

    /// Has a job stopped.
    pub fn stop(&self, id: &str) {
        self.shared.stops.lock().unwrap().push(id.into());
        self.shared.changed.notify_waiters();
    }

    /// Answers claims so from here on.
    pub fn answer_claims(&self, status: StatusCode) {
        *self.shared.claim.lock().unwrap() = status;
    }

    /// Waits for the next thing that fits.
    pub fn wait_for(&self, fits: impl Fn(&Seen) -> bool) -> Seen {
        loop {
            let seen = self.seen.recv_timeout(PATIENCE).expect("a worker is there and does what it should");
            if fits(&seen) {
                return seen;
            }
        }
    }

    /// Everything that is told about jobs until the end of this one is: the last is the end.
    pub fn reports_until_end(&self, job: &str) -> Vec<Seen> {
        let mut reports = Vec::new();
        loop {
            let report = self.wait_for(|seen| seen.what == "job-done");
            let is_end = report.job == job && !report.is_progress();
            reports.push(report);
            if is_end {
                return reports;
            }
        }
    }

    /// What came since it was last asked.
    pub fn so_far(&self) -> Vec<Seen> {
        self.seen.try_iter().collect()
    }
}

type Asked = (State<Arc<Shared>>, Path<String>, RawQuery, HeaderMap);

impl Shared {
    fn see(
        &self,
        what: &'static str,
        (worker, job): (String, String),
        query: RawQuery,
        headers: HeaderMap,
        body: Bytes,
    ) {
        // The test may have seen enough and be gone.
        let _ = self.seen.send(Seen { what, worker, job, query: query.0.unwrap_or_default(), headers, body });
    }

    /// Waits until there is something.
    async fn wait<T>(&self, find: impl Fn() -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            if let Some(found) = find() {
                return found;
            }
            changed.await;
        }
    }
}

async fn take((State(shared), Path(worker), query, headers): Asked) -> Response {
    shared.see("job-take", (worker, String::new()), query, headers, Bytes::new());
    axum::Json(shared.wait(|| shared.jobs.lock().unwrap().pop_front()).await).into_response()
}

async fn done(
    State(shared): State<Arc<Shared>>,
    Path(place): Path<(String, String)>,
    query: RawQuery,
    headers: HeaderMap,
    body: Bytes,
) {
    shared.see("job-done", place, query, headers, body);
}

async fn stop(State(shared): State<Arc<Shared>>) -> Response {
    let stops = || {
        let stops = std::mem::take(&mut *shared.stops.lock().unwrap());
        (!stops.is_empty()).then_some(stops)
    };
    axum::Json(json!({ "jobsToStop": shared.wait(stops).await })).into_response()
}

async fn ping((State(shared), Path(worker), query, headers): Asked) {
    shared.see("ping", (worker, String::new()), query, headers, Bytes::new());
}

async fn claim(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    shared.see("claim", Default::default(), RawQuery(None), headers, body);
    *shared.claim.lock().unwrap()
}

async fn store(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<String>,
    query: RawQuery,
    headers: HeaderMap,
    body: Bytes,
) {
    shared.see("put", (String::new(), path), query, headers, body);
}
