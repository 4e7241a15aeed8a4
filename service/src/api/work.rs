//! Helpers of a room: asking for work, saying that one is still at it, and delivering.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE32_NOPAD;
use queue::limits::{HEARTBEAT_EVERY, LEASE_TIME};
use queue::{
    Ask, BucketName, Job, JobId, LeaseError, MicroUsd, Model, Outcome, Overdue, Owner, Progress, RoomName, Source,
    Status,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::{Beat, Offer, Taken};
use tokio::sync::oneshot;
use tracing::debug;
use utoipa::ToSchema;

use crate::access::Right;
use crate::body::Sent;
use crate::delivery;
use crate::error::ApiError;
use crate::guard::{Caller, OwnJob};
use crate::limits::{
    FILE_SIGNATURE_TIME, MODELS_MAX, TAKE_PAUSE, TAKE_TIME_MAX, WORKER_NAME_BYTES_MAX, WORKER_REASON_BYTES_MAX,
};
use crate::results::FileKind;
use crate::state::App;
use crate::waiting::Waiter;
use crate::workers::EVERY_ROOM;

/// Who asks for work.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct JoinBody {
    /// What the worker calls itself, to be told from others of the same user; 32 bytes at most.
    worker: String,
    /// Models it has; whatever the room asks for if it names none.
    #[schema(value_type = Option<Vec<String>>)]
    models: Option<Vec<Model>>,
    /// How long it waits for work, in seconds; 25 at most.
    wait_s: Option<u64>,
}

/// A job to be done, and the lease it is to be done under.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Work {
    /// The job.
    #[schema(value_type = String)]
    id: JobId,
    /// Its type; none of a foreign client's own input.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    ask: Option<Ask>,
    /// What is to be done.
    input: Value,
    /// Where the first picture can be read, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    init_image_url: Option<String>,
    /// The lease.
    lease: WorkLease,
    /// Where to answer.
    urls: WorkUrls,
}

/// The right to deliver, while it is renewed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct WorkLease {
    /// To be given with every beat and delivery.
    fence: u64,
    /// It ends so long after the last beat.
    seconds: u64,
    /// Beats should come so often.
    beat_every_s: u64,
}

/// Where a worker answers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct WorkUrls {
    /// POST: still at it.
    beat: String,
    /// POST: done, failed or handed back.
    deliver: String,
    /// PUT: one large result, to be delivered as `{"type":"stored","data":PATH}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    upload: Option<WorkUpload>,
}

/// Where a result may be put beside the delivery.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct WorkUpload {
    /// The address.
    url: String,
    /// Its name in the result store.
    path: String,
    /// What it must be.
    mime: &'static str,
}

/// Still at it.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BeatBody {
    /// The lease's.
    fence: u64,
    /// How much is done, 0 to 1.
    progress: Option<f64>,
}

/// What became of a job: exactly one of output, error and handed_back.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeliveryBody {
    /// The lease's.
    fence: u64,
    /// `{"images":[{"filename","type":"base64"|"stored","data"}],"seed","seconds"}`.
    output: Option<Value>,
    /// Why there is none.
    error: Option<String>,
    /// Whether another try would fail as well.
    #[serde(default)]
    is_final: bool,
    /// The worker stops; another one is to do it.
    #[serde(default)]
    handed_back: bool,
}

/// What a delivery says.
enum Said {
    Output(Value),
    Other(Outcome),
}

impl DeliveryBody {
    fn said(self) -> Result<Said, ApiError> {
        match (self.output, self.error, self.handed_back) {
            (Some(output), None, false) => Ok(Said::Output(output)),
            (None, Some(reason), false) if reason.len() <= WORKER_REASON_BYTES_MAX => {
                Ok(Said::Other(Outcome::Failed { reason, is_final: self.is_final, cost: MicroUsd::default() }))
            }
            (None, None, true) => Ok(Said::Other(Outcome::HandedBack)),
            _ => Err(ApiError::wrong("give one of output, error (4 KiB at most) and handed_back")),
        }
    }
}

/// The answer to a beat or delivery under a lease that is alive.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Answered {
    /// `processing` after a beat; what the job is after a delivery.
    #[schema(value_type = String)]
    status: Status,
}

