//! Starts what drives attempts, and takes over those that nobody drives: after a restart, or when another relay died.

use std::sync::Arc;

use queue::limits::HEARTBEAT_EVERY;
use queue::{Attempt, Job};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info};

use super::attempt::Errand;
use super::desk::{Desk, Seat};
use super::hints::Reins;
use crate::state::App;

/// Errands that wait to be started; the router waits when there are more.
const ERRANDS_WAITING_MAX: usize = 16;

/// A job that is to go to an endpoint, with all that it needs for that.
pub(crate) struct Begin {
    pub job: Job,
    /// Why it goes there.
    pub route: String,
    pub desk: Arc<Desk>,
    pub seat: Seat,
    pub reins: Reins,
}

/// Where the router's decisions go.
pub(crate) fn channel() -> (mpsc::Sender<Begin>, mpsc::Receiver<Begin>) {
    mpsc::channel(ERRANDS_WAITING_MAX)
}

/// Drives until `shutdown` says true and every errand has come to a point where it can be left.
pub(crate) async fn run(app: App, mut begun: mpsc::Receiver<Begin>, shutdown: watch::Receiver<bool>) {
    let mut ordered = shutdown.clone();
    let mut errands = JoinSet::new();
    adopt(&app, &mut errands, &shutdown).await;
    let mut tick = Box::pin(app.clock.sleep(HEARTBEAT_EVERY));
    loop {
        tokio::select! {
            () = super::stopped(&mut ordered) => break,
            Some(begin) = begun.recv() => {
                errands.spawn(Errand::begin(app.clone(), begin, shutdown.clone()));
            }
            Some(ended) = errands.join_next() => noticed(ended),
            () = &mut tick => {
                adopt(&app, &mut errands, &shutdown).await;
                tick = Box::pin(app.clock.sleep(HEARTBEAT_EVERY));
            }
        }
    }
    begun.close();
    while let Some(ended) = errands.join_next().await {
        noticed(ended);
    }
}

/// Renews what is driven here, and goes on with what nobody drives.
async fn adopt(app: &App, errands: &mut JoinSet<()>, shutdown: &watch::Receiver<bool>) {
    let attempts = match app.store.adopt(&app.cloud.driver, app.clock.now()).await {
        Ok(attempts) => attempts,
        Err(failure) => {
            error!(%failure, "attempts cannot be renewed; another relay may take them over");
            return;
        }
    };
    for attempt in attempts {
        // Whoever drives it here has the reins; an attempt that has just ended is seen as such by whoever resumes it.
        if let Some(reins) = app.cloud.driven.take(&attempt.key.job) {
            let Attempt { key, state, endpoint, .. } = &attempt;
            info!(job = %key.job, attempt = key.number, ?state, %endpoint, "an attempt that nobody drives is taken over");
            errands.spawn(Errand::resume(app.clone(), attempt, reins, shutdown.clone()));
        }
    }
}

fn noticed(ended: Result<(), tokio::task::JoinError>) {
    if let Err(failure) = ended {
        // The attempt stays in the store, and is taken over at the next tick.
        error!(%failure, "what drives an attempt has failed");
    }
}
