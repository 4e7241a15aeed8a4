//! Stops asking an endpoint that fails, and lets one job try it again later.

use serde::{Deserialize, Serialize};

use crate::limits::{BREAKER_COOL_DOWN, BREAKER_FAILURES_MAX, BREAKER_PROBE_LOST, BREAKER_WINDOW};
use crate::time::UnixMs;

/// How an endpoint failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It did not do one job; the next may go well.
    Failure,
    /// It does not know our key any more: nothing can go well.
    Unauthorized,
    /// Nothing is left of what was prepaid: nothing can go well.
    OutOfFunds,
}

/// Where a breaker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// The endpoint may be asked.
    Closed,
    /// It may not, until it has cooled down.
    Open {
        /// Since when.
        since: UnixMs,
        /// Why.
        fault: Fault,
    },
    /// One job tries it, and no other may.
    Probing {
        /// Since when.
        since: UnixMs,
        /// Since when it was open before.
        opened: UnixMs,
        /// Why it was open.
        fault: Fault,
    },
}

/// One endpoint's breaker. It believes the latest time that it was ever told: a clock that goes back closes nothing, and one
/// that leapt far ahead keeps it open until the clock is there or somebody resets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    state: BreakerState,
    /// When it failed of late, at most one less than opens it.
    failures: Vec<UnixMs>,
    latest: UnixMs,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: BreakerState::Closed, failures: Vec::new(), latest: UnixMs(0) }
    }
}

impl Breaker {
    /// Asks to send one job. Once the breaker has cooled down, whoever asks first is the probe and everybody else is refused
    /// until its end is told, so ask only when the job will really go.
    pub fn admit(&mut self, now: UnixMs) -> bool {
        self.see(now);
        if self.is_open(now) {
            return false;
        }
        match self.state {
            BreakerState::Closed => {}
            BreakerState::Open { since: opened, fault } | BreakerState::Probing { opened, fault, .. } => {
                self.state = BreakerState::Probing { since: self.latest, opened, fault };
            }
        }
        true
    }

    /// The admitted job did not go after all, which says nothing about the endpoint: another one may probe it.
    pub fn withdraw(&mut self, now: UnixMs) {
        self.see(now);
        if let BreakerState::Probing { opened, fault, .. } = self.state {
            self.state = BreakerState::Open { since: opened, fault };
        }
    }

    /// A job of the endpoint went well. That closes the breaker after a probe; while it is open, it is only the end of a job
    /// from before.
    pub fn succeed(&mut self, now: UnixMs) {
        self.see(now);
        if let BreakerState::Probing { .. } = self.state {
            self.reset();
        }
    }

    /// A job of the endpoint failed for the endpoint's fault; says whether that opened the breaker.
    pub fn fail(&mut self, fault: Fault, now: UnixMs) -> bool {
        self.see(now);
        let latest = self.latest;
        self.failures.retain(|failure| latest.since(*failure) < BREAKER_WINDOW);
        let opens = match (fault, self.state) {
            (_, BreakerState::Open { .. }) => false,
            (Fault::Unauthorized | Fault::OutOfFunds, _) | (Fault::Failure, BreakerState::Probing { .. }) => true,
            (Fault::Failure, BreakerState::Closed) => {
                self.failures.push(latest);
                self.failures.len() >= BREAKER_FAILURES_MAX
            }
        };
        if opens {
            self.state = BreakerState::Open { since: latest, fault };
            self.failures.clear();
        }
        opens
    }

    /// Closes it, whatever was: an operator has put the endpoint right.
    pub fn reset(&mut self) {
        self.state = BreakerState::Closed;
        self.failures.clear();
    }

    /// Whether the endpoint may not be asked.
    pub fn is_open(&self, now: UnixMs) -> bool {
        let now = now.max(self.latest);
        match self.state {
            BreakerState::Closed => false,
            BreakerState::Open { since, .. } => now.since(since) < BREAKER_COOL_DOWN,
            BreakerState::Probing { since, .. } => now.since(since) < BREAKER_PROBE_LOST,
        }
    }

    /// Where it is.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Why the endpoint may not be asked, for people; `None` if it may.
    pub fn reason(&self, now: UnixMs) -> Option<String> {
        let why = |fault| match fault {
            Fault::Failure => "it failed too often",
            Fault::Unauthorized => "it refuses the key",
            Fault::OutOfFunds => "its account is empty",
        };
        match self.state {
            _ if !self.is_open(now) => None,
            BreakerState::Closed => None,
            BreakerState::Open { fault, .. } => Some(why(fault).to_owned()),
            BreakerState::Probing { fault, .. } => Some(format!("{}; one job tries it again", why(fault))),
        }
    }

    fn see(&mut self, now: UnixMs) {
        self.latest = self.latest.max(now);
    }
}

#[cfg(test)]
mod tests;