/// Asks for work, and waits for it: 200 with a job under a lease, or 204 if there was none so long. An operator's worker serves
/// every room by the name `_`.
#[utoipa::path(
    post, path = "/api/join/{room}", params(("room" = String, Path)), request_body = JoinBody,
    responses((status = 200, body = Work), (status = 204, description = "there is nothing to do; ask again")),
)]
pub(crate) async fn join(
    State(app): State<App>,
    caller: Caller,
    Path(room): Path<RoomName>,
    Sent(body): Sent<JoinBody>,
) -> Result<Response, ApiError> {
    if body.models.as_ref().is_some_and(|models| models.len() > MODELS_MAX) {
        return Err(ApiError::wrong(format!("at most {MODELS_MAX} models are read")));
    }
    let is_every = room.as_str() == EVERY_ROOM;
    let is_operators = caller.may(Right::Operate);
    if is_every && !is_operators {
        return Err(ApiError::forbidden("only a worker of the relay's operator serves every room"));
    }
    let owner = owner_of(&caller, &body.worker)?;
    let source = if is_operators { Source::Local } else { Source::Peer };
    let offer = Offer { room: (!is_every).then(|| room.clone()), owner, source, models: body.models };
    let wait = body.wait_s.map_or(TAKE_TIME_MAX, Duration::from_secs).min(TAKE_TIME_MAX);
    app.workers.seen(&room, &offer.owner, source, offer.models.as_deref(), app.clock.now());
    let taken = take(&app, &offer, wait).await?;
    app.workers.seen(&room, &offer.owner, source, None, app.clock.now());
    if let Some(taken) = &taken {
        app.workers.busy(&room, &offer.owner, &taken.job.id);
    }
    match taken {
        Some(taken) => Ok(Json(work(&app, taken).await?).into_response()),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// Says that the worker is still at it: 409 if the lease has ended, 410 if the job was cancelled; then it stops.
#[utoipa::path(
    post, path = "/api/jobs/{id}/beat", params(("id" = String, Path)), request_body = BeatBody,
    responses((status = 200, body = Answered), (status = 409), (status = 410)),
)]
pub(crate) async fn beat(
    State(app): State<App>,
    caller: Caller,
    OwnJob(job): OwnJob,
    Sent(body): Sent<BeatBody>,
) -> Result<Json<Answered>, ApiError> {
    check_holder(&caller, &job, body.fence)?;
    if let Some(lease) = job.present_lease().filter(|lease| lease.fence == body.fence) {
        app.workers.seen(&place_of(&app, &job, &lease.owner), &lease.owner, lease.source, None, app.clock.now());
    }
    let permille = body.progress.filter(|done| done.is_finite()).map(|done| (done.clamp(0.0, 1.0) * 1000.0) as u16);
    let progress = permille.map(|permille| Progress { permille, note: None });
    match app.store.beat(&job.id, body.fence, progress, app.clock.now()).await? {
        Beat::Renewed => Ok(Json(Answered { status: Status::Processing })),
        Beat::Over(over) => Err(ended(over)),
        Beat::Unknown => Err(ApiError::not_found("there is no such job")),
    }
}

/// Ends the lease: with a result, without one, or handing it back. What comes under a lease that has ended changes nothing.
#[utoipa::path(
    post, path = "/api/jobs/{id}/deliver", params(("id" = String, Path)), request_body = DeliveryBody,
    responses((status = 200, body = Answered), (status = 409), (status = 410)),
)]
pub(crate) async fn deliver(
    State(app): State<App>,
    caller: Caller,
    OwnJob(job): OwnJob,
    Sent(body): Sent<DeliveryBody>,
) -> Result<Json<Answered>, ApiError> {
    let fence = body.fence;
    let said = body.said()?;
    // Before anything is kept: what comes under a lease that has ended may be the delivery that ended it, said twice.
    check_holder(&caller, &job, fence)?;
    let finished = match said {
        Said::Output(output) => delivery::accept(&app, &job, fence, output, MicroUsd::default()).await?,
        Said::Other(outcome) => delivery::finish(&app, &job, fence, outcome).await?,
    };
    if let Some(lease) = job.present_lease() {
        app.workers.free(&place_of(&app, &job, &lease.owner), &lease.owner, &job.id);
    }
    Ok(Json(Answered { status: finished.status() }))
}

/// The room under which a worker is known that holds a job: the job's, or every one.
fn place_of(app: &App, job: &Job, owner: &Owner) -> RoomName {
    let every = RoomName::new(EVERY_ROOM).expect("a constant name is a name");
    if app.workers.jobs(&every, owner).contains(&job.id) { every } else { job.order.room.clone() }
}

