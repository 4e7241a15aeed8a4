//! What every handler shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use queue::UnixMs;
use store::JobStore;

use crate::access::Mint;

/// The time, or what a test says it is.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's.
    System,
    /// A test's, in milliseconds.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// Now.
    pub fn now(&self) -> UnixMs {
        match self {
            Self::System => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }
            Self::Manual(ms) => UnixMs(ms.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock on; the machine's goes by itself.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(ms) = self {
            ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }
}

/// The service: cheap to clone, one for all requests.
#[derive(Clone)]
pub struct App {
    /// The queue.
    pub store: Arc<dyn JobStore>,
    /// Makes and checks tokens.
    pub mint: Arc<Mint>,
    /// The time.
    pub clock: Clock,
}
