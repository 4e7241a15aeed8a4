//! Has pictures made while a client waits: chooses a type, submits, waits, and calls off what nobody waits for any more.

use std::time::Duration;

use axum::body::Bytes;
use queue::{Ask, Deadlines, Engine, Job, JobId, JobState, JobType, Mode, Quality, RoomName, Submission, Task, Tier};
use tracing::debug;

use crate::delivery;
use crate::error::ApiError;
use crate::guard::Caller;
use crate::state::App;
use crate::submit;
use crate::waiting::until;

/// Why there are no pictures.
#[derive(Debug)]
pub(crate) enum NoPictures {
    /// The request cannot be done as it is.
    Refused(ApiError),
    /// A job failed, and why.
    Failed(String),
    /// A job was called off.
    Cancelled,
    /// They are not done yet; the jobs go on.
    Late(Vec<JobId>),
}

impl<E: Into<ApiError>> From<E> for NoPictures {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// A finished picture.
pub(crate) struct Made {
    /// Where it is kept.
    pub path: String,
    /// Itself.
    pub bytes: Bytes,
    /// The seed it was made from.
    pub seed: Option<u64>,
}

/// The types that make a picture from words, in the catalogue's order.
pub(crate) fn types(app: &App) -> impl Iterator<Item = &JobType> {
    app.catalogue.types().filter(|job_type| job_type.task == Task::Txt2img)
}

/// The type for whoever names none: of this tier if one is asked for, and one that somebody in the room could do now, if there
/// is one.
pub(crate) fn usual_type<'a>(app: &'a App, room: &RoomName, tier: Option<Tier>) -> Option<&'a JobType> {
    let workers = app.workers.of(room, app.clock.now());
    let is_ready = |job_type: &&JobType| {
        job_type.engine == Engine::Native && workers.iter().any(|worker| worker.has(&job_type.model))
    };
    let of_tier = |job_type: &&JobType| tier.is_none_or(|tier| job_type.tier == tier);
    types(app)
        .filter(of_tier)
        .find(is_ready)
        .or_else(|| types(app).find(is_ready))
        .or_else(|| types(app).find(of_tier))
        .or_else(|| types(app).next())
}

/// A submission that asks for nothing but words.
pub(crate) fn plain(ask: Ask, prompt: String) -> Submission {
    Submission {
        ask,
        prompt,
        negative_prompt: String::new(),
        seed: None,
        steps: None,
        guidance: None,
        width: None,
        height: None,
        strength: None,
        init_image: None,
        mode: Mode::Auto,
        quality: Quality::Final,
        priority: 0,
        idempotency_key: None,
        images: 1,
        deadlines: Deadlines::default(),
    }
}

/// Submits, and waits for so long at most. A client that hangs up has its jobs called off.
pub(crate) async fn make(
    app: &App,
    caller: &Caller,
    room: &RoomName,
    submission: Submission,
    time: Duration,
) -> Result<Vec<Made>, NoPictures> {
    let end = tokio::time::Instant::now() + time;
    let submitted = submit::typed(app, caller, room, submission).await?;
    let ids: Vec<JobId> = submitted.into_iter().map(|one| one.job.id).collect();
    let mut abandoned = Abandoned { app, ids: ids.clone() };
    let mut made = Vec::new();
    for id in &ids {
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        let job = until(app, id, left, |job| job.status().is_final()).await?;
        let job = job.ok_or_else(|| ApiError::not_found("a job of this request was removed"))?;
        match &job.state {
            JobState::Completed(_) => made.extend(read(app, &job).await?),
            // What is left of a request that failed is of no use to anybody.
            JobState::Failed(reason) => return Err(NoPictures::Failed(reason.clone())),
            JobState::Cancelled => return Err(NoPictures::Cancelled),
            JobState::Queued | JobState::Leased(_) => {
                abandoned.ids.clear();
                return Err(NoPictures::Late(ids));
            }
        }
    }
    abandoned.ids.clear();
    Ok(made)
}

/// How long `?wait=ms` says, up to `most`.
pub(crate) fn wait_of(query: &[(String, String)], most: Duration) -> Duration {
    let told = query.iter().rev().find(|(name, _)| name == "wait").and_then(|(_, value)| value.parse().ok());
    told.map_or(most, Duration::from_millis).min(most)
}

async fn read(app: &App, job: &Job) -> Result<Vec<Made>, ApiError> {
    let Some(output) = delivery::output_of(job) else { return Ok(Vec::new()) };
    let seed = serde_json::from_str::<queue::Order>(&job.order.input).ok().map(|order| order.seed);
    let mut made = Vec::new();
    for path in &output.files {
        let kept = app.results.get(path).await?;
        made.push(Made { path: path.clone(), bytes: kept.bytes, seed });
    }
    Ok(made)
}

/// Calls jobs off when it is dropped: their client has hung up, or one of them failed.
struct Abandoned<'a> {
    app: &'a App,
    ids: Vec<JobId>,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        let ids = std::mem::take(&mut self.ids);
        if ids.is_empty() {
            return;
        }
        let app = self.app.clone();
        tokio::spawn(async move {
            for id in ids {
                if let Err(error) = app.store.cancel(&id, app.clock.now()).await {
                    debug!(job = %id, %error, "a job that nobody waits for could not be called off");
                }
            }
        });
    }
}
