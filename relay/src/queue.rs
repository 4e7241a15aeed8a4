//! The queue beside the meeting place: opened with it, driven with it, closed after it.

use std::path::Path;

use anyhow::Result;
use prometheus_client::registry::Registry;
use service::{App, Settings};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::limits::QUEUE_FAREWELL_TIME_MAX;

/// An open queue.
pub(crate) struct Queue {
    app: App,
}

/// A queue that does what nobody asks for: routes, overflows, ends leases.
pub(crate) struct Running {
    app: App,
    upkeep: JoinHandle<()>,
}

impl Queue {
    /// Opens what the settings name; `base` is where the relay's HTTP listens.
    pub async fn open(settings: Settings, data: Option<&Path>, base: &str, registry: Registry) -> Result<Self> {
        Ok(Self { app: App::open(settings, data, base, registry).await? })
    }

    pub fn app(&self) -> App {
        self.app.clone()
    }

    /// Starts what it does by itself, until `shutdown` says true.
    pub fn run(self, shutdown: watch::Receiver<bool>) -> Running {
        let upkeep = service::spawn(self.app.clone(), shutdown);
        Running { app: self.app, upkeep }
    }
}

impl Running {
    /// Waits until endpoints have answered what they were asked, and everything is durable. The cloud's attempts go on with
    /// the next relay on this queue, workers keep their leases as long as they are heard of.
    pub async fn end(self) {
        if timeout(QUEUE_FAREWELL_TIME_MAX, self.upkeep).await.is_err() {
            warn!("an endpoint did not answer in time; what it was asked is paid for if nothing is heard of it");
        }
        self.app.store.close().await;
        info!("the queue is closed");
    }
}
