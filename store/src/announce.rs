//! Tells who listens, here and at other relays, which jobs have changed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use queue::JobId;
use tokio::sync::{broadcast, mpsc};

use crate::limits::CHANGES_KEPT;

/// Where changes are announced after their commit.
#[derive(Debug)]
pub(crate) struct Announcer {
    here: broadcast::Sender<Arc<JobId>>,
    others: Mutex<Option<mpsc::Sender<Arc<JobId>>>>,
    /// More has changed than the others can be told one by one.
    is_behind: AtomicBool,
}

impl Announcer {
    /// For a database that this process has alone.
    pub(crate) fn alone() -> Self {
        Self { here: broadcast::Sender::new(CHANGES_KEPT), others: Mutex::new(None), is_behind: AtomicBool::new(false) }
    }

    /// For a database of several processes: what the others are to be told comes out of the receiver.
    pub(crate) fn among_others() -> (Self, mpsc::Receiver<Arc<JobId>>) {
        let (others, notices) = mpsc::channel(CHANGES_KEPT);
        (Self { others: Mutex::new(Some(others)), ..Self::alone() }, notices)
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Arc<JobId>> {
        self.here.subscribe()
    }

    /// Announces what was changed here.
    pub(crate) fn announce(&self, changed: Vec<JobId>) {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for id in changed {
            let id = Arc::new(id);
            if let Some(others) = &others
                && others.try_send(id.clone()).is_err()
            {
                self.fall_behind();
            }
            self.relay(id);
        }
    }

    /// Announces what was changed elsewhere.
    pub(crate) fn relay(&self, id: Arc<JobId>) {
        // Fails where nobody listens, and never waits.
        let _ = self.here.send(id);
    }

    /// Tells others nothing more than they are being told: the receiver's end comes after that.
    pub(crate) fn hush(&self) {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Notes that others have missed something.
    pub(crate) fn fall_behind(&self) {
        self.is_behind.store(true, Ordering::Relaxed);
    }

    /// Whether others have missed something since this was last asked.
    pub(crate) fn catch_up(&self) -> bool {
        self.is_behind.swap(false, Ordering::Relaxed)
    }
}
