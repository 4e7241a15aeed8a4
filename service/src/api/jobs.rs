//! One job: looking at it, and calling it off.

use axum::Json;
use axum::extract::State;
use queue::Status;

use crate::error::ApiError;
use crate::guard::{Caller, OwnJob};
use crate::state::App;
use crate::view::{JobView, view_for};

/// The job as it is now, whatever became of it; a page that was closed comes back by it.
#[utoipa::path(
    get, path = "/api/jobs/{id}", params(("id" = String, Path)),
    responses((status = 200, body = JobView), (status = 404, description = "there is none, or it is somebody else's")),
)]
pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    OwnJob(job): OwnJob,
) -> Result<Json<JobView>, ApiError> {
    Ok(Json(view_for(&app, &caller, &job).await?))
}

/// Calls it off; 409 if it has ended otherwise.
#[utoipa::path(
    delete, path = "/api/jobs/{id}", params(("id" = String, Path)),
    responses((status = 200, body = JobView), (status = 404), (status = 409)),
)]
pub(crate) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    OwnJob(job): OwnJob,
) -> Result<Json<JobView>, ApiError> {
    let cancelled = app.store.cancel(&job.id, app.clock.now()).await?;
    let job = cancelled.ok_or_else(|| ApiError::not_found("there is no such job"))?;
    match job.status() {
        Status::Cancelled => Ok(Json(view_for(&app, &caller, &job).await?)),
        Status::Completed => Err(ApiError::conflict("the job has been completed already")),
        Status::Queued | Status::Processing | Status::Failed => Err(ApiError::conflict("the job has failed already")),
    }
}
