//! What the planner knows of those who lend: how long each would take for a unit, and how long the unit is on its way.

use std::time::Duration;

use protocol::{Instant, JobSpec, ModelId, ModelShape, PeerId, Work};

use crate::roster::{Lender, Roster};
use crate::speed::Shape;

/// Seconds for one of [`Work::cost`] where nobody was measured: a slow processor with the demo model. Only ratios decide
/// what is planned, so that a wrong guess misleads nobody but the reader of the time.
const SECONDS_PER_COST_UNKNOWN: f64 = 5e-4;

/// A unit's way there and back where it was not measured: a home network.
const WAY_UNKNOWN: Duration = Duration::from_millis(5);

/// How fast a peer is.
pub trait Pace {
    /// Seconds that it computes a unit.
    fn seconds(&self, work: &Work) -> f64;

    /// Seconds that a unit of so many bytes of tensors spends on its way there and back.
    fn way(&self, bytes: usize) -> f64;

    /// Whether a unit is not known to be too large for its memory.
    fn fits(&self, work: &Work) -> bool;

    /// Whether its speed was measured, by itself or by its deliveries.
    fn is_measured(&self) -> bool;
}

/// Somebody who lends the job's model.
pub struct Peer<'a> {
    /// Its id.
    pub id: PeerId,
    /// Its numeric class; untrusted text.
    pub class: &'a str,
    /// How fast it is.
    pub pace: Box<dyn Pace + 'a>,
}

/// A peer whose every unit takes as long as its cost says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Steady {
    /// Seconds for one of [`Work::cost`]; `None` if nothing is known.
    pub seconds_per_cost: Option<f64>,
    /// Seconds there and back beside the bytes.
    pub overhead_s: f64,
    /// Bytes that the way takes in a second.
    pub bytes_per_second: f64,
    /// The largest cost of a unit that its memory suffices for.
    pub cost_max: u64,
    /// The model's shape, by which costs are counted.
    pub shape: ModelShape,
}

impl Steady {
    /// A peer of which nothing is known.
    pub fn unknown(shape: &ModelShape) -> Self {
        Self {
            seconds_per_cost: None,
            overhead_s: WAY_UNKNOWN.as_secs_f64(),
            bytes_per_second: f64::INFINITY,
            cost_max: u64::MAX,
            shape: *shape,
        }
    }
}

impl Pace for Steady {
    fn seconds(&self, work: &Work) -> f64 {
        self.seconds_per_cost.unwrap_or(SECONDS_PER_COST_UNKNOWN) * work.cost(&self.shape) as f64
    }

    fn way(&self, bytes: usize) -> f64 {
        self.overhead_s + bytes as f64 / self.bytes_per_second
    }

    fn fits(&self, work: &Work) -> bool {
        work.cost(&self.shape) <= self.cost_max
    }

    fn is_measured(&self) -> bool {
        self.seconds_per_cost.is_some()
    }
}

/// A lender as its requester has come to know it.
struct Lent<'a> {
    lender: &'a Lender,
    model: ModelId,
    shape: ModelShape,
    now: Instant,
    /// Seconds for one of cost where nothing is known of it: what is usual here.
    usual: f64,
    is_measured: bool,
}

impl Pace for Lent<'_> {
    fn seconds(&self, work: &Work) -> f64 {
        let known = self.lender.seconds(work, self.model, &self.shape, self.now);
        known.unwrap_or_else(|| self.usual * work.cost(&self.shape) as f64)
    }

    fn way(&self, bytes: usize) -> f64 {
        // What this process computes itself goes nowhere.
        if self.lender.standing().is_own { 0.0 } else { self.lender.overhead(bytes) }
    }

    fn fits(&self, work: &Work) -> bool {
        !self.lender.is_too_large(&Shape::of(work, self.model, &self.shape))
    }

    fn is_measured(&self) -> bool {
        self.is_measured
    }
}

/// Those of the roster who lend the job's model, in the order of their ids; who failed last is left out while there are
/// others. `step` is what most of the job consists of.
pub fn lenders<'a>(roster: &'a Roster, spec: &JobSpec, shape: &ModelShape, step: &Work, now: Instant) -> Vec<Peer<'a>> {
    let model = spec.model;
    let known = |lender: &Lender| lender.seconds(step, model, shape, now);
    let all: Vec<(&PeerId, &Lender)> = roster.lenders_of(model).collect();
    let cost = step.cost(shape).max(1) as f64;
    let mut paces: Vec<f64> =
        all.iter().filter_map(|(_, lender)| known(lender)).map(|seconds| seconds / cost).collect();
    paces.sort_by(f64::total_cmp);
    let usual = paces.get(paces.len() / 2).copied().unwrap_or(SECONDS_PER_COST_UNKNOWN);
    let is_any_sound = all.iter().any(|(_, lender)| !lender.is_suspect());
    all.into_iter()
        .filter(|(_, lender)| !is_any_sound || !lender.is_suspect())
        .map(|(id, lender)| Peer {
            id: id.clone(),
            class: lender.capabilities().numeric_class.as_str(),
            pace: Box::new(Lent { lender, model, shape: *shape, now, usual, is_measured: known(lender).is_some() }),
        })
        .collect()
}
