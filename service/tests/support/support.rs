//! A service on loopback with a queue in memory and a clock that stands still, and a client that speaks to it.

#![allow(dead_code, reason = "every test uses its part of it")]

pub mod follow;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use data_encoding::BASE64;
use queue::{RoomName, UnixMs, UserName};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use service::access::{Grant, Right};
use service::rates::{Allowance, RateSettings};
use service::{App, Clock, Settings, router};
use store::Memory;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// When every test begins.
pub const NOW: UnixMs = UnixMs(1_800_000_000_000);

/// The room and the user of most tests.
pub const ROOM: &str = "here";
/// See [`ROOM`].
pub const USER: &str = "ada";

/// Rights of a member who may not spend.
pub const MEMBER: &[Right] = &[Right::Read, Right::Submit, Right::Work];

/// A service that ends with its test.
pub struct TestService {
    /// What its handlers share.
    pub app: App,
    /// Its address, as `http://127.0.0.1:PORT`.
    pub base: String,
    /// Its address.
    pub address: SocketAddr,
    client: reqwest::Client,
    server: JoinHandle<()>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: reqwest::header::HeaderMap,
    /// Its body.
    pub bytes: Vec<u8>,
}

impl Answer {
    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }

    /// The word for programs of an error.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The sentence for people of an error.
    pub fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or_default().to_owned()
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Drop for TestService {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl TestService {
    /// With settings that limit no rates.
    pub async fn start() -> Self {
        Self::with(unlimited()).await
    }

    /// With these settings.
    pub async fn with(settings: Settings) -> Self {
        Self::within(store::limits::Limits::default(), settings).await
    }

    /// With a store of these limits.
    pub async fn within(limits: store::limits::Limits, settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let base = format!("http://{address}");
        let store = Arc::new(Memory::new(limits));
        let clock = Clock::Manual(Arc::new(AtomicU64::new(NOW.0)));
        let app = App::new(store, settings, None, &base, clock, Default::default()).unwrap();
        let routes = router(app.clone()).into_make_service_with_connect_info::<SocketAddr>();
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { app, base, address, client: reqwest::Client::new(), server }
    }

    /// Lets time go by.
    pub fn advance(&self, time: Duration) {
        self.app.clock.advance(time);
    }

    /// A token for an hour.
    pub fn token(&self, room: Option<&str>, user: &str, rights: &[Right]) -> String {
        self.token_for(room, user, rights, Duration::from_secs(3600))
    }

    /// A token for so long from the beginning of the test.
    pub fn token_for(&self, room: Option<&str>, user: &str, rights: &[Right], time: Duration) -> String {
        let grant = Grant {
            room: room.map(|room| RoomName::new(room).unwrap()),
            user: UserName::new(user).unwrap(),
            rights: rights.iter().copied().collect(),
            until: NOW.after(time),
        };
        self.app.mint.grant(&grant).unwrap()
    }

    /// The token of [`USER`] in [`ROOM`], who may not spend.
    pub fn member(&self) -> String {
        self.token(Some(ROOM), USER, MEMBER)
    }

    /// An operator's token.
    pub fn operator(&self) -> String {
        self.token(None, "root", &[Right::Operate])
    }

    /// A request that has not been sent.
    pub fn request(&self, method: &str, path: &str, token: Option<&str>) -> RequestBuilder {
        let method: Method = method.parse().unwrap();
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.base) };
        let request = self.client.request(method, url);
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request and reads the answer.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, bytes: response.bytes().await.unwrap().to_vec() }
    }

    /// GET.
    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(self.request("GET", path, Some(token))).await
    }

    /// POST with JSON.
    pub async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.send(self.request("POST", path, Some(token)).json(&body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str, token: &str) -> Answer {
        self.send(self.request("DELETE", path, Some(token))).await
    }

    /// Submits a job of the demo model as [`USER`] in [`ROOM`], a moment after the one before; its id.
    pub async fn submit(&self, prompt: &str) -> String {
        self.advance(Duration::from_millis(1));
        let body = json!({ "type": "demo_fast", "prompt": prompt, "seed": 7 });
        let answer = self.post(&format!("/api/queue/{ROOM}"), &self.member(), body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.message());
        answer.json()["jobs"][0]["id"].as_str().unwrap().to_owned()
    }

    /// Takes a job as a worker of this token, without waiting.
    pub async fn take(&self, token: &str, worker: &str) -> Answer {
        self.post(&format!("/api/join/{ROOM}"), token, json!({ "worker": worker, "wait_s": 0 })).await
    }

    /// Delivers a picture for a job.
    pub async fn deliver(&self, id: &str, token: &str, fence: &Value) -> Answer {
        let body = json!({ "fence": fence, "output": picture_output(&png(100)) });
        self.post(&format!("/api/jobs/{id}/deliver"), token, body).await
    }
}

/// Settings whose rates are no matter.
pub fn unlimited() -> Settings {
    let much = Allowance { per_second: 1.0e6, burst: 1_000_000 };
    let rates = RateSettings { reads: much, submits: much, tokens: much, uploads: much, work: much };
    Settings { rates, ..Settings::default() }
}

/// What a worker gives that has painted one picture.
pub fn picture_output(png: &[u8]) -> Value {
    json!({ "images": [{ "filename": "0.png", "type": "base64", "data": BASE64.encode(png) }], "seed": 7, "seconds": 1.5 })
}

/// A file that begins like a PNG.
pub fn png(bytes: usize) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    png.resize(bytes, 0);
    png
}
