//! What a request is answered with when it cannot be done: a status, a word for programs, a sentence for people.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use store::StoreError;
use tracing::error;

use crate::access::TokenError;

/// An error of the API. As JSON: `{"error":{"code":"not_found","message":"there is no such job"}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// One of a few words, for programs.
    pub code: &'static str,
    /// What is wrong and what to do, for people. Never holds a prompt, a key or a token.
    pub message: String,
    /// When asking again makes sense, in seconds.
    pub retry_after_s: Option<u64>,
}

impl ApiError {
    /// The request is wrong: it says how.
    pub fn wrong(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "wrong_request", message)
    }

    /// A token is missing or not valid.
    pub fn unauthorised(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorised", message)
    }

    /// The token does not allow this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// There is no such thing, or it is somebody else's.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// It is not possible as things stand.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// Too much at once.
    pub fn throttled(message: impl Into<String>, retry_after_s: u64) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "throttled", message);
        Self { retry_after_s: Some(retry_after_s), ..error }
    }

    /// Something of ours failed; the log has the reason.
    pub fn ours(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// Any other.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after_s: None }
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Forged | TokenError::Expired => Self::unauthorised(error.to_string()),
            TokenError::NotAllowed => Self::forbidden(error.to_string()),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(failure: StoreError) -> Self {
        match &failure {
            StoreError::Database(_) | StoreError::Unreadable(_) => {
                error!(%failure, "the queue's database failed");
                Self::ours("the queue's database failed; try again later")
            }
            StoreError::Busy => Self::throttled(failure.to_string(), 1),
            StoreError::Full(_) => Self::throttled(failure.to_string(), 30),
            StoreError::Unfetched(_) => Self::throttled(failure.to_string(), 5),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": { "code": self.code, "message": self.message } }));
        let mut response = (self.status, body).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
