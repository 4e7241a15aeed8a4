//! One attempt from its hold to its end, driven so that a crash at any point costs nothing twice.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use queue::limits::EXPIRY_SLACK;
use queue::{Attempt, AttemptState, Fault, HoldAsk, Job, Outcome, Overdue, Progress, Step, Stepped, UnixMs};
use runpod::{CallError, JobStatus, RemoteId, RunError, backoff, poll_pause};
use serde_json::Value;
use store::{Beat, Held, StoreError};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::desk::{Desk, Seat};
use super::driver::Begin;
use super::hints::Reins;
use super::limits::{GONE_LOOKS, RUN_TRIES_MAX, RUN_TRIES_TIME_MAX, STORE_PAUSE_MAX, STORE_PAUSE_MIN, UNKNOWN_PAUSE};
use super::{ending, input};
use crate::state::App;

/// Bytes of what a worker tells of its progress, as kept.
const NOTE_BYTES_MAX: usize = 4 * 1024;

/// Tries of writing something down after the relay was told to stop.
const LAST_TRIES: u32 = 5;

/// An attempt and whoever drives it.
pub(crate) struct Errand {
    pub app: App,
    /// `None` if the endpoint is not configured any more: nobody can be asked then.
    pub desk: Option<Arc<Desk>>,
    pub attempt: Attempt,
    /// Whether another relay, or this one in an earlier life, began it.
    pub is_adopted: bool,
    reins: Reins,
    _seat: Option<Seat>,
    shutdown: watch::Receiver<bool>,
}

/// The errand ends here, its attempt does not: the relay stops, or another one drives it.
pub(crate) struct Left;

/// What looking has led to so far.
#[derive(Default)]
struct Looks {
    done: u32,
    troubles: u32,
    gone: u32,
    is_called_off: bool,
}

impl Errand {
    /// Holds the money for a waiting job, and brings the attempt to its end.
    pub async fn begin(app: App, begin: Begin, shutdown: watch::Receiver<bool>) {
        let Begin { job, route, desk, seat, reins } = begin;
        let (store, now) = (&*app.store, app.clock.now());
        match desk.admit(store, now).await {
            Ok(true) => (),
            Ok(false) => return,
            Err(failure) => return error!(%failure, "nothing is sent while the breaker cannot be read"),
        }
        if let Err(failure) = store.explain(&job.id, &route).await {
            warn!(job = %job.id, %failure, "its way cannot be explained");
        }
        let ask = HoldAsk {
            endpoint: desk.rules.name.clone(),
            price: desk.rules.price,
            ttl: desk.rules.ttl,
            claims: desk.rules.claims,
            driver: app.cloud.driver.clone(),
        };
        let held = store.hold(&job.id, ask, &app.cloud.rules.budgets, rand::random(), now).await;
        let attempt = match held {
            Ok(Held::Taken(_, attempt)) => *attempt,
            Ok(Held::Refused(over)) => {
                debug!(job = %job.id, %over, "not held");
                return desk.withdraw(store, now).await;
            }
            Ok(Held::NotNow) => return desk.withdraw(store, now).await,
            Err(failure) => {
                warn!(job = %job.id, %failure, "not held; if it was, it is taken over in a moment");
                return desk.withdraw(store, now).await;
            }
        };
        debug!(job = %job.id, attempt = attempt.key.number, hold = %attempt.hold, "held");
        Self { app, desk: Some(desk), attempt, is_adopted: false, reins, _seat: Some(seat), shutdown }.run().await;
    }

    /// Goes on with an attempt that nobody drives.
    pub async fn resume(app: App, attempt: Attempt, reins: Reins, shutdown: watch::Receiver<bool>) {
        let desk = app.cloud.desk(&attempt.endpoint).map(Arc::clone);
        let seat = desk.as_ref().map(|desk| desk.seat_of_old());
        Self { app, desk, attempt, is_adopted: true, reins, _seat: seat, shutdown }.run().await;
    }

    async fn run(mut self) {
        let Ok(outcome) = self.reach_its_end().await else { return };
        // The reins stay held until the job waits again or has ended, so that nobody here begins in between.
        if self.settle(outcome).await.is_ok() {
            let Attempt { key, cost, hold, .. } = &self.attempt;
            let cost = cost.unwrap_or(*hold);
            info!(job = %key.job, attempt = key.number, %cost, "an attempt of the cloud is settled");
        }
    }

    async fn reach_its_end(&mut self) -> Result<Outcome, Left> {
        if self.attempt.state == AttemptState::Held
            && let Some(outcome) = self.ask().await?
        {
            return Ok(outcome);
        }
        if self.attempt.state == AttemptState::Intent {
            // Its relay died between asking and the answer.
            if super::is_naive() {
                return self.reject("the relay does not know that it asked".to_owned(), true).await;
            }
            self.step(Step::LoseReply).await?;
        }
        self.watch().await
    }

