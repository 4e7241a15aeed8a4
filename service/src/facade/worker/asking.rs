//! A worker that asks: what it is given, which jobs are its own, and how it keeps them.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use queue::{Job, JobId, MicroUsd, Model, Outcome, Overdue, Owner, Progress, RoomName, Source};
use runpod::Dialect;
use serde_json::{Value, json};
use store::{Beat, Offer, Taken};
use tokio::sync::oneshot;
use tracing::debug;

use super::accepted;
use crate::access::Right;
use crate::delivery;
use crate::error::ApiError;
use crate::facade::limits::{LOOK_PAUSE, NOTE_BYTES_MAX};
use crate::facade::request::{Pairs, text};
use crate::facade::{deadline, dialect};
use crate::guard::Caller;
use crate::state::App;
use crate::waiting::Waiter;
use crate::workers::{EVERY_ROOM, owner};

/// Who asks.
pub(super) struct Worker<'a> {
    pub app: &'a App,
    /// The room of its path, which may stand for every room.
    pub room: RoomName,
    pub owner: Owner,
    source: Source,
    models: Option<Vec<Model>>,
    dialect: Option<Dialect>,
}

impl<'a> Worker<'a> {
    pub fn read(app: &'a App, caller: &Caller, room: RoomName, name: &str, query: &Pairs) -> Result<Self, ApiError> {
        let is_operators = caller.may(Right::Operate);
        if room.as_str() == EVERY_ROOM && !is_operators {
            return Err(ApiError::forbidden("only a worker of the relay's operator serves every room"));
        }
        let model = |name: &str| Model::new(name).map_err(|error| ApiError::wrong(format!("models: {error}")));
        let models = text(query, "models").filter(|names| !names.is_empty());
        let worker = Self {
            app,
            room,
            owner: owner(name, caller.user()).map_err(|error| ApiError::wrong(error.to_string()))?,
            source: if is_operators { Source::Local } else { Source::Peer },
            models: models.map(|names| names.split(',').map(model).collect()).transpose()?,
            dialect: text(query, "dialect").map(dialect::named).transpose()?,
        };
        worker.seen();
        Ok(worker)
    }

    pub fn seen(&self) {
        let now = self.app.clock.now();
        self.app.workers.seen(&self.room, &self.owner, self.source, self.models.as_deref(), now);
    }

    /// A job for it, as soon as there is one.
    pub async fn wait_for_job(&self, time: Duration) -> Result<Option<Value>, ApiError> {
        let mut waiter = Waiter::new(self.app, time);
        loop {
            if let Some(job) = self.look_for_job().await? {
                return Ok(Some(job));
            }
            waiter.rest(LOOK_PAUSE).await;
            if !waiter.wait(None).await {
                return Ok(None);
            }
            self.seen();
        }
    }

    /// A job for it, if there is one now.
    pub async fn look_for_job(&self) -> Result<Option<Value>, ApiError> {
        while let Some(Taken { job, lease }) = self.take().await? {
            if job.overdue(self.app.clock.now()) == Some(Overdue::Gone) {
                deadline::enforce(self.app, job).await?;
                continue;
            }
            match dialect::input(self.app, &job, self.dialect, self.models.as_deref()).await {
                Ok(input) => {
                    self.keep(&job);
                    return Ok(Some(json!({ "id": job.id, "input": input })));
                }
                Err(reason) => {
                    let cost = MicroUsd::default();
                    let outcome = Outcome::Failed { reason, is_final: false, cost };
                    delivery::finish(self.app, &job, lease.fence, outcome).await?;
                }
            }
        }
        Ok(None)
    }

    /// Takes a job, and gives it back if the worker has hung up meanwhile.
    async fn take(&self) -> Result<Option<Taken>, ApiError> {
        let is_every = self.room.as_str() == EVERY_ROOM;
        let offer = Offer {
            room: (!is_every).then(|| self.room.clone()),
            owner: self.owner.clone(),
            source: self.source,
            models: self.models.clone(),
        };
        let app = self.app.clone();
        let (give, got) = oneshot::channel();
        tokio::spawn(async move {
            let taken = app.store.take(&offer, app.clock.now()).await;
            if let Err(Ok(Some(Taken { job, lease }))) = give.send(taken)
                && let Err(error) = delivery::finish(&app, &job, lease.fence, Outcome::HandedBack).await
            {
                debug!(job = %job.id, error = error.code, "a worker hung up, and its job could not be handed back");
            }
        });
        Ok(got.await.map_err(|_| ApiError::ours("the queue did not answer"))??)
    }

    /// The job, if it is this worker's now. Paid attempts are never a worker's here.
    pub async fn held(&self, id: &str) -> Result<Option<Job>, ApiError> {
        let Ok(id) = JobId::new(id) else { return Ok(None) };
        let Some(job) = self.app.store.job(&id).await? else { return Ok(None) };
        let is_here = self.room.as_str() == EVERY_ROOM || job.order.room == self.room;
        Ok(if is_here && self.holds(&job) { Some(job) } else { None })
    }

