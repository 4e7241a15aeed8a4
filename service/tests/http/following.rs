//! A job is followed by events and over a socket: every change, the first view at once, the end last.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use service::access::Right;
use service::limits::STREAMS_MAX;

use crate::support::follow::{Events, Socket};
use crate::support::{ROOM, TestService, USER};

#[tokio::test]
async fn events_follow_a_job_from_the_queue_to_its_picture() {
    let service = TestService::start().await;
    let token = service.member();
    let first = service.submit("before").await;
    let id = service.submit("a lake").await;
    let path = format!("/api/jobs/{id}/events");
    let (mut events, headers) = Events::open(service.request("GET", &path, Some(&token))).await;
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-cache");
    let event = events.next().await.unwrap();
    assert_eq!((event.name.as_str(), event.id.as_str()), ("job", "1"));
    assert_eq!((&event.data["status"], &event.data["position"]), (&json!("queued"), &json!(1)));
    service.delete(&format!("/api/jobs/{first}"), &token).await;
    let event = events.next().await.unwrap();
    assert_eq!(
        (event.id.as_str(), &event.data["position"]),
        ("1", &json!(0)),
        "its place has changed, not its version"
    );
    let work = service.take(&token, "").await.json();
    let event = events.next().await.unwrap();
    assert_eq!((event.id.as_str(), &event.data["status"]), ("2", &json!("processing")));
    assert_eq!((&event.data["source"], &event.data["worker_type"]), (&json!("peer"), &json!("worker")));
    let beat = json!({ "fence": work["lease"]["fence"], "progress": 0.5 });
    service.post(work["urls"]["beat"].as_str().unwrap(), &token, beat).await;
    let event = events.next().await.unwrap();
    assert_eq!((event.id.as_str(), &event.data["progress"]), ("3", &json!(0.5)));
    service.deliver(&id, &token, &work["lease"]["fence"]).await;
    let event = events.next().await.unwrap();
    assert_eq!((event.id.as_str(), &event.data["status"]), ("4", &json!("completed")));
    assert!(event.data["files"][0]["url"].as_str().unwrap().starts_with(&service.base));
    assert!(events.next().await.is_none(), "the end");
}

#[tokio::test]
async fn a_page_that_comes_back_goes_on_where_it_was() {
    let service = TestService::start().await;
    let token = service.member();
    let id = service.submit("a lake").await;
    let path = format!("/api/jobs/{id}/events");
    let open =
        |told: &'static str| Events::open(service.request("GET", &path, Some(&token)).header("last-event-id", told));
    let (mut known, _) = open("1").await;
    let work = service.take(&token, "").await.json();
    assert_eq!(known.next().await.unwrap().id, "2", "what it knew was not told again");
    drop(known);
    service.deliver(&id, &token, &work["lease"]["fence"]).await;
    let (mut missed, _) = open("2").await;
    assert_eq!(missed.next().await.unwrap().data["status"], "completed");
    assert!(missed.next().await.is_none());
    let request = service.request("GET", &path, Some(&token)).header("last-event-id", "3");
    assert_eq!(service.send(request).await.status, StatusCode::NO_CONTENT, "an EventSource stops asking then");
}

