//! Whoever has a room's link gets a token for it, and nobody else.

use std::time::Duration;

use protocol::{QueueKey, RoomSecret};
use queue::{RoomName, UnixMs};
use reqwest::StatusCode;
use serde_json::{Value, json};
use service::Settings;

use crate::support::{Answer, NOW, TestService, unlimited};

fn key() -> QueueKey {
    RoomSecret::from_random([3; 16]).queue_key()
}

fn room() -> RoomName {
    RoomName::new(key().room_name()).unwrap()
}

fn proof(key: &QueueKey, host: &str, time: UnixMs) -> Value {
    serde_json::to_value(key.prove(host, time.0)).unwrap()
}

async fn ask(service: &TestService, room: &RoomName, proof: Value) -> Answer {
    service.send(service.request("POST", &format!("/api/token/{room}"), None).json(&proof)).await
}

#[tokio::test]
async fn a_member_proves_it_and_gets_a_token_for_that_room_alone() {
    let service = TestService::start().await;
    let host = service.address.to_string();
    let answer = ask(&service, &room(), proof(&key(), &host, NOW)).await;
    assert_eq!(answer.status, StatusCode::OK);
    let json = answer.json();
    assert_eq!(json["rights"], json!(["read", "submit", "work"]));
    assert_eq!(json["until_ms"], NOW.0 + 3_600_000);
    assert!(json["user"].as_str().unwrap().starts_with("anon-"));
    let token = json["token"].as_str().unwrap();
    let submission = json!({ "type": "demo_fast", "prompt": "a" });
    let submitted = service.post(&format!("/api/queue/{}", room()), token, submission.clone()).await;
    assert_eq!(submitted.status, StatusCode::ACCEPTED);
    assert_eq!(service.post("/api/queue/elsewhere", token, submission).await.status, StatusCode::FORBIDDEN);
    let again = ask(&service, &room(), proof(&key(), &host, NOW)).await.json();
    assert_eq!(again["user"], json["user"], "a page that is opened again finds its jobs");
    let id = submitted.json()["jobs"][0]["id"].as_str().unwrap().to_owned();
    let seen = service.get(&format!("/api/jobs/{id}"), again["token"].as_str().unwrap()).await;
    assert_eq!(seen.status, StatusCode::OK);
    service.advance(Duration::from_secs(3601));
    assert_eq!(service.get(&format!("/api/jobs/{id}"), token).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_proof_for_another_room_relay_or_hour_gives_nothing() {
    let service = TestService::start().await;
    let host = service.address.to_string();
    let stranger = RoomSecret::from_random([4; 16]).queue_key();
    let hour = NOW.after(Duration::from_secs(3600));
    for (name, proof) in [
        ("another key", proof(&stranger, &host, NOW)),
        ("another relay", proof(&key(), "evil.example", NOW)),
        ("another hour", proof(&key(), &host, hour)),
    ] {
        let answer = ask(&service, &room(), proof).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{name}");
        assert!(answer.json().get("token").is_none());
    }
    let port = service.address.port();
    let answer = ask(&service, &room(), proof(&key(), &format!("localhost:{port}"), NOW)).await;
    assert_eq!(answer.status, StatusCode::OK, "the same machine");
    let elsewhere = RoomName::new("elsewhere").unwrap();
    let answer = ask(&service, &elsewhere, proof(&key(), &host, NOW)).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "a room that an operator has named has no members by link");
}

#[tokio::test]
async fn members_spend_only_where_the_operator_says_so() {
    let service = TestService::with(Settings { rooms_may_spend: true, ..unlimited() }).await;
    let host = service.address.to_string();
    let json = ask(&service, &room(), proof(&key(), &host, NOW)).await.json();
    assert_eq!(json["rights"], json!(["read", "submit", "work", "spend"]));
}
