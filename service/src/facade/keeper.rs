//! Keeps the leases of foreign workers alive between their pings, which come more rarely than a lease lasts.
//!
//! A worker of RunPod's says every 10 s which jobs it has, and a handler that never yields keeps it from saying anything else.
//! The relay beats for it as long as it was heard of within [`PATIENCE`]; then the lease ends as any other does.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use queue::JobId;
use queue::limits::HEARTBEAT_EVERY;
use store::Beat;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::facade::deadline;
use crate::facade::limits::{KEPT_MAX, PATIENCE};
use crate::state::App;

/// The leases that are kept, and when their workers were last heard of.
#[derive(Debug, Default)]
pub struct Keeper {
    heard: Mutex<BTreeMap<(JobId, u64), Instant>>,
}

impl Keeper {
    /// A worker was heard of that holds this lease.
    pub(crate) fn hear(&self, app: &App, id: &JobId, fence: u64) {
        let mut heard = self.heard();
        let count = heard.len();
        match heard.entry((id.clone(), fence)) {
            Entry::Occupied(mut entry) => *entry.get_mut() = Instant::now(),
            Entry::Vacant(entry) if count < KEPT_MAX => {
                entry.insert(Instant::now());
                drop(heard);
                tokio::spawn(keep(app.clone(), id.clone(), fence));
            }
            // Its own pings are all it has, then.
            Entry::Vacant(_) => debug!(job = %id, "too many leases are kept for foreign workers"),
        }
    }

    /// How many are kept.
    pub fn count(&self) -> usize {
        self.heard().len()
    }

    fn is_heard(&self, key: &(JobId, u64)) -> bool {
        self.heard().get(key).is_some_and(|at| at.elapsed() < PATIENCE)
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<(JobId, u64), Instant>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn keep(app: App, id: JobId, fence: u64) {
    let key = (id, fence);
    while beat(&app, &key).await {
        sleep(HEARTBEAT_EVERY).await;
    }
    app.keeper.heard().remove(&key);
}

/// Beats once; `false` if the lease is not to be kept any more.
async fn beat(app: &App, key: &(JobId, u64)) -> bool {
    let (id, fence) = key;
    if app.closing.is_closed() || !app.keeper.is_heard(key) {
        return false;
    }
    let beat = async {
        let Some(job) = app.store.job(id).await? else { return Ok(Beat::Unknown) };
        if job.fence == *fence {
            deadline::enforce(app, job).await?;
        }
        Ok::<_, crate::error::ApiError>(app.store.beat(id, *fence, None, app.clock.now()).await?)
    };
    match beat.await {
        Ok(Beat::Renewed) => true,
        Ok(Beat::Over(_) | Beat::Unknown) => false,
        // The database may be back before the lease ends.
        Err(error) => {
            debug!(job = %id, error = error.code, "a lease could not be kept");
            true
        }
    }
}
