//! Waits for a change of the queue: for a job's end, for a job to take. Whoever waits is let go when the relay ends.

use std::sync::Arc;
use std::time::Duration;

use queue::{Job, JobId};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::error::ApiError;
use crate::limits::LOOK_EVERY;
use crate::state::App;

/// Lets go of whoever waits, once.
#[derive(Clone, Debug)]
pub struct Closing(watch::Sender<bool>);

impl Default for Closing {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Closing {
    /// From here on nobody waits for anything.
    pub fn close(&self) {
        self.0.send_replace(true);
    }

    /// Whether that is so.
    pub fn is_closed(&self) -> bool {
        *self.0.borrow()
    }

    /// Completes when that is so.
    pub(crate) async fn closed(&self) {
        let mut closed = self.0.subscribe();
        // The sender is this very value.
        let _ = closed.wait_for(|is_closed| *is_closed).await;
    }
}

/// One who waits. Listens from its making on, so that whoever looks afterwards misses nothing.
pub(crate) struct Waiter<'a> {
    app: &'a App,
    changes: Receiver<Arc<JobId>>,
    end: Instant,
}

impl<'a> Waiter<'a> {
    /// Waits for so long at most.
    pub fn new(app: &'a App, time: Duration) -> Self {
        Self { app, changes: app.store.changes(), end: Instant::now() + time }
    }

    /// Waits until a job changes, that one if given, or it is time to look anyway. `false` if the waiting is over.
    pub async fn wait(&mut self, id: Option<&JobId>) -> bool {
        let look = (Instant::now() + LOOK_EVERY).min(self.end);
        let changed = async {
            loop {
                match self.changes.recv().await {
                    Ok(changed) if id.is_none_or(|id| *id == *changed) => break,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = self.app.closing.closed() => return false,
            _ = timeout_at(look, changed) => {}
        }
        // One look sees all that has changed so far.
        while !matches!(self.changes.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
        Instant::now() < self.end
    }

    /// Lets some time go by, so that a burst of changes is one.
    pub async fn rest(&self, time: Duration) {
        tokio::select! {
            () = self.app.closing.closed() => {}
            () = sleep_until((Instant::now() + time).min(self.end)) => {}
        }
    }
}

/// Waits until `is_there` holds of a job, it is gone, or the time is over; gives it as it is then.
pub(crate) async fn until(
    app: &App,
    id: &JobId,
    time: Duration,
    is_there: impl Fn(&Job) -> bool,
) -> Result<Option<Job>, ApiError> {
    let mut waiter = Waiter::new(app, time);
    let mut is_over = false;
    loop {
        let job = app.store.job(id).await?;
        if is_over || job.as_ref().is_none_or(&is_there) {
            return Ok(job);
        }
        is_over = !waiter.wait(Some(id)).await;
    }
}
