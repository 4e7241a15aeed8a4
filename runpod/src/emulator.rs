//! An endpoint on loopback that behaves as the vendor's does, and misbehaves as told; for tests alone.
//!
//! ```text
//! client -> server ---> Platform (pure: jobs, workers, runs, timers, meter) <--- pool: does its deeds
//!                       ^ virtual clock: real time times `speed`, and jumps    claim, paint, put, webhook
//! ```
//!
//! What a simulated worker understands of its input beside the words of a picture: `_claim` (`{"url","nonce"}`, asked before
//! it begins), `_client_ref` (counted in the meter), `_output` (`{"put": [{"put","path"}]}`, where it puts its picture) and
//! `_stream` (a list that it yields).

mod behaviour;
mod clock;
mod deeds;
mod meter;
mod paint;
mod platform;
mod reply;
mod server;
mod settings;
mod workers;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;

pub use self::behaviour::{Behaviour, Orders};
pub use self::meter::Meter;
pub use self::settings::{Settings, Workers};

use self::clock::Clock;
use self::platform::Platform;
use crate::contract::RemoteId;

/// What the parts of an emulator share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    platform: Mutex<Platform>,
    /// Wakes the pool.
    stirred: Notify,
    /// Wakes whoever waits for a job.
    changed: watch::Sender<()>,
    /// Says that the emulator ends.
    pub(crate) ending: watch::Sender<bool>,
    pub(crate) http: reqwest::Client,
}

impl Shared {
    /// Does something with the platform, and has everybody look who waits for it.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Platform, Duration) -> R) -> R {
        let result = self.look(act);
        self.stirred.notify_one();
        self.changed.send_replace(());
        result
    }

    /// Looks at the platform; nobody need be woken.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Platform, Duration) -> R) -> R {
        let mut platform = self.platform.lock().expect("no holder panics");
        look(&mut platform, self.clock.now())
    }

    /// Waits until `find` finds something, or until the virtual time `until`.
    pub(crate) async fn wait<R>(
        &self,
        until: Duration,
        mut find: impl FnMut(&mut Platform, Duration) -> Option<R>,
    ) -> Option<R> {
        let mut changes = self.changed.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(found) = self.look(&mut find) {
                return Some(found);
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = self.clock.until(until) => return self.look(&mut find),
            }
        }
    }
}

/// A running emulator; it ends when dropped.
pub struct Emulator {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Emulator {
    /// Starts one at a free port of 127.0.0.1.
    pub async fn start(settings: Settings) -> std::io::Result<Self> {
        Self::start_at(TcpListener::bind(("127.0.0.1", 0)).await?, settings)
    }

    /// Starts one that listens there.
    pub fn start_at(listener: TcpListener, settings: Settings) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(10))
            .build()
            .map_err(std::io::Error::other)?;
        let shared = Arc::new(Shared {
            clock: Clock::new(settings.speed),
            platform: Mutex::new(Platform::new(settings.clone())),
            settings,
            stirred: Notify::new(),
            changed: watch::Sender::new(()),
            ending: watch::Sender::new(false),
            http,
        });
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(server::serve(listener, Arc::clone(&shared), stopped));
        Ok(Self { address, shared, stop: Some(stop), server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a client of it is given as base.
    pub fn base(&self) -> String {
        format!("http://{}/v2/{}", self.address, self.shared.settings.endpoint)
    }

    /// Tells it how to behave.
    pub fn behave(&self, orders: Orders) {
        self.shared.with(|platform, _| platform.obey(orders));
    }

    /// Lets its clock jump; everything that falls due on the way happens in order.
    pub fn advance(&self, time: Duration) {
        self.shared.clock.advance(time);
        self.shared.with(|_, _| ());
    }

    /// What has been spent, and what ran how often.
    pub fn meter(&self) -> Meter {
        self.shared.look(|platform, now| platform.meter(now))
    }

    /// Waits until a run of this job has ended: its worker has nothing to do with it any more.
    pub async fn ended(&self, id: &RemoteId) {
        self.shared.wait(Duration::MAX, |platform, _| (!platform.is_running(id.as_str())).then_some(())).await;
    }

    /// Waits until no job waits or runs.
    pub async fn settled(&self) {
        self.shared.wait(Duration::MAX, |platform, _| platform.is_settled().then_some(())).await;
    }

    /// Ends it, and waits until it has ended.
    pub async fn stop(mut self) {
        self.stop.take();
        let ended = (&mut self.server).await;
        debug_assert!(ended.is_ok(), "the server does not panic");
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // The server's task ends when the sender goes.
        self.stop.take();
    }
}
