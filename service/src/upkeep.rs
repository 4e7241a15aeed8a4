//! What must be done though nobody asks: leases end, old jobs are forgotten, the cloud is driven.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{debug, error};

use crate::cloud;
use crate::limits::{EXPIRE_EVERY, SWEEP_EVERY};
use crate::state::App;

/// Starts everything that a relay does by itself. After `shutdown` says true it comes to its end; the store stays open.
pub fn spawn(app: App, shutdown: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let driving = cloud::spawn(app.clone(), shutdown.clone());
        tokio::join!(keep_up(&app, shutdown), async {
            if let Err(failure) = driving.await {
                error!(%failure, "what drives the cloud has failed");
            }
        });
    })
}

/// Ends leases that nobody renewed, and now and then forgets what is old.
async fn keep_up(app: &App, mut shutdown: watch::Receiver<bool>) {
    let mut until_sweep = Duration::ZERO;
    loop {
        match app.store.expire(app.clock.now()).await {
            Ok(ended) if ended.is_empty() => (),
            Ok(ended) => debug!(leases = ended.len(), "leases ended that nobody renewed"),
            Err(failure) => error!(%failure, "leases cannot be ended"),
        }
        if until_sweep.is_zero() {
            until_sweep = SWEEP_EVERY;
            if let Err(failure) = app.sweep().await {
                error!(failure = format!("{failure:#}"), "what is old cannot be forgotten");
            }
        }
        until_sweep = until_sweep.saturating_sub(EXPIRE_EVERY);
        tokio::select! {
            () = cloud::stopped(&mut shutdown) => {
                // Whoever waits for a job or an event is told that nothing comes, and asks the next relay.
                app.closing.close();
                return;
            }
            () = app.clock.sleep(EXPIRE_EVERY) => (),
        }
    }
}
