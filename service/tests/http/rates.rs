//! How often one client may ask, and how much a request may hold.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use service::rates::{Allowance, RateSettings};
use service::{Settings, limits, routes};

use crate::support::{ROOM, TestService, unlimited};

fn few() -> Settings {
    let few = Allowance { per_second: 0.5, burst: 3 };
    Settings { rates: RateSettings { reads: few, ..unlimited().rates }, ..Settings::default() }
}

#[tokio::test]
async fn whoever_asks_too_often_is_told_when_to_come_again() {
    let service = TestService::with(few()).await;
    let token = service.member();
    let path = format!("/api/queue/{ROOM}");
    for _ in 0..3 {
        assert_eq!(service.get(&path, &token).await.status, StatusCode::OK);
    }
    let refused = service.get(&path, &token).await;
    assert_eq!((refused.status, refused.code().as_str()), (StatusCode::TOO_MANY_REQUESTS, "throttled"));
    assert_eq!(refused.header("retry-after"), "2");
    let strangers = service.send(service.request("GET", "/api/health", None)).await;
    assert_eq!(strangers.status, StatusCode::TOO_MANY_REQUESTS, "they are counted by address, not by token");
    let other = service.post(&path, &token, json!({ "type": "demo_fast", "prompt": "a" })).await;
    assert_eq!(other.status, StatusCode::ACCEPTED, "submissions are counted apart");
    service.advance(Duration::from_secs(2));
    assert_eq!(service.get(&path, &token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_wrong_token_is_counted_too() {
    let service = TestService::with(few()).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(service.get(&format!("/api/queue/{ROOM}"), "guess").await.status.as_u16());
    }
    assert_eq!(statuses, [401, 401, 401, 429]);
}

#[tokio::test]
async fn behind_a_trusted_proxy_clients_are_told_apart() {
    let service = TestService::with(Settings { behind_proxy: true, ..few() }).await;
    let ask = async |client: &str| {
        let request = service.request("GET", "/api/health", None).header("x-forwarded-for", client);
        service.send(request).await.status.as_u16()
    };
    for _ in 0..3 {
        assert_eq!(ask("192.0.2.1").await, 200);
    }
    assert_eq!(ask("192.0.2.1").await, 429);
    assert_eq!(ask("192.0.2.2").await, 200);
    assert_eq!(ask("203.0.113.5, 192.0.2.1").await, 429, "what a client says before the proxy does is not believed");
    let alone = TestService::with(few()).await;
    for (index, expected) in [200, 200, 200, 429].into_iter().enumerate() {
        let request = alone.request("GET", "/api/health", None).header("x-forwarded-for", format!("192.0.2.{index}"));
        assert_eq!(alone.send(request).await.status, expected, "without a proxy nobody speaks for others");
    }
}

#[tokio::test]
async fn no_route_reads_more_than_it_says() {
    let service = TestService::start().await;
    let operator = service.operator();
    for route in routes().iter().filter(|route| route.method != "GET" && route.path.contains("/api/queue")) {
        let path = route.path.replace("{room}", ROOM);
        let text = format!("{{\"type\":\"demo_fast\",\"prompt\":\"{}\"}}", "a".repeat(route.body_bytes_max));
        let told = service.send(service.request(route.method, &path, Some(&operator)).body(text.clone())).await;
        assert_eq!((told.status, told.code().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "too_large"), "{path}");
        // In pieces, so that no header tells the length.
        let pieces = futures::stream::iter(
            text.into_bytes()
                .chunks(64 * 1024)
                .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()))
                .collect::<Vec<_>>(),
        );
        let pieces = reqwest::Body::wrap_stream(pieces);
        let told = service.send(service.request(route.method, &path, Some(&operator)).body(pieces)).await;
        assert_eq!(told.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
    }
    assert!(routes().iter().all(|route| route.body_bytes_max <= limits::CLIP_BYTES_MAX));
}

#[tokio::test]
async fn a_token_is_looked_at_before_a_byte_of_the_body() {
    let service = TestService::start().await;
    let much = "a".repeat(limits::JSON_BYTES_MAX + 1);
    let request = service.request("POST", &format!("/api/queue/{ROOM}"), Some("rubbish")).body(much);
    assert_eq!(service.send(request).await.status, StatusCode::UNAUTHORIZED);
}
