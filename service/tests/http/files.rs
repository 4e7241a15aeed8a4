//! Pictures go in and out by addresses that the relay has signed, each for one thing and a time.

use std::time::Duration;

use data_encoding::BASE64;
use queue::{JobId, MicroUsd, UnixMs};
use reqwest::StatusCode;
use serde_json::{Value, json};
use service::access::Right;
use service::delivery;
use service::limits::{PICTURE_BYTES_MAX, UPLOAD_SIGNATURE_TIME};

use crate::support::{Answer, MEMBER, ROOM, TestService, USER, png};

/// An address to upload a picture to, and its path.
async fn address(service: &TestService, token: &str) -> (String, String) {
    let answer = service.post(&format!("/api/uploads/{ROOM}"), token, json!({ "mime": "image/png" })).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.message());
    let json = answer.json();
    assert_eq!(json["method"], "PUT");
    assert_eq!(json["until_ms"], service.app.clock.now().after(UPLOAD_SIGNATURE_TIME).0);
    (json["url"].as_str().unwrap().to_owned(), json["path"].as_str().unwrap().to_owned())
}

async fn put(service: &TestService, url: &str, bytes: Vec<u8>) -> StatusCode {
    service.send(service.request("PUT", url, None).body(bytes)).await.status
}

async fn fetch(service: &TestService, url: &str) -> StatusCode {
    service.send(service.request("GET", url, None)).await.status
}

/// The same address with one character of its signature changed.
fn tampered(url: &str) -> String {
    let (start, last) = url.split_at(url.len() - 2);
    format!("{start}{}{}", if last.starts_with('A') { 'B' } else { 'A' }, &last[1..])
}

