//! What the API tells of a job.

use std::time::Duration;

use queue::{Ask, Job, JobId, JobState, RoomName, Source, Status, UnixMs};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::guard::Caller;
use crate::limits::{FILE_SIGNATURE_TIME, LISTED_MAX};
use crate::results::FileKind;
use crate::state::App;
use crate::workers::Seen;

/// A job, as `GET /api/jobs/{id}` answers it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct JobView {
    /// Its id.
    #[schema(value_type = String)]
    pub id: JobId,
    /// Its type; none of a foreign client's own input.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ask: Option<Ask>,
    /// `queued`, `processing`, `completed`, `failed` or `cancelled`.
    #[schema(value_type = String)]
    pub status: Status,
    /// Rises with every change.
    pub version: u64,
    /// How many waiting jobs of the room stand before it; only while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// When it will be done, in seconds from now, by measured rates; only until it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_s: Option<f64>,
    /// What does it: `worker` (of the room or the relay's machine) or `runpod`; only since somebody does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_type: Option<&'static str>,
    /// Who does it: `local`, `peer` or `cloud`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub source: Option<Source>,
    /// How much is done, 0 to 1.
    pub progress: f64,
    /// What the cloud has charged for it, in US dollars.
    pub cost_usd: f64,
    /// Why it goes where it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Its pictures and clips; told to whoever asked for it and nobody else, like the following two.
    pub files: Vec<FileView>,
    /// What else the worker gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it was submitted, in milliseconds since 1970.
    pub created_ms: u64,
    /// When its newest lease began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_ms: Option<u64>,
    /// The type that it had before it fell back.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub fallback_of: Option<Ask>,
    /// What was asked, with its words and seed: told to whoever asked it and nobody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Value>,
}

/// A file of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FileView {
    /// Its name in the result store.
    pub path: String,
    /// Where it can be read for an hour.
    pub url: String,
    /// What it is.
    pub mime: &'static str,
}

/// A job, as the list of its room shows it to everybody there: nothing of what it asks for.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ListedJob {
    /// Its id, if it is the caller's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub id: Option<JobId>,
    /// Its type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ask: Option<Ask>,
    /// `queued`, `processing`, `completed`, `failed` or `cancelled`.
    #[schema(value_type = String)]
    pub status: Status,
    /// How many waiting jobs stand before it; only while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// When it will be done, in seconds from now; only until it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_s: Option<f64>,
    /// Who does it: `local`, `peer` or `cloud`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub source: Option<Source>,
    /// How much is done, 0 to 1.
    pub progress: f64,
    /// When it was submitted, in milliseconds since 1970.
    pub created_ms: u64,
}

/// A job without what it asks for. Its output, files and error may tell it nevertheless: see [`view_for`].
pub async fn view(app: &App, job: &Job) -> Result<JobView, ApiError> {
    let now = app.clock.now();
    let position = if job.status() == Status::Queued { app.store.position(&job.id).await? } else { None };
    let usual = usual_time(app, job).await?;
    let workers = able(&app.workers.of(&job.order.room, now), job);
    let ahead = usual.saturating_mul(u32::try_from(position.unwrap_or(0)).unwrap_or(u32::MAX));
    let (output, files, error) = match &job.state {
        JobState::Completed(output) => (output.json.as_deref(), output.files.as_slice(), None),
        JobState::Failed(reason) => (None, &[][..], Some(reason.clone())),
        JobState::Queued | JobState::Leased(_) | JobState::Cancelled => (None, &[][..], None),
    };
    let mut shown = Vec::new();
    for path in files {
        let mime = FileKind::of_name(path).map_or("application/octet-stream", FileKind::mime);
        let url = app.results.sign_get(path, FILE_SIGNATURE_TIME, now).await?;
        shown.push(FileView { path: path.clone(), url, mime });
    }
    Ok(JobView {
        id: job.id.clone(),
        ask: job.order.ask.clone(),
        status: job.status(),
        version: job.version,
        position,
        eta_s: eta(job, usual, ahead / workers, now),
        worker_type: job.source.map(worker_type),
        source: job.source,
        progress: progress(job),
        cost_usd: job.cost.usd(),
        route: job.route.clone(),
        files: shown,
        output: output.and_then(|json| serde_json::from_str(json).ok()),
        error,
        created_ms: job.created.0,
        started_ms: job.started.map(|at| at.0),
        finished_ms: job.finished.map(|at| at.0),
        fallback_of: job.fallback_of.clone(),
        order: None,
    })
}