/// Takes a job as soon as there is one, within `wait`. One that is taken while its worker hangs up is handed back.
async fn take(app: &App, offer: &Offer, wait: Duration) -> Result<Option<Taken>, ApiError> {
    // Listens before the first look, so that nothing falls between.
    let mut waiter = Waiter::new(app, wait);
    loop {
        let (give, got) = oneshot::channel();
        let (looking, offer) = (app.clone(), offer.clone());
        tokio::spawn(async move {
            let taken = looking.store.take(&offer, looking.clock.now()).await;
            if let Err(Ok(Some(Taken { job, lease }))) = give.send(taken)
                && let Err(error) = delivery::finish(&looking, &job, lease.fence, Outcome::HandedBack).await
            {
                debug!(job = %job.id, error = error.code, "a worker hung up, and its job could not be handed back");
            }
        });
        let taken = got.await.map_err(|_| ApiError::ours("the queue did not answer"))??;
        if let Some(Taken { job, .. }) = &taken
            && job.overdue(app.clock.now()) == Some(Overdue::Gone)
        {
            // Nobody would see its result; the next one may be wanted.
            app.store.cancel(&job.id, app.clock.now()).await?;
            continue;
        }
        if taken.is_some() || !waiter.wait(None).await {
            return Ok(taken);
        }
        waiter.rest(TAKE_PAUSE).await;
    }
}

/// What a worker is told of a job.
async fn work(app: &App, taken: Taken) -> Result<Work, ApiError> {
    let Taken { job, lease } = taken;
    let now = app.clock.now();
    let input: Value = serde_json::from_str(&job.order.input)
        .map_err(|_| ApiError::ours("the job's input cannot be read; tell the relay's operator"))?;
    let init_image_url = match input.get("init_image").and_then(Value::as_str).filter(|_| job.order.ask.is_some()) {
        Some(path) => Some(app.results.sign_get(path, FILE_SIGNATURE_TIME, now).await?),
        None => None,
    };
    let upload = match upload_kind(app, &job) {
        Some((bucket, kind)) => {
            let (url, path) = app.results.sign_put(&bucket, &job.order.user, kind.mime(), now).await?;
            Some(WorkUpload { url, path, mime: kind.mime() })
        }
        None => None,
    };
    let url = |end: &str| format!("{}/api/jobs/{}/{end}", app.base, job.id);
    Ok(Work {
        urls: WorkUrls { beat: url("beat"), deliver: url("deliver"), upload },
        lease: WorkLease { fence: lease.fence, seconds: LEASE_TIME.as_secs(), beat_every_s: HEARTBEAT_EVERY.as_secs() },
        id: job.id,
        ask: job.order.ask,
        input,
        init_image_url,
    })
}

/// Where a typed job's result goes, and what it is.
fn upload_kind(app: &App, job: &Job) -> Option<(BucketName, FileKind)> {
    let job_type = app.catalogue.find(job.order.ask.as_ref()?)?;
    let kind = match job_type.task {
        queue::Task::Txt2img | queue::Task::Img2img | queue::Task::Upscale => FileKind::Png,
        queue::Task::Video => FileKind::Mp4,
    };
    Some((job_type.bucket.clone(), kind))
}

/// A worker's id: whose it is, in a form that tells nobody, and what it calls itself.
fn owner_of(caller: &Caller, worker: &str) -> Result<Owner, ApiError> {
    let wrong =
        || ApiError::wrong(format!("worker is {WORKER_NAME_BYTES_MAX} letters, digits, '-', '_' and '.' at most"));
    if worker.len() > WORKER_NAME_BYTES_MAX {
        return Err(wrong());
    }
    Owner::new(format!("{}{worker}", owners_of(caller))).map_err(|_| wrong())
}

/// What the ids of a caller's workers begin with; of fixed length, so that no user's are another's.
fn owners_of(caller: &Caller) -> String {
    let hash = Sha256::digest(caller.user().as_str());
    format!("w-{}-", BASE32_NOPAD.encode(&hash[..10]).to_lowercase())
}

/// Whether the job is under this lease, and that is the caller's: one of somebody else has ended, as far as they are concerned,
/// for a fence alone proves nothing.
fn check_holder(caller: &Caller, job: &Job, fence: u64) -> Result<(), ApiError> {
    if job.status() == Status::Cancelled {
        return Err(ended(LeaseError::Cancelled));
    }
    let lease = job.present_lease().filter(|lease| lease.fence == fence);
    let is_own = lease.is_some_and(|lease| lease.owner.as_str().starts_with(&owners_of(caller)));
    if is_own { Ok(()) } else { Err(ended(LeaseError::Stale)) }
}

fn ended(over: LeaseError) -> ApiError {
    match over {
        LeaseError::Stale => ApiError::new(StatusCode::CONFLICT, "stale", over.to_string()),
        LeaseError::Cancelled => ApiError::new(StatusCode::GONE, "cancelled", over.to_string()),
    }
}
