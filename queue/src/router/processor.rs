//! What can do jobs: workers on the relay's machine, workers of the room, an endpoint of RunPod; and what each offers.

use std::time::Duration;

use super::{Bid, Offer, Placement, Rejection};
use crate::capability::CLOUD_ALONE;
use crate::catalogue::Engine;
use crate::job::{Mode, Quality, Source};
use crate::money::{MicroUsd, OverBudget, Price};
use crate::names::Endpoint;

/// Whoever may do a job.
pub trait Processor {
    /// What it would do for this one.
    fn offer(&self, job: &Placement) -> Offer;
}

/// Workers that take jobs from the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workers {
    /// Those that have the job's model.
    pub able: u32,
    /// Those that have not.
    pub unable: u32,
    /// Work that goes before the job, for one worker: what is left of what they do, and the jobs ahead of it in the queue.
    pub ahead: Duration,
    /// How long one of them takes for a job of this type, as measured; what the type says if nothing is.
    pub measured: Option<Duration>,
}

/// Workers on the relay's own machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Local(pub Workers);

/// Workers of the room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peers(pub Workers);

/// An endpoint of RunPod, or what is in its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPod(pub Result<CloudOffer, CloudBar>);

/// An endpoint that may be asked for a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudOffer {
    /// Which.
    pub endpoint: Endpoint,
    /// How long until a worker of it begins: its cold start, or less if one is warm.
    pub start: Duration,
    /// How long the job takes there.
    pub expected: Duration,
    /// What that costs.
    pub price: Price,
}

/// Why the cloud may not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudBar {
    /// No endpoint is configured for the type's queue.
    NoEndpoint,
    /// The submitter's token does not have the right to spend.
    NoRight,
    /// An operator has switched spending off.
    Switch,
    /// The endpoint's breaker is open; why.
    Breaker(String),
    /// A budget is in the way.
    Budget(OverBudget),
    /// The endpoint has no worker to speak of; what its health says.
    Unwell(String),
    /// The job has had as many paid attempts as it may.
    Attempts,
}

impl Processor for Local {
    fn offer(&self, job: &Placement) -> Offer {
        Offer { source: Source::Local, answer: workers_bid(&self.0, job, "no worker runs there") }
    }
}

impl Processor for Peers {
    fn offer(&self, job: &Placement) -> Offer {
        Offer { source: Source::Peer, answer: workers_bid(&self.0, job, "no worker serves this room") }
    }
}

impl Processor for RunPod {
    fn offer(&self, job: &Placement) -> Offer {
        Offer { source: Source::Cloud, answer: self.bid(job) }
    }
}

impl RunPod {
    fn bid(&self, job: &Placement) -> Result<Bid, Rejection> {
        match (job.mode, job.quality) {
            (Mode::Local, _) => return Err(never("the job is to stay with workers")),
            (Mode::Auto, Quality::Draft) => return Err(never("a draft is not worth money")),
            (Mode::Auto, Quality::Final) | (Mode::Cloud, _) => {}
        }
        let offer = self.0.as_ref().map_err(CloudBar::rejection)?;
        Ok(Bid {
            eta: offer.start.saturating_add(offer.expected),
            cost: offer.price.measured(offer.start, offer.expected),
            endpoint: Some(offer.endpoint.clone()),
        })
    }
}

impl CloudBar {
    fn rejection(&self) -> Rejection {
        match self {
            Self::NoEndpoint => never("no endpoint is configured for it"),
            Self::NoRight => never("the submitter has no right to spend"),
            Self::Attempts => never("it was tried there as often as may be"),
            Self::Switch => for_now("spending is switched off".to_owned()),
            Self::Breaker(why) => for_now(format!("not asked: {why}")),
            Self::Budget(over) => for_now(over.to_string()),
            Self::Unwell(why) => for_now(format!("its endpoint is unwell: {why}")),
        }
    }
}

fn workers_bid(workers: &Workers, job: &Placement, nobody: &str) -> Result<Bid, Rejection> {
    if job.mode == Mode::Cloud {
        return Err(never("the job is for the cloud alone"));
    }
    match job.engine {
        Engine::OverflowOnly => return Err(never(CLOUD_ALONE)),
        Engine::Native => {}
    }
    match (workers.able, workers.unable) {
        (0, 0) => return Err(for_now(nobody.to_owned())),
        (0, 1) => return Err(for_now("its one worker does not have the model".to_owned())),
        (0, unable) => return Err(for_now(format!("none of its {unable} workers has the model"))),
        (1.., _) => {}
    }
    let own = workers.measured.unwrap_or(job.expected);
    Ok(Bid { eta: (workers.ahead / workers.able).saturating_add(own), cost: MicroUsd::default(), endpoint: None })
}

fn never(why: &str) -> Rejection {
    Rejection { why: why.to_owned(), is_for_good: true }
}

fn for_now(why: String) -> Rejection {
    Rejection { why, is_for_good: false }
}