/// A job as this caller may see it: what was asked, and everything that may say it again, is its owner's alone.
pub async fn view_for(app: &App, caller: &Caller, job: &Job) -> Result<JobView, ApiError> {
    let view = view(app, job).await?;
    if *caller.user() != job.order.user {
        return Ok(JobView { files: Vec::new(), output: None, error: None, ..view });
    }
    Ok(JobView { order: serde_json::from_str(&job.order.input).ok(), ..view })
}

/// The jobs of a room as everybody there may see them, the caller's own with their ids.
pub async fn listed(app: &App, caller: &Caller, room: &RoomName) -> Result<Vec<ListedJob>, ApiError> {
    let now = app.clock.now();
    let jobs = app.store.list(Some(room), LISTED_MAX).await?;
    let workers = app.workers.of(room, now);
    let mut usual_times = Vec::new();
    let (mut before, mut ahead) = (0, Duration::ZERO);
    let mut listed = Vec::new();
    for job in &jobs {
        let key = (job.order.ask.clone(), job.source);
        let known = usual_times.iter().find(|(known, _)| *known == key).map(|(_, time)| *time);
        let usual = match known {
            Some(time) => time,
            None => usual_time(app, job).await?,
        };
        if known.is_none() && job.order.ask.is_some() {
            usual_times.push((key, usual));
        }
        let is_queued = job.status() == Status::Queued;
        listed.push(ListedJob {
            id: (job.order.user == *caller.user()).then(|| job.id.clone()),
            ask: job.order.ask.clone(),
            status: job.status(),
            position: is_queued.then_some(before),
            eta_s: eta(job, usual, ahead / able(&workers, job), now),
            source: job.source,
            progress: progress(job),
            created_ms: job.created.0,
        });
        if is_queued {
            before += 1;
            ahead += usual;
        }
    }
    Ok(listed)
}

/// How long a job like this takes whoever does it or will: as measured, else as its type says.
async fn usual_time(app: &App, job: &Job) -> Result<Duration, ApiError> {
    let Some(ask) = job.order.ask.as_ref().filter(|_| !job.status().is_final()) else {
        return Ok(job.order.expected);
    };
    let sources = match job.source {
        Some(source) => vec![source],
        None => vec![Source::Peer, Source::Local, Source::Cloud],
    };
    for source in sources {
        if let Some(measured) = app.store.measured(ask, source).await? {
            return Ok(measured);
        }
    }
    Ok(job.order.expected)
}

/// How many of a room's workers can do a job, at least one: somebody will come.
fn able(workers: &[Seen], job: &Job) -> u32 {
    let can = |seen: &&Seen| job.order.model.as_ref().is_none_or(|model| seen.has(model));
    u32::try_from(workers.iter().filter(can).count()).unwrap_or(u32::MAX).max(1)
}

/// When a job will be done: what is before it and its own time, or what its progress leaves of that.
fn eta(job: &Job, usual: Duration, ahead: Duration, now: UnixMs) -> Option<f64> {
    let left = match (job.status(), job.started) {
        (Status::Queued, _) => ahead + usual,
        (Status::Processing, Some(started)) => {
            let elapsed = now.since(started);
            match job.progress.permille {
                // The first steps tell little: the machine may have been loading its model.
                0..100 => usual.saturating_sub(elapsed),
                permille => elapsed.mul_f64(f64::from(1000 - permille.min(1000)) / f64::from(permille)),
            }
        }
        (Status::Processing, None) => usual,
        (Status::Completed | Status::Failed | Status::Cancelled, _) => return None,
    };
    Some((left.as_secs_f64() * 10.0).round() / 10.0)
}

fn progress(job: &Job) -> f64 {
    f64::from(job.progress.permille.min(1000)) / 1000.0
}

fn worker_type(source: Source) -> &'static str {
    match source {
        Source::Local | Source::Peer => "worker",
        Source::Cloud => "runpod",
    }
}
