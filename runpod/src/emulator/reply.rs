//! Answers of the emulated endpoint, whole or in one of the ways they can come.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::emulator::behaviour::Behaviour;

/// Between two bytes of a slow answer, in real time.
const DRIBBLE: Duration = Duration::from_millis(50);

/// A huge answer's pieces: 64 MiB in all.
const HUGE_PIECES: usize = 1024;
const HUGE_PIECE_BYTES: usize = 64 * 1024;

/// An error as the vendor writes it.
pub(crate) fn refusal(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({"error": reason}))).into_response()
}

/// What is said instead of an answer to this body, before anything has been done.
pub(crate) fn instead(behaviours: &BTreeSet<Behaviour>, headers: &HeaderMap, body: &[u8]) -> Option<Response> {
    let does = |behaviour: Behaviour| behaviours.contains(&behaviour);
    if does(Behaviour::AuthRevoked) {
        return Some(StatusCode::UNAUTHORIZED.into_response());
    }
    if does(Behaviour::Throttle) {
        return Some((StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")], "").into_response());
    }
    if does(Behaviour::OutOfFunds) {
        return Some(refusal(StatusCode::PAYMENT_REQUIRED, "payment required"));
    }
    if does(Behaviour::OutOfFundsSaid) {
        return Some(refusal(StatusCode::BAD_REQUEST, "insufficient balance to run this job"));
    }
    if does(Behaviour::Refuse) {
        let key = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let prompt = body.pointer("/input/prompt").and_then(Value::as_str).unwrap_or_default();
        return Some(refusal(StatusCode::BAD_REQUEST, &format!("this request with {key} is not valid: {prompt}")));
    }
    does(Behaviour::Fault).then(|| refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal error"))
}

/// An answer to what has been done, as it comes.
pub(crate) async fn answer(value: Value, behaviours: &BTreeSet<Behaviour>) -> Response {
    let does = |behaviour: Behaviour| behaviours.contains(&behaviour);
    if does(Behaviour::TimeoutAfterAccept) {
        return pending().await;
    }
    if does(Behaviour::ErrorAfterAccept) {
        return refusal(StatusCode::BAD_GATEWAY, "bad gateway");
    }
    let text = value.to_string();
    if does(Behaviour::CutAfterAccept) {
        let half = Bytes::from(text.as_bytes()[..text.len() / 2].to_vec());
        return json_of(Body::from_stream(stream::iter([Ok(half), Err(io::Error::other("cut"))])));
    }
    if does(Behaviour::SlowBody) {
        let bytes = stream::unfold(text.into_bytes().into_iter(), |mut bytes| async move {
            sleep(DRIBBLE).await;
            let byte = bytes.next()?;
            Some((Ok::<_, Infallible>(Bytes::from(vec![byte])), bytes))
        });
        return json_of(Body::from_stream(bytes));
    }
    if does(Behaviour::HugeBody) {
        let head = text.trim_end_matches('}').to_owned() + ",\"padding\":\"";
        let pieces = stream::unfold(0, move |piece| {
            let bytes = match piece {
                0 => Bytes::from(head.clone()),
                1..=HUGE_PIECES => Bytes::from(vec![b'x'; HUGE_PIECE_BYTES]),
                HUGE_PIECES_END => Bytes::from_static(b"\"}"),
                _ => return std::future::ready(None),
            };
            std::future::ready(Some((Ok::<_, Infallible>(bytes), piece + 1)))
        });
        return json_of(Body::from_stream(pieces));
    }
    Json(value).into_response()
}

/// The piece behind the last of a huge answer.
const HUGE_PIECES_END: usize = HUGE_PIECES + 1;

fn json_of(body: Body) -> Response {
    ([("content-type", "application/json")], body).into_response()
}