    fn holds(&self, job: &Job) -> bool {
        job.present_lease().is_some_and(|lease| lease.owner == self.owner && lease.source != Source::Cloud)
    }

    /// It was heard of with this job, and how far it is: whether the job is its own still.
    pub async fn hear(&self, job: &Job, progress: Option<Progress>) -> Result<bool, ApiError> {
        let Some(job) = deadline::enforce(self.app, job.clone()).await?.filter(|job| self.holds(job)) else {
            return Ok(false);
        };
        self.keep(&job);
        let beat = self.app.store.beat(&job.id, job.fence, progress, self.app.clock.now()).await?;
        Ok(beat == Beat::Renewed)
    }

    /// Has its lease kept until it is heard of again. Workers that know our rule of heartbeats keep theirs themselves.
    fn keep(&self, job: &Job) {
        self.app.workers.busy(&self.room, &self.owner, &job.id);
        if self.dialect != Some(Dialect::Manyhands) {
            self.app.keeper.hear(self.app, &job.id, job.fence);
        }
    }

    pub async fn progress(&self, job: &Job, note: Value) -> Result<Response, ApiError> {
        let permille = permille(&note).unwrap_or(job.progress.permille).max(job.progress.permille);
        let text = note.to_string();
        let progress = Progress { permille, note: (text.len() <= NOTE_BYTES_MAX).then_some(text) };
        if self.hear(job, Some(progress)).await? { Ok(accepted()) } else { self.ignore(job.id.as_str()) }
    }

    /// Its jobs that it is to stop.
    pub async fn unwanted(&self) -> Result<Vec<JobId>, ApiError> {
        let mut unwanted = self.app.workers.take_unwanted(&self.room, &self.owner);
        for id in self.app.workers.jobs(&self.room, &self.owner) {
            let job = match self.app.store.job(&id).await? {
                Some(job) => deadline::enforce(self.app, job).await?,
                None => None,
            };
            match job.filter(|job| self.holds(job)) {
                Some(job) => self.keep(&job),
                None => {
                    self.app.workers.free(&self.room, &self.owner, &id);
                    unwanted.push(id);
                }
            }
        }
        Ok(unwanted)
    }

    /// What comes too late changes nothing. RunPod says so to nobody, and its workers log any refusal as an error; ours want
    /// to know.
    pub fn ignore(&self, id: &str) -> Result<Response, ApiError> {
        debug!(worker = %self.owner, "what a worker said of a job that is not its own any more is ignored");
        if let Ok(id) = JobId::new(id) {
            self.app.workers.free(&self.room, &self.owner, &id);
        }
        if self.dialect == Some(Dialect::Manyhands) {
            return Err(ApiError::new(StatusCode::GONE, "gone", "this job is not this worker's any more"));
        }
        Ok(Json(json!({ "accepted": false })).into_response())
    }
}

/// Thousandths, where a worker says them as ours does: beside the steps they were made of.
fn permille(note: &Value) -> Option<u16> {
    let number = |name: &str| note.get(name).and_then(Value::as_u64);
    let (step, of) = (number("step")?, number("of")?);
    let told = number("progress").or_else(|| step.saturating_mul(1000).checked_div(of))?;
    u16::try_from(told.min(1000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_for_a_worker_that_hung_up_meanwhile_is_handed_back() {
        use futures::FutureExt;
        let store = std::sync::Arc::new(store::Memory::new(store::limits::Limits::default()));
        let (settings, clock) = (crate::Settings::default(), crate::Clock::System);
        let app = App::new(store, settings, None, "http://relay", clock, Default::default()).unwrap();
        let allowed = crate::access::Allowed {
            user: queue::UserName::new("ada").unwrap(),
            rights: Right::ALL.into_iter().collect(),
            room: None,
        };
        let (caller, room) = (Caller(allowed.into()), RoomName::new("room").unwrap());
        let input = json!({"x": 1});
        let id = crate::submit::raw(&app, &caller, &room, input, None, 0, Default::default()).await.unwrap().job.id;
        let worker = Worker::read(&app, &caller, room, "w", &Vec::new()).unwrap();
        let mut changes = app.store.changes();
        // Asked for, and dropped before there is an answer.
        assert!(worker.take().now_or_never().is_none());
        let job = loop {
            changes.recv().await.unwrap();
            let job = app.store.job(&id).await.unwrap().unwrap();
            if job.present_lease().is_none() {
                break job;
            }
        };
        assert_eq!((job.fence, job.tries, job.status()), (1, 0, queue::Status::Queued));
    }

    #[test]
    fn progress_is_thousandths_only_beside_steps() {
        assert_eq!(permille(&json!({"progress": 250, "step": 2, "of": 8})), Some(250));
        assert_eq!(permille(&json!({"step": 2, "of": 8})), Some(250));
        assert_eq!(permille(&json!({"progress": 5000, "step": 8, "of": 8})), Some(1000));
        assert_eq!(permille(&json!({"step": u64::MAX, "of": 8})), Some(1000), "whatever a worker says");
        for other in [json!({"progress": 50}), json!("half"), json!({"step": 1, "of": 0})] {
            assert_eq!(permille(&other), None);
        }
    }
}
