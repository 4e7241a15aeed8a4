//! Overflow to the cloud that can never overspend.
//!
//! ```text
//! router --decides--> begin: hold -> intent -> /run --> watch: look, look ... --> end: result kept, settled
//!                       (one attempt, driven by one relay)   ^ claim, webhook: look sooner
//! driver --every 3 s--> takes over attempts that nobody drives, whatever they were in the middle of
//! ```
//!
//! Money is held before anything is asked for, what may have been asked for is never asked for again, and the second attempt of
//! a job begins when the first can certainly not run any more. All that must survive is in the store; nothing is here.

mod answers;
mod attempt;
mod desk;
mod driver;
mod ending;
mod hints;
mod input;
pub mod limits;
mod opening;
mod router;
mod rules;

use std::sync::Arc;

use queue::{Endpoint, Owner};
use store::{JobStore, StoreError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) use self::answers::routes;
pub use self::rules::{EndpointRules, RAW_QUEUE, Rules, RulesError};

use self::desk::Desk;
use self::hints::Driven;
use self::rules::SWITCH;
use crate::state::App;

/// What this relay knows of the cloud.
#[derive(Debug)]
pub struct Cloud {
    rules: Rules,
    desks: Vec<Arc<Desk>>,
    driver: Owner,
    driven: Arc<Driven>,
}

impl Cloud {
    /// By these rules; `driver` names this relay to others on the same queue, and stays the same when it starts again, so
    /// that it goes on with its attempts at once.
    pub fn new(rules: Rules, driver: Owner) -> Result<Self, RulesError> {
        rules.check()?;
        let desks = rules.endpoints.iter().cloned().map(|rules| Arc::new(Desk::new(rules))).collect();
        Ok(Self { rules, desks, driver, driven: Arc::default() })
    }

    /// Its rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn desk(&self, endpoint: &Endpoint) -> Option<&Arc<Desk>> {
        self.desks.iter().find(|desk| desk.rules.name == *endpoint)
    }

    /// Whether nothing may be spent, by the configuration or by the switch.
    pub(crate) async fn is_off(&self, store: &dyn JobStore) -> Result<bool, StoreError> {
        Ok(self.rules.is_switched_off || store.breaker(&switch()).await?.as_deref() == Some(OFF))
    }

    /// Turns the kill switch, for every relay on this queue, until it is turned again.
    pub(crate) async fn turn(&self, store: &dyn JobStore, is_on: bool) -> Result<(), StoreError> {
        store.set_breaker(&switch(), if is_on { ON } else { OFF }.to_owned()).await
    }
}

/// Completes when the relay is told to stop, or is dropped.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that whoever could tell is gone.
    let _ = shutdown.wait_for(|ordered| *ordered).await;
}

/// Whether this is the variant that tests compare the real one with: it asks again when an answer is lost, sends no claim, and
/// after a restart takes an intent for nothing. Only a build for that test has it, and only if told so.
#[cfg(feature = "naive")]
pub(crate) fn is_naive() -> bool {
    std::env::var_os("MANYHANDS_NAIVE").is_some()
}

/// Never: see the feature `naive`.
#[cfg(not(feature = "naive"))]
pub(crate) const fn is_naive() -> bool {
    false
}

/// The switch's two positions, as they are kept.
const ON: &str = "\"on\"";
const OFF: &str = "\"off\"";

fn switch() -> Endpoint {
    Endpoint::new(SWITCH).expect("a constant name is a name")
}

/// Starts router and driver. After `shutdown` says true nothing new is asked for; the task ends when every call that starts
/// something has its answer. Attempts stay as they are in the store, for whoever starts next.
pub fn spawn(app: App, shutdown: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let (decided, begun) = driver::channel();
        let routing = router::run(app.clone(), decided, shutdown.clone());
        let driving = driver::run(app, begun, shutdown);
        tokio::join!(routing, driving);
    })
}
