//! One endpoint as this relay knows it at the moment: how many jobs it has, how it is, whether its breaker is open.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use queue::{Breaker, BreakerState, Fault, UnixMs};
use runpod::Health;
use store::{JobStore, StoreError};
use tokio::sync::Mutex as AsyncMutex;
use tracing::{error, warn};

use super::limits::{ENDPOINT_QUEUE_MAX, FACTS_TIME, WARM_START};
use super::rules::EndpointRules;

/// What was last heard of an endpoint's health.
#[derive(Clone, Copy, Debug, Default)]
struct Checkup {
    at: UnixMs,
    health: Option<Health>,
    /// Whether it was asked at all.
    is_known: bool,
}

/// An endpoint.
#[derive(Debug)]
pub(crate) struct Desk {
    pub rules: EndpointRules,
    in_flight: Arc<AtomicUsize>,
    checkup: Mutex<Checkup>,
    /// Held while its breaker is read, changed and written, so that no failure is lost between two of this relay's jobs.
    breaker: AsyncMutex<()>,
}

/// A place among an endpoint's jobs; free again when dropped.
#[derive(Debug)]
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Desk {
    pub fn new(rules: EndpointRules) -> Self {
        let breaker = AsyncMutex::new(());
        Self { rules, in_flight: Arc::default(), checkup: Mutex::default(), breaker }
    }

    /// A place for one more job, if it may have one.
    pub fn seat(&self) -> Option<Seat> {
        let max = self.rules.in_flight_max;
        let taken =
            self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| (count < max).then_some(count + 1));
        taken.ok().map(|_| Seat(Arc::clone(&self.in_flight)))
    }

    /// A place for a job that it has already.
    pub fn seat_of_old(&self) -> Seat {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        Seat(Arc::clone(&self.in_flight))
    }

    /// How many jobs it has.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Asks how it is, unless that is known.
    pub async fn check_up(&self, now: UnixMs) {
        {
            let mut checkup = self.checkup();
            if checkup.is_known && now.since(checkup.at) < FACTS_TIME {
                return;
            }
            // Marked before it is asked, so that a slow answer is waited for once.
            checkup.at = now;
            checkup.is_known = true;
        }
        let health = self.rules.client.health().await;
        let mut checkup = self.checkup();
        checkup.health = match health {
            Ok(health) => Some(health),
            Err(error) => {
                warn!(endpoint = %self.rules.name, %error, "its health cannot be had");
                None
            }
        };
    }

    /// What is wrong with it, for people; nothing if it is not known to be unwell: a job will show.
    pub fn trouble(&self) -> Option<&'static str> {
        self.checkup().health?.trouble(ENDPOINT_QUEUE_MAX)
    }

    /// What was last heard of its health.
    pub fn health(&self) -> Option<Health> {
        self.checkup().health
    }

    /// How long until a worker of it begins.
    pub fn start(&self) -> std::time::Duration {
        let is_warm = self.checkup().health.is_some_and(|health| health.workers.idle.unwrap_or(0) > 0);
        if is_warm { WARM_START } else { self.rules.price.cold_start_max }
    }

    /// Its breaker, as it is kept.
    pub async fn breaker(&self, store: &dyn JobStore) -> Result<Breaker, StoreError> {
        let Some(text) = store.breaker(&self.rules.name).await? else { return Ok(Breaker::default()) };
        serde_json::from_str(&text).map_err(|problem| StoreError::Unreadable(format!("a breaker: {problem}")))
    }

    /// Asks to send one job.
    pub async fn admit(&self, store: &dyn JobStore, now: UnixMs) -> Result<bool, StoreError> {
        self.change(store, |breaker| breaker.admit(now)).await
    }

    /// The admitted job did not go after all.
    pub async fn withdraw(&self, store: &dyn JobStore, now: UnixMs) {
        self.note(store, |breaker| breaker.withdraw(now)).await;
    }

    /// A job went well.
    pub async fn succeed(&self, store: &dyn JobStore, now: UnixMs) {
        self.note(store, |breaker| breaker.succeed(now)).await;
    }

    /// A job failed for its fault.
    pub async fn fail(&self, store: &dyn JobStore, fault: Fault, now: UnixMs) {
        let name = &self.rules.name;
        let opened = |breaker: &mut Breaker| {
            if breaker.fail(fault, now) {
                warn!(endpoint = %name, ?fault, "the breaker opens: nothing is sent there for a while");
            }
        };
        self.note(store, opened).await;
    }

    /// An operator has put it right.
    pub async fn reset(&self, store: &dyn JobStore) -> Result<(), StoreError> {
        self.change(store, Breaker::reset).await
    }

    async fn note(&self, store: &dyn JobStore, change: impl FnOnce(&mut Breaker)) {
        if let Err(failure) = self.change(store, change).await {
            error!(endpoint = %self.rules.name, %failure, "its breaker cannot be kept");
        }
    }

    async fn change<R>(&self, store: &dyn JobStore, change: impl FnOnce(&mut Breaker) -> R) -> Result<R, StoreError> {
        let _alone = self.breaker.lock().await;
        let before = self.breaker(store).await?;
        let mut after = before.clone();
        let result = change(&mut after);
        if !is_same(&before, &after) {
            let text = serde_json::to_string(&after).expect("a breaker is plain data");
            store.set_breaker(&self.rules.name, text).await?;
        }
        Ok(result)
    }

    fn checkup(&self) -> std::sync::MutexGuard<'_, Checkup> {
        self.checkup.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nothing has changed that matters after a restart: the time that a closed breaker was last asked does not, and
/// every job would write it.
fn is_same(before: &Breaker, after: &Breaker) -> bool {
    let rest = |breaker: &Breaker| {
        let mut value = serde_json::to_value(breaker).expect("a breaker is plain data");
        value.as_object_mut().and_then(|fields| fields.remove("latest"));
        value
    };
    let are_closed = [before, after].iter().all(|breaker| breaker.state() == BreakerState::Closed);
    before == after || are_closed && rest(before) == rest(after)
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
