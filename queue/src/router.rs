//! Decides where a waiting job goes: to workers of its room or of the relay's machine, to the cloud, or nowhere.
//!
//! A job goes as a whole: one picture, one processor. The decision is a pure function of what each processor offers.

use std::fmt;
use std::time::Duration;

use crate::catalogue::Engine;
use crate::job::{Mode, Quality, Source};
use crate::limits::ADVANTAGE_PERCENT;
use crate::money::MicroUsd;
use crate::names::{Ask, Endpoint};

pub use self::processor::{CloudBar, CloudOffer, Local, Peers, Processor, RunPod, Workers};

mod processor;

/// A waiting job, as far as its way depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Who may do it.
    pub mode: Mode,
    /// How good it must be.
    pub quality: Quality,
    /// Who can do its type.
    pub engine: Engine,
    /// How long it takes as its type says.
    pub expected: Duration,
    /// How long it has waited.
    pub waited: Duration,
    /// How long after its submission it is to be done ([`crate::JobType::overflow_after`]).
    pub target: Duration,
    /// What it may become; only if somebody could do that now.
    pub fallback: Option<Ask>,
    /// Whether the relay has listened for so short a time that workers may be there of which it has not heard.
    pub is_early: bool,
    /// Where the last decision sent it, so that it does not go to and fro.
    pub previous: Option<Source>,
}

/// What an operator chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteRules {
    /// The cloud only for what no worker can do at all, however long they take.
    pub prefer_local: bool,
    /// Refuse what nobody can do now, instead of waiting for somebody.
    pub fail_fast: bool,
}

/// What a processor would do for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bid {
    /// When it would be done, from now.
    pub eta: Duration,
    /// What it would cost.
    pub cost: MicroUsd,
    /// Which endpoint: always of the cloud, never of workers.
    pub endpoint: Option<Endpoint>,
}

/// Why a processor would not do a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// For people.
    pub why: String,
    /// Whether waiting cannot change it.
    pub is_for_good: bool,
}

/// A processor's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Whose.
    pub source: Source,
    /// What it is.
    pub answer: Result<Bid, Rejection>,
}

/// Where a job goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// It waits until one of these takes it.
    Wait {
        /// Who.
        processor: Source,
    },
    /// It is to be submitted to this endpoint, if the money can be held.
    Overflow {
        /// Which.
        endpoint: Endpoint,
    },
    /// It becomes a job of this type.
    FallBack {
        /// Which.
        to: Ask,
    },
    /// It fails.
    Refuse {
        /// Why.
        reason: String,
    },
}

/// A decision and what it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Where the job goes.
    pub route: Route,
    /// Why there.
    pub why: &'static str,
    /// What every processor offered.
    pub offers: Vec<Offer>,
    /// How long after its submission the job is to be done.
    pub target: Duration,
}

impl Decision {
    /// What to give as [`Placement::previous`] next time.
    pub fn source(&self) -> Option<Source> {
        match &self.route {
            Route::Wait { processor } => Some(*processor),
            Route::Overflow { .. } => Some(Source::Cloud),
            Route::FallBack { .. } | Route::Refuse { .. } => None,
        }
    }

    /// When the job would be done where it goes, from now.
    pub fn eta(&self) -> Option<Duration> {
        let offer = self.offers.iter().find(|offer| Some(offer.source) == self.source())?;
        offer.answer.as_ref().ok().map(|bid| bid.eta)
    }

    /// The decision in words: where, why, and what everybody offered. Times are rounded, so that the text stays the same
    /// while nothing happens.
    pub fn explain(&self) -> String {
        let way = match &self.route {
            Route::Wait { processor } => format!("waits for {}", name(*processor)),
            Route::Overflow { endpoint } => format!("overflows to {endpoint}"),
            Route::FallBack { to } => format!("becomes {to}"),
            Route::Refuse { .. } => "is refused".to_owned(),
        };
        let target = Rough(self.target);
        let mut text = format!("{way}: {} (target {target})", self.why);
        for offer in &self.offers {
            text.push_str(&format!("; {}: ", name(offer.source)));
            match &offer.answer {
                Ok(Bid { eta, cost, .. }) if *cost == MicroUsd::default() => {
                    text.push_str(&format!("{}, free", Rough(*eta)))
                }
                Ok(Bid { eta, cost, .. }) => text.push_str(&format!("{}, about {cost}", Rough(*eta))),
                Err(rejection) => text.push_str(&rejection.why),
            }
        }
        text
    }
}

