//! A prompt, a token and a key that nobody else has any business to know are in no log, number, error or answer to others.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "money/stage.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod stage;
#[path = "support/support.rs"]
mod support;

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use runpod::emulator::{Behaviour, Orders};
use serde_json::json;
use service::access::Right;
use service::routes;
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::stage::{KEY, Stage, Wish};
use crate::support::follow::Events;
use crate::support::{MEMBER, ROOM, TestService, USER, png};

const PROMPT: &str = "canaryprompt";
const REASON: &str = "canaryreason";

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// One for all tests.
    fn open() -> Self {
        static LOG: LazyLock<Log> = LazyLock::new(|| {
            let log = Log::default();
            // All of ours, and whatever else speaks, but for the client that these tests themselves are.
            let filter = EnvFilter::new("trace,reqwest=off,hyper_util=off");
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(log.clone()).with_ansi(false).init();
            log
        });
        LOG.clone()
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Drives every route with this token, and gives all that was answered to it.
async fn everything(service: &TestService, token: Option<&str>, is_operator: bool, id: &str) -> String {
    let mut heard = String::new();
    for route in routes() {
        if route.method == "DELETE" {
            continue; // The job is needed; calling it off is tried elsewhere.
        }
        // RunPod's contract gives a job's output, whatever it holds, to whoever operates the endpoint.
        if is_operator && route.path.starts_with("/v2/{room}/status") {
            continue;
        }
        let names = [
            ("{room}", ROOM),
            ("{id}", id),
            ("{bucket}", "uploads"),
            ("{user}", USER),
            ("{file}", "a.png"),
            ("{worker}", "w"),
            ("{nonce}", "n"),
        ];
        let path = names.iter().fold(route.path.to_owned(), |path, (brace, name)| path.replace(brace, name));
        let mut request = service.request(route.method, &path, token);
        if route.method != "GET" {
            request = request.json(&json!({ "fence": 99, "wait_s": 0, "worker": "w" }));
        }
        let Ok(Ok(response)) = timeout(Duration::from_millis(500), request.send()).await else { continue };
        heard.push_str(&format!("{} {} {:?}\n", route.method, response.status(), response.headers()));
        if let Ok(Ok(text)) = timeout(Duration::from_millis(500), response.text()).await {
            heard.push_str(&text);
        }
    }
    heard
}

#[tokio::test]
async fn canaries_are_heard_nowhere() {
    let log = Log::open();
    let service = TestService::start().await;
    let (member, operator) = (service.member(), service.operator());
    let eve = service.token(Some(ROOM), "eve", &[Right::Read, Right::Submit, Right::Spend]);
    let elsewhere = service.token(Some("elsewhere"), USER, MEMBER);

    let waiting = service.submit(PROMPT).await;
    let told = service.get(&format!("/api/jobs/{waiting}"), &member).await;
    assert!(String::from_utf8(told.bytes).unwrap().contains(PROMPT), "its owner is told, so the canary sings");
    let mut overheard = String::new();
    for token in [None, Some("rubbish"), Some(eve.as_str()), Some(elsewhere.as_str())] {
        overheard.push_str(&everything(&service, token, false, &waiting).await);
    }
    // What the operator sees of a job is not what it asks for; taking it as a worker is, so that comes last.
    let seen = service.get(&format!("/api/jobs/{waiting}"), &operator).await;
    overheard.push_str(&String::from_utf8(seen.bytes).unwrap());
    let (mut events, _) =
        Events::open(service.request("GET", &format!("/api/jobs/{waiting}/events"), Some(&operator))).await;
    overheard.push_str(&events.next().await.unwrap().data.to_string());

    // A job's whole life: taken, failed with words of its own, taken again, delivered; one submitted wrongly, one cancelled.
    let fence = service.take(&operator, "w").await.json()["lease"]["fence"].clone();
    let failed = json!({ "fence": fence, "error": format!("{REASON} while painting {PROMPT}") });
    service.post(&format!("/api/jobs/{waiting}/deliver"), &operator, failed).await;
    let fence = service.take(&operator, "w").await.json()["lease"]["fence"].clone();
    let mut output = support::picture_output(&png(100));
    output["prompt"] = json!(PROMPT);
    let wrong = json!({ "fence": fence, "output": { "images": [{ "data": PROMPT }] } });
    service.post(&format!("/api/jobs/{waiting}/deliver"), &operator, wrong).await;
    let fence = service.take(&operator, "w").await.json()["lease"]["fence"].clone();
    let right = json!({ "fence": fence, "output": output });
    let delivered = service.post(&format!("/api/jobs/{waiting}/deliver"), &operator, right).await;
    assert_eq!(delivered.json()["status"], "completed");
    service
        .post(&format!("/api/queue/{ROOM}"), &member, json!({ "type": "demo_fast", "prompt": PROMPT, "steps": PROMPT }))
        .await;
    let cancelled = service.submit(PROMPT).await;
    service.delete(&format!("/api/jobs/{cancelled}"), &member).await;
    overheard.push_str(&everything(&service, Some(&operator), true, &waiting).await);
    let metrics = service.send(service.request("GET", "/metrics", None)).await;
    overheard.push_str(&String::from_utf8(metrics.bytes).unwrap());

    let log = log.text();
    assert!(log.contains("job submitted") && log.contains("job ended") && log.contains(&waiting), "stages are logged");
    for (name, canary) in [
        ("the prompt", PROMPT),
        ("a worker's reason", REASON),
        ("the operator's token", operator.as_str()),
        ("a member's token", member.as_str()),
    ] {
        assert!(!log.contains(canary), "{name} is in the log:\n{}", around(&log, canary));
        assert!(!overheard.contains(canary), "{name} was told to others:\n{}", around(&overheard, canary));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cloud_says_of_a_job_is_told_to_its_owner_and_not_logged() {
    let log = Log::open();
    let stage = Stage::set(Wish::default()).await;
    for behaviour in [Behaviour::Refuse, Behaviour::Fail, Behaviour::FailRaised] {
        stage.behave(Orders::next(behaviour));
        let id = stage.submit("room", "ada").await;
        let job = stage.ended(&id).await;
        let is_quoted = job.reasons.iter().any(|reason| reason.contains(stage::PROMPT));
        assert_eq!(is_quoted, behaviour != Behaviour::FailRaised, "a traceback is kept apart: {:?}", job.reasons);
    }
    let log = log.text();
    for line in ["the endpoint did not take it", "the endpoint refuses (400)", "an attempt of the cloud failed"] {
        assert!(log.contains(line), "{line}");
    }
    for (name, canary) in [("the prompt", stage::PROMPT), ("the endpoint's key", KEY)] {
        assert!(!log.contains(canary), "{name} is in the log:\n{}", around(&log, canary));
    }
}

/// The lines that have it.
fn around(text: &str, canary: &str) -> String {
    text.lines().filter(|line| line.contains(canary)).take(5).collect::<Vec<_>>().join("\n")
}
