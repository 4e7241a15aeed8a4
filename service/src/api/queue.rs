//! A room's queue: what can be asked for, what waits, and submitting.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use queue::{Capability, IdempotencyKey, JobType, Present, RoomName, Source, Submission};
use serde::Serialize;
use utoipa::ToSchema;

use crate::body::Sent;
use crate::error::ApiError;
use crate::guard::Caller;
use crate::state::App;
use crate::submit::typed;
use crate::view::{JobView, ListedJob, listed, view_for};
use crate::workers::EVERY_ROOM;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What to post to a room's queue; a type and words are enough.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SubmissionBody {
    /// The job type.
    #[serde(rename = "type")]
    pub ask: String,
    /// What is to be seen.
    pub prompt: String,
    /// What is not to be seen.
    pub negative_prompt: Option<String>,
    /// Seed of the noise; drawn if there is none.
    pub seed: Option<u64>,
    /// Instead of the type's.
    pub steps: Option<u32>,
    /// Instead of the type's.
    pub guidance: Option<f32>,
    /// Instead of the type's.
    pub width: Option<u32>,
    /// Instead of the type's.
    pub height: Option<u32>,
    /// Instead of the type's; only for types with an init image.
    pub strength: Option<f32>,
    /// The path that an upload answered; only for types with an init image, and needed there.
    pub init_image: Option<String>,
    /// `auto`, `local` (never the cloud) or `cloud`.
    pub mode: Option<String>,
    /// `draft` (never overflows by itself) or `final`.
    pub quality: Option<String>,
    /// Higher goes first, -5 to 5.
    pub priority: Option<i32>,
    /// So that asking again is no second job; the header `Idempotency-Key` says the same.
    pub idempotency_key: Option<String>,
    /// How many pictures, each a job with a seed of its own.
    pub images: Option<u32>,
}

/// The jobs of a submission, one a picture.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct SubmittedJobs {
    /// The jobs.
    jobs: Vec<JobView>,
}

/// A room's queue.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct RoomQueue {
    /// Those being done, those waiting in order, then the newest that have ended.
    jobs: Vec<ListedJob>,
}

/// What can be asked for at all, and who could do it whatever the room.
#[utoipa::path(get, path = "/api/job-types", responses((status = 200, body = Vec<Object>)))]
pub(crate) async fn job_types(State(app): State<App>) -> Json<Vec<Capability>> {
    let every = RoomName::new(EVERY_ROOM).expect("a constant name is a name");
    let workers = app.workers.of(&every, app.clock.now());
    let present = |job_type: &JobType| {
        let local = workers.iter().any(|seen| seen.has(&job_type.model));
        Present { local, peer: false, cloud: is_served_by_cloud(&app, job_type) }
    };
    Json(app.catalogue.answer(present))
}

/// The same for a room: also which of its workers could.
#[utoipa::path(
    get, path = "/api/job-types/{room}", params(("room" = String, Path)),
    responses((status = 200, body = Vec<Object>)),
)]
pub(crate) async fn room_job_types(State(app): State<App>, Path(room): Path<RoomName>) -> Json<Vec<Capability>> {
    let workers = app.workers.of(&room, app.clock.now());
    let present = |job_type: &JobType| {
        let has = |source| workers.iter().any(|seen| seen.source == source && seen.has(&job_type.model));
        let cloud = is_served_by_cloud(&app, job_type);
        Present { local: has(Source::Local), peer: has(Source::Peer), cloud }
    };
    Json(app.catalogue.answer(present))
}

/// Whether an endpoint is configured for a type, and spending is not switched off.
fn is_served_by_cloud(app: &App, job_type: &JobType) -> bool {
    let serves = |endpoint: &crate::settings::EndpointSettings| {
        let has_model = endpoint.models.is_empty() || endpoint.models.contains(&job_type.model);
        endpoint.queues.contains(&job_type.queue) && has_model
    };
    !app.settings.kill_switch && app.settings.endpoints.iter().any(serves)
}

/// The room's jobs with their places and times, without what others ask for.
#[utoipa::path(
    get, path = "/api/queue/{room}", params(("room" = String, Path)),
    responses((status = 200, body = RoomQueue)),
)]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(room): Path<RoomName>,
) -> Result<Json<RoomQueue>, ApiError> {
    Ok(Json(RoomQueue { jobs: listed(&app, &caller, &room).await? }))
}

/// Queues one job a picture: 202 with their views, or 200 if the same was submitted before under the same idempotency key.
#[utoipa::path(
    post, path = "/api/queue/{room}",
    params(("room" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = SubmissionBody,
    responses((status = 202, body = SubmittedJobs), (status = 200, body = SubmittedJobs)),
)]
pub(crate) async fn submit(
    State(app): State<App>,
    caller: Caller,
    Path(room): Path<RoomName>,
    headers: HeaderMap,
    Sent(mut submission): Sent<Submission>,
) -> Result<Response, ApiError> {
    if let Some(key) = key_of(&headers)? {
        if submission.idempotency_key.as_ref().is_some_and(|own| *own != key) {
            return Err(ApiError::wrong("idempotency_key and the header Idempotency-Key differ; give one of them"));
        }
        submission.idempotency_key = Some(key);
    }
    let submitted = typed(&app, &caller, &room, submission).await?;
    let mut jobs = Vec::new();
    for one in &submitted {
        jobs.push(view_for(&app, &caller, &one.job).await?);
    }
    let is_new = submitted.iter().any(|one| one.is_new);
    let status = if is_new { StatusCode::ACCEPTED } else { StatusCode::OK };
    let location = format!("/api/jobs/{}", submitted.first().map_or("", |one| one.job.id.as_str()));
    Ok((status, [(header::LOCATION, location)], Json(SubmittedJobs { jobs })).into_response())
}

fn key_of(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = key.to_str().map_err(|_| ApiError::wrong("the header Idempotency-Key must be plain text"))?;
    let key = IdempotencyKey::new(key).map_err(|error| ApiError::wrong(format!("Idempotency-Key: {error}")))?;
    Ok(Some(key))
}