/// Decides where `job` goes.
pub fn route(job: &Placement, processors: &[&dyn Processor], rules: RouteRules) -> Decision {
    let offers: Vec<Offer> = processors.iter().map(|processor| processor.offer(job)).collect();
    let workers = fastest(&offers, |source| source != Source::Cloud);
    let cloud = fastest(&offers, |source| source == Source::Cloud);
    let wait = |processor| Route::Wait { processor };
    let (route, why) = match (workers, cloud) {
        (Some((_, bid)), Some((_, other))) if !rules.prefer_local && overflows(job, bid, other) => {
            (overflow(other), "workers would be late, and the cloud is faster")
        }
        (Some((source, bid)), Some(_)) if is_late(job, bid.eta, job.target) => {
            let why =
                if rules.prefer_local { "workers come first here" } else { "the cloud would not be faster by enough" };
            (wait(source), why)
        }
        (Some((source, _)), Some(_)) => (wait(source), "workers are in time"),
        (Some((source, _)), None) => (wait(source), "workers do it"),
        (None, Some((_, other))) => (overflow(other), "only the cloud can do it now"),
        (None, None) => nobody(job, &offers, rules),
    };
    let may_be_done = job.is_early && job.mode != Mode::Cloud && job.engine == Engine::Native;
    let (route, why) = match route {
        Route::Overflow { .. } | Route::FallBack { .. } | Route::Refuse { .. } if may_be_done => (
            wait(workers.map_or(Source::Peer, |(source, _)| source)),
            "workers may be there that were not heard of yet",
        ),
        Route::Wait { .. } | Route::Overflow { .. } | Route::FallBack { .. } | Route::Refuse { .. } => (route, why),
    };
    Decision { route, why, offers, target: job.target }
}

/// What becomes of a job for which nobody bids.
fn nobody(job: &Placement, offers: &[Offer], rules: RouteRules) -> (Route, &'static str) {
    let is_for_good = offers.iter().all(|offer| matches!(&offer.answer, Err(rejection) if rejection.is_for_good));
    // Somebody may come back in a moment: another type is no better than waiting until the job is late.
    if let Some(to) = &job.fallback
        && (is_for_good || rules.fail_fast || job.waited >= job.target)
    {
        return (Route::FallBack { to: to.clone() }, "nobody can do its type");
    }
    if is_for_good || rules.fail_fast {
        let why = if is_for_good { "nobody can ever do it here" } else { "nobody can do it now" };
        let reasons = offers.iter().filter_map(|offer| {
            let rejection = offer.answer.as_ref().err()?;
            Some(format!("{}: {}", name(offer.source), rejection.why))
        });
        let reason = format!("{why}; {}", reasons.collect::<Vec<_>>().join("; "));
        return (Route::Refuse { reason }, why);
    }
    let processor = if job.mode == Mode::Cloud { Source::Cloud } else { Source::Peer };
    (Route::Wait { processor }, "nobody can do it now")
}

/// Whether workers would miss the target and the cloud is better by [`ADVANTAGE_PERCENT`]. A job that was to overflow stays
/// so until workers are in time by as much, or faster than the cloud.
fn overflows(job: &Placement, workers: &Bid, cloud: &Bid) -> bool {
    if job.previous == Some(Source::Cloud) {
        is_late(job, workers.eta, percent(job.target, 100 - ADVANTAGE_PERCENT)) && cloud.eta <= workers.eta
    } else {
        is_late(job, workers.eta, job.target) && cloud.eta <= percent(workers.eta, 100 - ADVANTAGE_PERCENT)
    }
}

fn is_late(job: &Placement, eta: Duration, target: Duration) -> bool {
    job.waited.saturating_add(eta) > target
}

fn percent(time: Duration, percent: u32) -> Duration {
    // Divided first: a duration may be the longest there is.
    time / 100 * percent
}

fn overflow(bid: &Bid) -> Route {
    Route::Overflow { endpoint: bid.endpoint.clone().expect("a bid of the cloud names its endpoint") }
}

fn fastest(offers: &[Offer], is_meant: impl Fn(Source) -> bool) -> Option<(Source, &Bid)> {
    let bids = offers.iter().filter_map(|offer| Some((offer.source, offer.answer.as_ref().ok()?)));
    bids.filter(|(source, _)| is_meant(*source)).min_by_key(|(_, bid)| bid.eta)
}

fn name(source: Source) -> &'static str {
    match source {
        Source::Local => "the relay's machine",
        Source::Peer => "peers",
        Source::Cloud => "cloud",
    }
}

/// A time as people say it: coarser the longer it is.
struct Rough(Duration);

impl fmt::Display for Rough {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64().ceil() as u64;
        let step = match seconds {
            0..10 => 1,
            10..60 => 5,
            60..600 => 30,
            600.. => 300,
        };
        let seconds = seconds.div_ceil(step).saturating_mul(step);
        if seconds < 120 { write!(formatter, "{seconds} s") } else { write!(formatter, "{} min", seconds.div_ceil(60)) }
    }
}

#[cfg(test)]
mod tests;
