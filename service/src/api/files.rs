//! Pictures and clips: an address to upload to, and reading and writing at addresses that this relay has signed.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use queue::{BucketName, RoomName, StoredFile, UnixMs};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::{Sent, read as read_body};
use crate::error::ApiError;
use crate::guard::Caller;
use crate::limits::UPLOAD_SIGNATURE_TIME;
use crate::results::{FileKind, ResultsError};
use crate::state::App;

/// Where first pictures are kept.
const UPLOADS: &str = "uploads";

/// What is to be uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UploadBody {
    /// Its MIME type: `image/png`, `image/jpeg` or `image/webp`.
    mime: String,
}

/// Where to put it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct UploadAddress {
    /// `PUT`.
    method: &'static str,
    /// The address; whoever has it can upload one file to it.
    url: String,
    /// Headers that must be sent with it.
    headers: UploadHeaders,
    /// What to give as `init_image` then.
    path: String,
    /// Until when, in milliseconds since 1970.
    until_ms: u64,
    /// The most bytes that are kept.
    bytes_max: u64,
}

/// Headers of an upload: a bucket's server has them signed, the relay does not need them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct UploadHeaders {
    /// As asked for.
    #[serde(rename = "Content-Type")]
    content_type: &'static str,
    /// `*`: a file is never replaced.
    #[serde(rename = "If-None-Match")]
    if_none_match: &'static str,
}

/// What stands behind a signed address.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Signed {
    until: u64,
    signature: String,
}

/// Gives an address to upload a first picture to.
#[utoipa::path(
    post, path = "/api/uploads/{room}", params(("room" = String, Path)), request_body = UploadBody,
    responses((status = 200, body = UploadAddress), (status = 415, description = "no picture is of this type")),
)]
pub(crate) async fn upload(
    State(app): State<App>,
    caller: Caller,
    Path(_room): Path<RoomName>,
    Sent(UploadBody { mime }): Sent<UploadBody>,
) -> Result<Json<UploadAddress>, ApiError> {
    let now = app.clock.now();
    let kind = FileKind::of_mime(&mime).filter(|kind| !kind.is_clip()).ok_or(ResultsError::WrongKind)?;
    let bucket = BucketName::new(UPLOADS).expect("a constant name is a name");
    let (url, path) = app.results.sign_put(&bucket, caller.user(), kind.mime(), now).await?;
    Ok(Json(UploadAddress {
        method: "PUT",
        url,
        headers: UploadHeaders { content_type: kind.mime(), if_none_match: "*" },
        path,
        until_ms: now.after(UPLOAD_SIGNATURE_TIME).0,
        bytes_max: kind.bytes_max() as u64,
    }))
}

/// A file, at an address that this relay has signed for reading.
#[utoipa::path(
    get, path = "/api/files/{bucket}/{user}/{file}",
    params(
        ("bucket" = String, Path), ("user" = String, Path), ("file" = String, Path),
        ("until" = u64, Query), ("signature" = String, Query),
    ),
    responses((status = 200, body = Vec<u8>, content_type = "image/png"), (status = 403), (status = 404)),
)]
pub(crate) async fn read(
    State(app): State<App>,
    Path(parts): Path<(String, String, String)>,
    signed: Result<Query<Signed>, QueryRejection>,
) -> Result<Response, ApiError> {
    let file = verified(&app, "GET", parts, signed)?;
    let kept = app.results.get(&file.to_string()).await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kept.kind.mime())),
        // What was uploaded is never run, whatever it holds.
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("inline")),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600, immutable")),
        // Pages on other servers show it; the address is the secret.
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("cross-origin")),
    ];
    Ok((headers, kept.bytes).into_response())
}

/// Keeps a file, once, at an address that this relay has signed for writing.
#[utoipa::path(
    put, path = "/api/files/{bucket}/{user}/{file}",
    params(
        ("bucket" = String, Path), ("user" = String, Path), ("file" = String, Path),
        ("until" = u64, Query), ("signature" = String, Query),
    ),
    request_body(content = Vec<u8>, content_type = "image/png"),
    responses((status = 201), (status = 403), (status = 409), (status = 413), (status = 415)),
)]
pub(crate) async fn write(
    State(app): State<App>,
    Path(parts): Path<(String, String, String)>,
    signed: Result<Query<Signed>, QueryRejection>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    // Before a byte of the body is read.
    let file = verified(&app, "PUT", parts, signed)?;
    let bytes = read_body(request, &()).await?;
    app.results.put_at(&file, bytes).await?;
    Ok(StatusCode::CREATED)
}

fn verified(
    app: &App,
    method: &str,
    (bucket, user, file): (String, String, String),
    signed: Result<Query<Signed>, QueryRejection>,
) -> Result<StoredFile, ApiError> {
    let Query(Signed { until, signature }) = signed.map_err(|_| ResultsError::Forged)?;
    let file = StoredFile::parse(&format!("{bucket}/{user}/{file}")).ok_or(ResultsError::Forged)?;
    app.results.verify(method, &file.to_string(), UnixMs(until), &signature, app.clock.now())?;
    Ok(file)
}
