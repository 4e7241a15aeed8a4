//! Request bodies: bounded in bytes and time, and read as JSON with errors that say what is wrong.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use futures::StreamExt;
use futures::stream::unfold;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use crate::error::ApiError;
use crate::limits::BODY_TIME_MAX;

/// A body that was read as JSON, whatever type its header says: RunPod's workers call theirs a form.
#[derive(Clone, Debug)]
pub struct Sent<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = read(request, state).await?;
        let read = serde_json::from_slice(&bytes);
        read.map(Self).map_err(|error| ApiError::wrong(format!("the body is not what is read here: {error}")))
    }
}

/// The whole body, within the route's limits.
pub(crate) async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => ApiError::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not come, or took too long"),
    })
}

/// What is answered to a body that is larger than its route allows.
pub(crate) fn too_large() -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is larger than is read here")
}

/// The same body, which fails when it takes longer than [`BODY_TIME_MAX`].
pub(crate) fn in_time(body: Body) -> Body {
    if body.is_end_stream() { body } else { within(body, BODY_TIME_MAX) }
}

fn within(body: Body, time: Duration) -> Body {
    let end = Instant::now() + time;
    Body::from_stream(unfold(Some(body.into_data_stream()), move |stream| async move {
        let mut stream = stream?;
        match timeout_at(end, stream.next()).await {
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(stream))),
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(None) => None,
            Err(late) => Some((Err(axum::Error::new(late)), None)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::to_bytes;
    use futures::stream::{iter, pending};

    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_end_is_given_up() {
        let begun = iter([Ok::<_, Infallible>(Bytes::from_static(b"{"))]);
        let endless = Body::from_stream(begun.chain(pending()));
        assert!(to_bytes(within(endless, Duration::from_millis(5)), 100).await.is_err());
        let whole = to_bytes(within(Body::from("{}"), Duration::from_secs(60)), 100).await.unwrap();
        assert_eq!(whole, "{}");
    }

    #[tokio::test]
    async fn json_is_read_whatever_its_header_says_and_errors_say_what_is_wrong() {
        let request = |body: &'static str| {
            let form = "application/x-www-form-urlencoded";
            Request::builder().header("content-type", form).body(Body::from(body)).unwrap()
        };
        let Sent(list) = Sent::<Vec<u32>>::from_request(request("[1,2]"), &()).await.unwrap();
        assert_eq!(list, [1, 2]);
        let error = Sent::<Vec<u32>>::from_request(request("[1,"), &()).await.unwrap_err();
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        assert!(error.message.contains("line 1"), "{}", error.message);
    }
}
