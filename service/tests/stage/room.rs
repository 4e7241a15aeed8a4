//! A relay's service on loopback, with tokens for its rooms, and requests by hand.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use data_encoding::BASE64;
use prometheus_client::registry::Registry;
use queue::{RoomName, UnixMs, UserName};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use service::access::{Grant, Right};
use service::{App, Clock, Settings, router};
use store::Memory;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The smallest PNG there is: one transparent pixel.
pub const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// A service with no room yet.
pub struct Stage {
    pub app: App,
    pub base: String,
    http: reqwest::Client,
    server: JoinHandle<()>,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.app.closing.close();
        self.server.abort();
    }
}

impl Stage {
    /// On the machine's time.
    pub async fn start() -> Self {
        Self::with(Clock::System, Settings::default()).await
    }

    /// On a time that only [`Clock::advance`] moves.
    pub async fn start_by_hand() -> Self {
        Self::with(Clock::Manual(Arc::new(AtomicU64::new(1_800_000_000_000))), Settings::default()).await
    }

    pub async fn with(clock: Clock, settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let store = Arc::new(Memory::new(store::limits::Limits::default()));
        let app = App::new(store, settings, None, &base, clock, Registry::default()).unwrap();
        let service = router(app.clone()).into_make_service_with_connect_info::<SocketAddr>();
        let server = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { app, base, http, server }
    }

    /// A token of a room; of every room if none is named.
    pub fn token(&self, room: Option<&str>, user: &str, rights: &[Right]) -> String {
        let grant = Grant {
            room: room.map(|room| RoomName::new(room).unwrap()),
            user: UserName::new(user).unwrap(),
            rights: rights.iter().copied().collect::<BTreeSet<_>>(),
            until: UnixMs(u64::MAX / 2_000_000),
        };
        self.app.mint.grant(&grant).unwrap()
    }

    /// Of somebody who uses `room`.
    pub fn client(&self, room: &str, user: &str) -> Caller<'_> {
        Caller { stage: self, token: self.token(Some(room), user, &[Right::Read, Right::Submit]) }
    }

    /// Of somebody who works in `room`.
    pub fn worker(&self, room: &str, user: &str) -> Caller<'_> {
        Caller { stage: self, token: self.token(Some(room), user, &[Right::Work]) }
    }

    /// Of the relay's operator.
    pub fn operator(&self) -> Caller<'_> {
        Caller { stage: self, token: self.token(None, "operator", &[Right::Operate]) }
    }
}

/// Somebody with a token.
#[derive(Clone)]
pub struct Caller<'a> {
    pub stage: &'a Stage,
    pub token: String,
}

impl Caller<'_> {
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None, &[]).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body), &[]).await
    }

    /// Without any body, as some clients send it.
    pub async fn post_nothing(&self, path: &str) -> Answer {
        self.call(Method::POST, path, None, &[]).await
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>, headers: &[(&str, &str)]) -> Answer {
        let url = format!("{}{path}", self.stage.base);
        // The bare key, as RunPod's workers send it; its clients' `Bearer` is in the tests of the SDKs.
        let mut request = self.stage.http.request(method, url).header(AUTHORIZATION, &self.token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            // What RunPod's worker calls its JSON.
            request = request.header("content-type", "application/x-www-form-urlencoded").body(body.to_string());
        }
        let response = request.timeout(Duration::from_secs(60)).send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.unwrap();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        Answer { status, headers, body }
    }

    /// Runs `input` in a room; gives the job's id.
    pub async fn run(&self, room: &str, input: Value) -> String {
        let answer = self.post(&format!("/v2/{room}/run"), json!({ "input": input })).await;
        assert_eq!(answer.body["status"], "IN_QUEUE", "{answer:?}");
        answer.body["id"].as_str().unwrap().to_owned()
    }

    pub async fn status(&self, room: &str, id: &str) -> Value {
        let answer = self.get(&format!("/v2/{room}/status/{id}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.body
    }

    /// Takes a job as the worker `name`, if there is one now.
    pub async fn take(&self, room: &str, name: &str, more: &str) -> Option<Value> {
        let answer = self.get(&format!("/v2/{room}/job-take/{name}?gpu=none&job_in_progress=0&wait=0{more}")).await;
        match answer.status {
            StatusCode::OK => Some(answer.body),
            StatusCode::NO_CONTENT => None,
            _ => panic!("{answer:?}"),
        }
    }

    /// Says something of a job as the worker `name`; whether it counted.
    pub async fn done(&self, room: &str, name: &str, id: &str, body: Value) -> bool {
        let answer = self.post(&format!("/v2/{room}/job-done/{name}/{id}?gpu=none&isStream=false"), body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.body["accepted"].as_bool().unwrap()
    }

    /// Does jobs as the worker `name` until it is dropped: each is answered by what `paint` makes of its input.
    pub fn work(&self, room: &str, name: &str, more: &str, paint: fn(&Value) -> Value) -> JoinHandle<()> {
        let (http, token) = (self.stage.http.clone(), self.token.clone());
        let base = format!("{}/v2/{room}", self.stage.base);
        let (name, more) = (name.to_owned(), more.to_owned());
        tokio::spawn(async move {
            loop {
                let url = format!("{base}/job-take/{name}?x=1{more}");
                let Ok(taken) = http.get(url).header(AUTHORIZATION, &token).send().await else { return };
                let Ok(job) = taken.json::<Value>().await else { continue };
                let url = format!("{base}/job-done/{name}/{}?x=1", job["id"].as_str().unwrap());
                let body = paint(&job["input"]).to_string();
                let _ = http.post(url).header(AUTHORIZATION, &token).body(body).send().await;
            }
        })
    }
}

/// What our own worker gives for any input.
pub fn painted(input: &Value) -> Value {
    let image = json!({ "filename": "0.png", "type": "base64", "data": PNG });
    json!({ "output": { "images": [image], "seed": input["seed"], "seconds": 0.01 } })
}

/// The bytes of [`PNG`].
pub fn png() -> Vec<u8> {
    BASE64.decode(PNG.as_bytes()).unwrap()
}