#[tokio::test]
async fn a_cancelled_job_says_so_to_whoever_follows() {
    let service = TestService::start().await;
    let token = service.member();
    let id = service.submit("a lake").await;
    let (mut events, _) = Events::open(service.request("GET", &format!("/api/jobs/{id}/events"), Some(&token))).await;
    events.next().await.unwrap();
    service.delete(&format!("/api/jobs/{id}"), &token).await;
    assert_eq!(events.next().await.unwrap().data["status"], "cancelled");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_socket_tells_the_same_and_closes() {
    let service = TestService::start().await;
    let token = service.member();
    let id = service.submit("a lake").await;
    let path = format!("/api/jobs/{id}/ws?access_token={token}");
    let mut socket = Socket::open(service.address, &path, "").await.unwrap_or_else(|line| panic!("{line}"));
    let view = socket.next().await.unwrap();
    let shown = service.get(&format!("/api/jobs/{id}"), &token).await.json();
    assert_eq!(view, shown);
    let work = service.take(&token, "").await.json();
    assert_eq!(socket.next().await.unwrap()["status"], "processing");
    service.deliver(&id, &token, &work["lease"]["fence"]).await;
    assert_eq!(socket.next().await.unwrap()["status"], "completed");
    assert!(socket.next().await.is_none(), "closed");
}

#[tokio::test]
async fn a_socket_is_nobodys_elses() {
    let service = TestService::start().await;
    let id = service.submit("a lake").await;
    let path = |token: &str| format!("/api/jobs/{id}/ws?access_token={token}");
    let eve = service.token(Some(ROOM), "eve", &[Right::Read]);
    for (token, status) in [("rubbish", "401"), (eve.as_str(), "404")] {
        let refused = Socket::open(service.address, &path(token), "").await.err().unwrap();
        assert!(refused.contains(status), "{refused}");
    }
    let member = service.member();
    let foreign = Socket::open(service.address, &path(&member), "Origin: https://evil.example\r\n").await;
    assert!(foreign.err().unwrap().contains("403"), "pages of others open none, whatever token they have");
    assert!(Socket::open(service.address, &path(&member), "").await.is_ok());
}

#[tokio::test]
async fn a_token_in_the_address_is_read_only_where_browsers_cannot_send_headers() {
    let service = TestService::start().await;
    let token = service.token_for(Some(ROOM), USER, &[Right::Read, Right::Submit], Duration::from_secs(60));
    let id = service.submit("a lake").await;
    let (mut events, _) =
        Events::open(service.request("GET", &format!("/api/jobs/{id}/events?access_token={token}"), None)).await;
    assert!(events.next().await.is_some());
    // As `URLSearchParams` writes what is no letter or digit; any byte may be written so.
    let encoded: String = token.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let path = format!("/api/jobs/{id}/events?from=0&access_token={encoded}");
    let (mut events, _) = Events::open(service.request("GET", &path, None)).await;
    assert!(events.next().await.is_some());
    let delete = service.request("DELETE", &format!("/api/jobs/{id}?access_token={token}"), None);
    assert_eq!(service.send(delete).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn whoever_waits_is_let_go_when_the_relay_ends() {
    let service = TestService::start().await;
    let token = service.member();
    let id = service.submit("a lake").await;
    let work = service.take(&token, "").await.json();
    assert_eq!(work["id"], json!(id));
    let (mut events, _) = Events::open(service.request("GET", &format!("/api/jobs/{id}/events"), Some(&token))).await;
    events.next().await.unwrap();
    let path = format!("/api/jobs/{id}/ws?access_token={token}");
    let mut socket = Socket::open(service.address, &path, "").await.unwrap_or_else(|line| panic!("{line}"));
    socket.next().await.unwrap();
    let join = format!("/api/join/{ROOM}");
    let waiting = service.post(&join, &token, json!({ "worker": "other", "wait_s": 25 }));
    let closing = async { service.app.closing.close() };
    let (answer, ()) = tokio::join!(waiting, closing);
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(events.next().await.is_none());
    assert!(socket.next().await.is_none());
}

#[tokio::test]
async fn streams_are_bounded_and_a_place_is_free_again_when_one_ends() {
    let service = TestService::start().await;
    let token = service.member();
    let id = service.submit("a lake").await;
    let path = format!("/api/jobs/{id}/events");
    let mut open = Vec::new();
    for _ in 0..STREAMS_MAX {
        let (events, _) = Events::open(service.request("GET", &path, Some(&token))).await;
        open.push(events);
    }
    let full = service.get(&path, &token).await;
    assert_eq!((full.status, full.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "5"));
    assert_eq!(service::api::stats(&service.app).await.unwrap().streams, STREAMS_MAX as u64);
    service.delete(&format!("/api/jobs/{id}"), &token).await;
    for mut events in open {
        while events.next().await.is_some() {}
    }
    let other = service.submit("a sea").await;
    let (mut events, _) =
        Events::open(service.request("GET", &format!("/api/jobs/{other}/events"), Some(&token))).await;
    assert!(events.next().await.is_some());
}