    /// Writes down that the endpoint is being asked, and asks it once: again only while it certainly has not taken the job.
    async fn ask(&mut self) -> Result<Option<Outcome>, Left> {
        let Some(desk) = self.desk.clone() else {
            return self.reject("its endpoint is not configured any more".to_owned(), true).await.map(Some);
        };
        let Some(mut job) = self.job().await? else { return Err(Left) };
        if job.overdue(self.now()) == Some(Overdue::Gone) {
            // Its time was over between the hold and now: nobody would ever see what is paid for.
            let (app, id) = (self.app.clone(), job.id.clone());
            let cancelled = self.keep_trying(|| app.store.cancel(&id, app.clock.now())).await?;
            job = cancelled.ok_or(Left)?;
        }
        if job.present_lease().is_none_or(|lease| lease.fence != self.attempt.fence) {
            desk.withdraw(&*self.app.store, self.now()).await;
            return self.reject("it was called off before it was asked for".to_owned(), true).await.map(Some);
        }
        let request = match input::request(&self.app, &desk.rules, &job, &self.attempt).await {
            Ok(request) => request,
            Err(reason) => {
                desk.withdraw(&*self.app.store, self.now()).await;
                return self.reject(reason, false).await.map(Some);
            }
        };
        if self.is_off().await || *self.shutdown.borrow() {
            desk.withdraw(&*self.app.store, self.now()).await;
            return self.reject("spending was switched off before it was asked for".to_owned(), true).await.map(Some);
        }
        // Whoever is refused here is not the one who may ask: the attempt is as it is found.
        if !self.step(Step::Intend).await? {
            if self.attempt.state == AttemptState::Intent {
                self.step(Step::LoseReply).await?;
            }
            return Ok(None);
        }
        let end = self.now().after(RUN_TRIES_TIME_MAX);
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match desk.rules.client.run(&request).await {
                Ok(status) => {
                    self.step(Step::Submit { remote: status.id.to_string() }).await?;
                    return Ok(None);
                }
                Err(error) => error,
            };
            let may_ask_again = tries < RUN_TRIES_MAX && self.now() < end && !*self.shutdown.borrow();
            match &error {
                RunError::Throttled { retry_after } if may_ask_again && !self.is_off().await => {
                    self.pause(backoff(tries - 1, rand::random(), *retry_after)).await;
                }
                RunError::NotAsked { .. } if may_ask_again && !self.is_off().await => {
                    self.pause(backoff(tries - 1, rand::random(), None)).await;
                }
                RunError::Unknown { .. } if super::is_naive() && tries < RUN_TRIES_MAX => (),
                RunError::Unknown { .. }
                | RunError::NotAsked { .. }
                | RunError::TooLarge { .. }
                | RunError::Refused { .. }
                | RunError::Throttled { .. }
                | RunError::Unauthorised
                | RunError::OutOfFunds { .. } => return self.not_taken(&desk, error).await,
            }
        }
    }

    /// What follows from an endpoint that did not say that it took the job.
    async fn not_taken(&mut self, desk: &Desk, error: RunError) -> Result<Option<Outcome>, Left> {
        let (store, now) = (&*self.app.store, self.now());
        let said = error.unquoted();
        warn!(job = %self.attempt.key.job, endpoint = %desk.rules.name, error = said, "the endpoint did not take it");
        let (fault, is_its_own) = match &error {
            RunError::Unknown { .. } => {
                desk.fail(store, Fault::Failure, now).await;
                // It may run, and it may cost: only time, its claim or its webhook can tell.
                self.step(Step::LoseReply).await?;
                return Ok(None);
            }
            RunError::NotAsked { .. } => (Some(Fault::Failure), false),
            RunError::Unauthorised => (Some(Fault::Unauthorized), false),
            RunError::OutOfFunds { .. } => (Some(Fault::OutOfFunds), false),
            RunError::Refused { .. } => (Some(Fault::Failure), true),
            RunError::TooLarge { .. } => (None, true),
            RunError::Throttled { .. } => (None, false),
        };
        match fault {
            Some(fault) => desk.fail(store, fault, now).await,
            None => desk.withdraw(store, now).await,
        }
        self.reject(error.to_string(), !is_its_own).await.map(Some)
    }

    /// Looks at the attempt until it has ended.
    async fn watch(&mut self) -> Result<Outcome, Left> {
        let mut looks = Looks::default();
        loop {
            self.reload().await?;
            match self.attempt.state {
                AttemptState::Held | AttemptState::Intent => return Err(Left),
                AttemptState::Settled => return Err(Left),
                AttemptState::Done => return ending::recover(self).await,
                AttemptState::Failed | AttemptState::Expired => return Ok(self.failed()),
                AttemptState::Submitted | AttemptState::Unknown | AttemptState::Claimed => (),
            }
            let remote = self.attempt.remote.as_deref().and_then(|remote| RemoteId::new(remote).ok());
            let pause = match (self.desk.clone(), remote) {
                (Some(desk), Some(remote)) => match self.look(&desk, &remote, &mut looks).await? {
                    Ok(outcome) => return Ok(outcome),
                    Err(pause) => pause,
                },
                _ => UNKNOWN_PAUSE,
            };
            let now = self.now();
            if self.attempt.is_overdue(now) {
                // What nobody ever heard of was counted when its answer was lost, or this relay died before it asked.
                if let (Some(desk), Some(_)) = (self.desk.clone(), &self.attempt.remote) {
                    desk.fail(&*self.app.store, Fault::Failure, now).await;
                }
                self.step(Step::Expire { is_gone: false }).await?;
                continue;
            }
            tokio::select! {
                () = self.pause(pause) => (),
                () = self.reins.woken() => (),
            }
            if *self.shutdown.borrow() {
                return Err(Left);
            }
        }
    }

    /// One look: an outcome if it has ended, else the pause until the next.
    async fn look(
        &mut self,
        desk: &Desk,
        remote: &RemoteId,
        looks: &mut Looks,
    ) -> Result<Result<Outcome, Duration>, Left> {
        let client = &desk.rules.client;
        let is_wanted = self.beat(None).await?;
        if (!is_wanted || self.is_late()) && !looks.is_called_off {
            match client.cancel(remote).await {
                Ok(_) => looks.is_called_off = true,
                Err(error) => debug!(%remote, error = error.unquoted(), "it cannot be called off"),
            }
        }
        let error = match client.status(remote).await {
            Ok(status) => {
                (looks.troubles, looks.gone) = (0, 0);
                if let Some(end) = status.end() {
                    return ending::conclude(self, desk, &status, end, is_wanted, looks.is_called_off).await.map(Ok);
                }
                if let Some(progress) = progress(&status) {
                    self.beat(Some(progress)).await?;
                }
                looks.done += 1;
                return Ok(Err(poll_pause(looks.done - 1, rand::random())));
            }
            Err(error) => error,
        };
        match error {
            CallError::Gone => {
                looks.gone += 1;
                if looks.gone >= GONE_LOOKS && self.can_not_run() {
                    desk.fail(&*self.app.store, Fault::Failure, self.now()).await;
                    self.step(Step::Expire { is_gone: true }).await?;
                    return Ok(Ok(self.failed()));
                }
            }
            CallError::Unauthorised => desk.fail(&*self.app.store, Fault::Unauthorized, self.now()).await,
            CallError::OutOfFunds { .. } => desk.fail(&*self.app.store, Fault::OutOfFunds, self.now()).await,
            CallError::Unreachable { .. }
            | CallError::Refused { .. }
            | CallError::Throttled { .. }
            | CallError::Broken { .. }
            | CallError::TooLarge { .. }
            | CallError::Unreadable(_) => (),
        }
        debug!(%remote, error = error.unquoted(), "a look failed");
        looks.troubles += 1;
        Ok(Err(backoff(looks.troubles - 1, rand::random(), error.pause_asked())))
    }

    /// Whether a job that its endpoint does not know can certainly not run, or not any more. Where workers claim, an unclaimed
    /// one cannot begin after the attempt has ended; a claimed one may run as long as its policy allows.
    fn can_not_run(&self) -> bool {
        let is_fenced = self.attempt.claims && self.attempt.state != AttemptState::Claimed;
        is_fenced || self.attempt.is_overdue(self.now())
    }

    /// Whether its endpoint should have ended it by now.
    fn is_late(&self) -> bool {
        self.attempt.is_overdue(self.now().after(EXPIRY_SLACK))
    }

    /// Renews the job's lease; whether the job still wants this attempt.
    async fn beat(&mut self, progress: Option<Progress>) -> Result<bool, Left> {
        let (id, fence) = (self.attempt.key.job.clone(), self.attempt.fence);
        let app = self.app.clone();
        let beat = self.keep_trying(|| app.store.beat(&id, fence, progress.clone(), app.clock.now())).await?;
        Ok(match beat {
            Beat::Renewed => true,
            Beat::Over(_) | Beat::Unknown => false,
        })
    }

    /// Ends the attempt as one that was certainly not taken. If `is_free`, the job loses no try by it.
    async fn reject(&mut self, reason: String, is_free: bool) -> Result<Outcome, Left> {
        self.step(Step::Reject { reason: reason.clone() }).await?;
        Ok(if is_free { Outcome::HandedBack } else { self.failed() })
    }

    /// The outcome of an attempt that ended without a result.
    pub fn failed(&self) -> Outcome {
        let reason = self.attempt.reason.clone().unwrap_or_else(|| "the cloud gave no result".to_owned());
        Outcome::Failed {
            reason: format!("{}: {reason}", self.attempt.endpoint),
            is_final: false,
            cost: Default::default(),
        }
    }

    /// Takes a step and has it written down; whether it was possible. Tries until it is: an answer that is forgotten is money.
    pub async fn step(&mut self, step: Step) -> Result<bool, Left> {
        let (app, key) = (self.app.clone(), self.attempt.key.clone());
        let stepped = self.keep_trying(|| app.store.step(&key, step.clone(), app.clock.now())).await?;
        let Some((stepped, attempt)) = stepped else {
            error!(job = %key.job, attempt = key.number, "the store has lost an attempt");
            return Err(Left);
        };
        self.attempt = attempt;
        Ok(match stepped {
            Stepped::Taken(_) => true,
            Stepped::Refused(_) => {
                debug!(job = %key.job, "a step is not possible where its attempt stands");
                false
            }
        })
    }

    async fn settle(&mut self, outcome: Outcome) -> Result<(), Left> {
        let (app, key) = (self.app.clone(), self.attempt.key.clone());
        self.keep_trying(|| app.store.settle(&key, outcome.clone(), app.clock.now())).await?;
        Ok(())
    }

    async fn reload(&mut self) -> Result<(), Left> {
        let (app, key) = (self.app.clone(), self.attempt.key.clone());
        let attempt = self.keep_trying(|| app.store.attempt(&key)).await?.ok_or(Left)?;
        self.attempt = attempt;
        // This relay was not heard of for a while, and another one has taken it over.
        if self.attempt.driver == self.app.cloud.driver { Ok(()) } else { Err(Left) }
    }

    /// The job, as it is now.
    pub async fn job(&mut self) -> Result<Option<Job>, Left> {
        let (app, id) = (self.app.clone(), self.attempt.key.job.clone());
        self.keep_trying(|| app.store.job(&id)).await
    }

    async fn keep_trying<'a, R>(&self, call: impl Fn() -> BoxFuture<'a, Result<R, StoreError>>) -> Result<R, Left> {
        let mut tries = 0;
        loop {
            let failure = match call().await {
                Ok(result) => return Ok(result),
                Err(failure) => failure,
            };
            tries += 1;
            if *self.shutdown.borrow() && tries >= LAST_TRIES {
                error!(job = %self.attempt.key.job, %failure, "what became of an attempt cannot be written down");
                return Err(Left);
            }
            warn!(job = %self.attempt.key.job, %failure, tries, "the queue's database is asked again");
            let pause = STORE_PAUSE_MIN.saturating_mul(1 << tries.min(10)).min(STORE_PAUSE_MAX);
            self.app.clock.sleep(pause).await;
        }
    }

    /// Waits, or until the relay stops.
    pub async fn pause(&self, time: Duration) {
        let mut shutdown = self.shutdown.clone();
        tokio::select! {
            () = self.app.clock.sleep(time) => (),
            () = super::stopped(&mut shutdown) => (),
        }
    }

    /// Whether the relay was told to stop.
    pub fn is_leaving(&self) -> bool {
        *self.shutdown.borrow()
    }

    pub fn now(&self) -> UnixMs {
        self.app.clock.now()
    }

    /// Whether spending is switched off; it is while nobody can say.
    async fn is_off(&self) -> bool {
        self.app.cloud.is_off(&*self.app.store).await.unwrap_or(true)
    }
}

/// What a worker tells of its progress: `{"permille":500}`, `{"progress":0.5}`, or whatever it likes.
fn progress(status: &JobStatus) -> Option<Progress> {
    let told = status.output.as_ref()?;
    let permille = told.get("permille").and_then(Value::as_u64).or_else(|| {
        let share = told.get("progress")?.as_f64().filter(|share| (0.0..=1.0).contains(share))?;
        Some((share * 1000.0) as u64)
    });
    let note = told.to_string();
    let permille = u16::try_from(permille.unwrap_or(0).min(999)).expect("a number below 1000");
    (note.len() <= NOTE_BYTES_MAX).then_some(Progress { permille, note: Some(note) })
}