#[tokio::test]
async fn a_picture_is_uploaded_used_and_read_again() {
    let service = TestService::start().await;
    let token = service.member();
    let (url, path) = address(&service, &token).await;
    assert!(path.starts_with(&format!("uploads/{USER}/")) && url.starts_with(&service.base));
    assert_eq!(put(&service, &url, png(2000)).await, StatusCode::CREATED);
    assert_eq!(put(&service, &url, png(2000)).await, StatusCode::CONFLICT, "once");
    let body = json!({ "type": "sdxl_img2img", "prompt": "a", "init_image": path });
    let submitted = service.post(&format!("/api/queue/{ROOM}"), &token, body).await;
    assert_eq!(submitted.status, StatusCode::ACCEPTED, "{}", submitted.message());
    let work = service.take(&token, "").await.json();
    assert_eq!(work["input"]["init_image"], path);
    let read = service.send(service.request("GET", work["init_image_url"].as_str().unwrap(), None)).await;
    assert_eq!((read.status, read.bytes), (StatusCode::OK, png(2000)));
    assert_eq!(read.headers["content-type"], "image/png");
    assert_eq!(read.headers["content-security-policy"], "default-src 'none'; sandbox");
    assert_eq!(read.headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn an_address_that_was_changed_or_is_old_opens_nothing() {
    let service = TestService::start().await;
    let token = service.member();
    let (url, path) = address(&service, &token).await;
    assert_eq!(put(&service, &tampered(&url), png(10)).await, StatusCode::FORBIDDEN);
    assert_eq!(put(&service, &url.replace(&path, "uploads/ada/other.png"), png(10)).await, StatusCode::FORBIDDEN);
    assert_eq!(put(&service, &url.replace("until=18", "until=19"), png(10)).await, StatusCode::FORBIDDEN);
    assert_eq!(put(&service, &format!("/api/files/{path}"), png(10)).await, StatusCode::FORBIDDEN);
    assert_eq!(fetch(&service, &url).await, StatusCode::FORBIDDEN, "what may be written may not be read");
    assert_eq!(put(&service, &url, png(10)).await, StatusCode::CREATED);
    let read = service.app.results.sign_get(&path, Duration::from_secs(60), service.app.clock.now()).await.unwrap();
    assert_eq!(fetch(&service, &read).await, StatusCode::OK);
    assert_eq!(fetch(&service, &tampered(&read)).await, StatusCode::FORBIDDEN);
    assert_eq!(put(&service, &read, png(10)).await, StatusCode::FORBIDDEN, "what may be read may not be written");
    let (late, _) = address(&service, &token).await;
    service.advance(Duration::from_secs(61));
    assert_eq!(fetch(&service, &read).await, StatusCode::FORBIDDEN);
    service.advance(UPLOAD_SIGNATURE_TIME);
    assert_eq!(put(&service, &late, png(10)).await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_is_no_picture_or_too_large_is_not_kept() {
    let service = TestService::start().await;
    let token = service.member();
    let (url, path) = address(&service, &token).await;
    assert_eq!(put(&service, &url, b"<svg onload=alert(1)>".to_vec()).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(put(&service, &url, b"\xff\xd8\xff\xe0".to_vec()).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(put(&service, &url, png(PICTURE_BYTES_MAX + 1)).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(service.app.results.get(&path).await.is_err());
    for mime in ["image/svg+xml", "text/html", "video/mp4", ""] {
        let answer = service.post(&format!("/api/uploads/{ROOM}"), &token, json!({ "mime": mime })).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{mime}");
    }
}

#[tokio::test]
async fn nobody_begins_with_a_picture_of_somebody_else() {
    let service = TestService::start().await;
    let (url, path) = address(&service, &service.member()).await;
    assert_eq!(put(&service, &url, png(10)).await, StatusCode::CREATED);
    let submit = async |token: &str, init_image: Value| {
        let body = json!({ "type": "sdxl_img2img", "prompt": "a", "init_image": init_image });
        service.post(&format!("/api/queue/{ROOM}"), token, body).await
    };
    let eve = service.token(Some(ROOM), "eve", MEMBER);
    let refused = submit(&eve, json!(path)).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let missing = submit(&eve, json!("uploads/eve/none.png")).await;
    assert_eq!((missing.status, missing.message()), (StatusCode::BAD_REQUEST, refused.message()), "no difference");
    for address in ["http://169.254.169.254/latest", "file:///etc/passwd", "uploads/../../etc/passwd", ""] {
        assert_eq!(submit(&eve, json!(address)).await.status, StatusCode::BAD_REQUEST, "{address}");
    }
    assert_eq!(submit(&service.member(), Value::Null).await.status, StatusCode::BAD_REQUEST, "it needs one");
    assert_eq!(submit(&service.member(), json!(path)).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_worker_may_put_its_result_beside_the_delivery() {
    let service = TestService::start().await;
    let id = service.submit("a lake").await;
    let worker = service.token(Some(ROOM), "bob", &[Right::Work]);
    let work = service.take(&worker, "gpu").await.json();
    let upload = &work["urls"]["upload"];
    assert_eq!(put(&service, upload["url"].as_str().unwrap(), png(3000)).await, StatusCode::CREATED);
    let delivered = deliver_stored(&service, &worker, &work, &upload["path"]).await;
    assert_eq!(delivered.status, StatusCode::OK, "{}", delivered.message());
    let job = service.get(&format!("/api/jobs/{id}"), &service.member()).await.json();
    assert_eq!((&job["status"], &job["files"][0]["path"]), (&json!("completed"), &upload["path"]));
    let url = job["files"][0]["url"].as_str().unwrap().to_owned();
    assert_eq!(service.send(service.request("GET", &url, None)).await.bytes, png(3000));
}

#[tokio::test]
async fn a_delivery_that_comes_again_leaves_the_picture_where_it_is() {
    let service = TestService::start().await;
    let worker = service.token(Some(ROOM), "bob", &[Right::Work]);
    service.submit("a lake").await;
    let work = service.take(&worker, "gpu").await.json();
    let upload = &work["urls"]["upload"];
    assert_eq!(put(&service, upload["url"].as_str().unwrap(), png(3000)).await, StatusCode::CREATED);
    let path = upload["path"].as_str().unwrap();
    let is_kept = async || service.app.results.get(path).await.is_ok();
    assert_eq!(deliver_stored(&service, &worker, &work, &upload["path"]).await.status, StatusCode::OK);
    // The answer was lost on its way.
    let again = deliver_stored(&service, &worker, &work, &upload["path"]).await;
    assert_eq!((again.status, again.code().as_str()), (StatusCode::CONFLICT, "stale"));
    assert!(is_kept().await);
    // Nor does it go because of another job of the same user, whose lease ends while it is delivered.
    service.submit("a hill").await;
    let work = service.take(&worker, "gpu").await.json();
    let id = JobId::new(work["id"].as_str().unwrap().to_owned()).unwrap();
    let job = service.app.store.job(&id).await.unwrap().unwrap();
    service.app.store.cancel(&id, service.app.clock.now()).await.unwrap();
    let image = |kind: &str, data: &str| json!({ "filename": "0.png", "type": kind, "data": data });
    let output = json!({ "images": [image("stored", path), image("base64", &BASE64.encode(&png(100)))] });
    let late = delivery::accept(&service.app, &job, job.fence, output, MicroUsd::default()).await;
    assert_eq!(late.unwrap_err().status, StatusCode::CONFLICT);
    assert!(is_kept().await);
    assert_eq!(service.app.results.forget(UnixMs(u64::MAX)).await, Ok(1), "and what came inside that delivery is gone");
}

/// Delivers a picture that was put beside the delivery.
async fn deliver_stored(service: &TestService, worker: &str, work: &Value, path: &Value) -> Answer {
    let output = json!({ "images": [{ "filename": "0.png", "type": "stored", "data": path }], "seed": 7 });
    let body = json!({ "fence": work["lease"]["fence"], "output": output });
    service.post(work["urls"]["deliver"].as_str().unwrap(), worker, body).await
}
