//! Tells the queue of one job: everything in order, by one sender, so that no progress comes after the result.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::courier::{Answer, Courier};
use super::limits::{DELIVER_TRIES_MAX, HEARTBEAT_EVERY, PROGRESS_EVERY_MIN, RETRY_AFTER_MAX, RETRY_AFTER_MIN};
use crate::backoff::Backoff;

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Thousandths done.
    pub permille: u16,
    /// Steps taken.
    pub step: u32,
    /// Steps in all.
    pub of: u32,
}

impl Progress {
    /// What the queue is told.
    fn body(self) -> Value {
        let Self { permille, step, of } = self;
        json!({ "status": "IN_PROGRESS", "output": { "progress": permille, "step": step, "of": of } })
    }
}

/// How a result was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It was.
    Taken,
    /// Nobody wants it any more.
    Unwanted,
    /// The queue could not be told.
    Lost(String),
}

/// The one that tells of one job.
pub struct Reporter {
    courier: Courier,
    job: String,
    progress: watch::Sender<Progress>,
    end: oneshot::Sender<()>,
    sender: JoinHandle<()>,
    unwanted: watch::Receiver<bool>,
}

impl Reporter {
    /// Begins to tell: at once, then as [`Self::note`] says, and in between so that the job's lease lives.
    pub fn begin(courier: &Courier, job: &str, first: Progress) -> Self {
        let (progress, news) = watch::channel(first);
        let (end, ended) = oneshot::channel();
        let (unwanted_told, unwanted) = watch::channel(false);
        let sender = tokio::spawn(tell(courier.clone(), job.to_owned(), news, ended, unwanted_told));
        Self { courier: courier.clone(), job: job.to_owned(), progress, end, sender, unwanted }
    }

    /// Notes how far the job is; the queue is told soon.
    pub fn note(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }

    /// Waits until the queue says that nobody wants this job from this worker any more.
    pub async fn unwanted(&self) {
        let mut unwanted = self.unwanted.clone();
        if unwanted.wait_for(|is_unwanted| *is_unwanted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Tells how the job ended, after everything else has been told.
    pub async fn finish(self, body: &Value) -> Delivered {
        let (courier, job) = (self.courier.clone(), self.job.clone());
        self.abandon().await;
        deliver(&courier, &job, body).await
    }

    /// Tells nothing more.
    pub async fn abandon(self) {
        let _ = self.end.send(());
        let _ = self.sender.await;
    }
}

/// Tells how a job ended, several times if need be.
pub async fn deliver(courier: &Courier, job: &str, body: &Value) -> Delivered {
    let mut backoff = Backoff::new(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
    loop {
        let trouble = match courier.deliver(job, body).await {
            Ok(Answer { status, .. }) if status.is_success() => return Delivered::Taken,
            Ok(answer) if is_over(&answer) => return Delivered::Unwanted,
            // Saying it again changes nothing.
            Ok(Answer { status, .. }) if status.is_client_error() && !is_passing(status.as_u16()) => {
                return Delivered::Lost(format!("it answers {status}"));
            }
            Ok(Answer { status, .. }) => format!("it answers {status}"),
            Err(reason) => reason,
        };
        let wait = backoff.fail_with_jitter(rand::random());
        if backoff.failures() >= DELIVER_TRIES_MAX {
            return Delivered::Lost(trouble);
        }
        tracing::debug!(job, trouble, "not delivered yet");
        tokio::time::sleep(wait).await;
    }
}

/// Whether a status says that the same request may succeed later.
pub fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..)
}

/// Whether the queue says that this worker has this job no more.
fn is_over(answer: &Answer) -> bool {
    matches!(answer.status.as_u16(), 404 | 409 | 410)
}

async fn tell(
    courier: Courier,
    job: String,
    mut news: watch::Receiver<Progress>,
    mut ended: oneshot::Receiver<()>,
    unwanted: watch::Sender<bool>,
) {
    loop {
        let told_at = Instant::now();
        let progress = *news.borrow_and_update();
        // Not cut off by the end: what is under way arrives before the result is sent.
        match courier.tell(&job, &progress.body()).await {
            Ok(answer) if is_over(&answer) => {
                unwanted.send_replace(true);
                return;
            }
            Ok(answer) => tracing::trace!(job, status = %answer.status, "progress told"),
            Err(reason) => tracing::debug!(job, reason, "progress not told"),
        }
        let at_most = |time: Duration| tokio::time::sleep_until(told_at + time);
        let next = async {
            at_most(PROGRESS_EVERY_MIN).await;
            tokio::select! {
                _ = news.changed() => {}
                () = at_most(HEARTBEAT_EVERY) => {}
            }
        };
        tokio::select! {
            biased;
            _ = &mut ended => return,
            () = next => {}
        }
    }
}
