//! Whoever has a room's link gets a token for it, and nobody else.

use std::time::Duration;

use data_encoding::{BASE32_NOPAD, BASE64};
use ed25519_dalek::{Signer, SigningKey};
use queue::{RoomName, UnixMs};
use reqwest::StatusCode;
use serde_json::{Value, json};
use service::Settings;
use service::api::{proof_text, room_of_key};

use crate::support::{Answer, NOW, TestService, unlimited};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn room() -> RoomName {
    room_of_key(key().verifying_key().as_bytes())
}

fn proof(key: &SigningKey, room: &RoomName, host: &str, time: UnixMs) -> Value {
    let signature = key.sign(proof_text(room, host, time).as_bytes());
    let public_key = BASE32_NOPAD.encode(key.verifying_key().as_bytes()).to_lowercase();
    json!({ "public_key": public_key, "time_ms": time.0, "signature": BASE64.encode(&signature.to_bytes()) })
}

async fn ask(service: &TestService, room: &RoomName, proof: Value) -> Answer {
    service.send(service.request("POST", &format!("/api/token/{room}"), None).json(&proof)).await
}

#[tokio::test]
async fn a_member_proves_it_and_gets_a_token_for_that_room_alone() {
    let service = TestService::start().await;
    let host = service.address.to_string();
    let answer = ask(&service, &room(), proof(&key(), &room(), &host, NOW)).await;
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
    let again = ask(&service, &room(), proof(&key(), &room(), &host, NOW)).await.json();
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
    let stranger = SigningKey::from_bytes(&[4; 32]);
    let hour = NOW.after(Duration::from_secs(3600));
    for (name, proof) in [
        ("another key", proof(&stranger, &room(), &host, NOW)),
        ("another relay", proof(&key(), &room(), "evil.example", NOW)),
        ("another hour", proof(&key(), &room(), &host, hour)),
        ("another room", proof(&key(), &RoomName::new("elsewhere").unwrap(), &host, NOW)),
    ] {
        let answer = ask(&service, &room(), proof).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{name}");
        assert!(answer.json().get("token").is_none());
    }
    let elsewhere = RoomName::new("elsewhere").unwrap();
    let answer = ask(&service, &elsewhere, proof(&key(), &elsewhere, &host, NOW)).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "a room that an operator has named has no members by link");
}

#[tokio::test]
async fn members_spend_only_where_the_operator_says_so() {
    let service = TestService::with(Settings { rooms_may_spend: true, ..unlimited() }).await;
    let host = service.address.to_string();
    let json = ask(&service, &room(), proof(&key(), &room(), &host, NOW)).await.json();
    assert_eq!(json["rights"], json!(["read", "submit", "work", "spend"]));
}
