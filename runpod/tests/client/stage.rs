//! An emulator with a client, quick enough for tests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{post, put};
use axum::{Json, Router};
use runpod::emulator::{Emulator, Settings};
use runpod::{Client, ClientLimits, Key, RunRequest};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// It stands in no error, whatever happens.
pub(crate) const CANARY: &str = "rpa_CANARY0123456789";

/// Long enough for any test, in real time.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A cold start of 80 ms and a run of 30 ms.
pub(crate) fn settings() -> Settings {
    Settings { key: CANARY.to_owned(), speed: 100.0, ..Settings::default() }
}

pub(crate) async fn start(settings: Settings) -> (Emulator, Client) {
    let emulator = Emulator::start(settings).await.unwrap();
    let client = client(&emulator.base(), ClientLimits::default());
    (emulator, client)
}

pub(crate) fn client(base: &str, limits: ClientLimits) -> Client {
    Client::new(base, Key::new(CANARY).unwrap(), limits).unwrap()
}

/// A job that names itself.
pub(crate) fn request(name: &str) -> RunRequest {
    RunRequest::new(json!({"task": "txt2img", "width": 32, "height": 16, "seed": 7, "_client_ref": name}))
}

/// A relay in small: it grants each nonce once, keeps what is put and what it is told.
#[derive(Clone)]
pub(crate) struct Relay {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    told: watch::Sender<usize>,
}

#[derive(Default)]
struct Kept {
    claims: Vec<String>,
    files: Vec<(String, Vec<u8>)>,
    hooks: Vec<Value>,
    refusals_left: u32,
}

impl Relay {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let relay = Self { address, kept: Arc::default(), told: watch::Sender::new(0) };
        let router = Router::new()
            .route("/claim", post(claim))
            .route("/files/{name}", put(keep))
            .route("/hook", post(hear))
            .with_state(relay.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        relay
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Answers so many webhooks with failure.
    pub(crate) fn refuse_hooks(&self, count: u32) {
        self.kept.lock().unwrap().refusals_left = count;
    }

    pub(crate) fn hooks(&self) -> Vec<Value> {
        self.kept.lock().unwrap().hooks.clone()
    }

    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        self.kept.lock().unwrap().files.clone()
    }

    /// Waits until it has been told so often.
    pub(crate) async fn told(&self, times: usize) {
        self.told.subscribe().wait_for(|told| *told >= times).await.unwrap();
    }
}

async fn claim(State(relay): State<Relay>, Json(body): Json<Value>) -> StatusCode {
    let nonce = body["nonce"].as_str().unwrap().to_owned();
    let claims = &mut relay.kept.lock().unwrap().claims;
    if claims.contains(&nonce) {
        return StatusCode::CONFLICT;
    }
    claims.push(nonce);
    StatusCode::OK
}

async fn keep(State(relay): State<Relay>, Path(name): Path<String>, body: axum::body::Bytes) -> StatusCode {
    relay.kept.lock().unwrap().files.push((name, body.to_vec()));
    StatusCode::OK
}

async fn hear(State(relay): State<Relay>, Json(body): Json<Value>) -> StatusCode {
    let kept = &mut relay.kept.lock().unwrap();
    relay.told.send_modify(|told| *told += 1);
    if kept.refusals_left > 0 {
        kept.refusals_left -= 1;
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    kept.hooks.push(body);
    StatusCode::OK
}
