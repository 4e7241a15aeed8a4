//! Who is in the room and lends: capabilities, standing, and the leases each holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use protocol::limits::{BLOBS_MAX, LEASES_PER_WORKER, PAUSE_MAX, REFUSAL_PAUSE, ROOM_PEERS_MAX};
use protocol::{Capabilities, Footprint, Hash, Instant, LeaseId, ModelId, ModelShape, Part, PeerId, Work};

use crate::mutants::{Mutant, is};
use crate::speed::{Shape, Speed};
use crate::trust::Standing;

/// What a unit's way there and back is taken to cost before it is measured, in seconds.
const OVERHEAD_UNKNOWN: f64 = 0.005;

/// Leases that a worker is given before anything is known of it.
const WINDOW_BEGIN: usize = 2;

/// The workers that a requester knows, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    lenders: BTreeMap<PeerId, Lender>,
}

/// One worker as its requester sees it.
#[derive(Clone, Debug)]
pub struct Lender {
    capabilities: Capabilities,
    since: Instant,
    units_delivered: u64,
    failures: u64,
    failures_in_row: u32,
    paused_until: Option<Instant>,
    lacks: BTreeSet<ModelId>,
    stored: VecDeque<Hash>,
    standing: Standing,
    speed: Speed,
    /// Round trip and bytes per second of its path, as the driver knows them.
    path: Option<(Duration, f64)>,
    /// The smallest cost of a unit of a model for which its memory did not suffice.
    too_large: BTreeMap<(ModelId, Option<Part>), u64>,
    /// Leases it may hold; halved when it is late or out of memory, and grown back by deliveries.
    window: usize,
    refusals_in_row: u32,
    /// Deliveries in a row that proved right.
    valid_in_row: u32,
    /// When it last delivered.
    pub(crate) delivered: Option<Instant>,
    /// The question whether it lives, if it has said nothing since.
    pub(crate) probed: Option<Probed>,
    pub(crate) outlook: Outlook,
    /// Live leases, the oldest first: the worker computes them in this order, so all but the first are prefetched.
    pub(crate) leases: Vec<LeaseId>,
}

/// What follows from the leases of a worker, in seconds since the driver's origin; renewed when they change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outlook {
    /// When the running unit should be done.
    pub(crate) first_end: f64,
    /// When all should be.
    pub(crate) free_at: f64,
    /// When the running unit is late.
    pub(crate) hedge_at: f64,
    /// When its worker must have stalled.
    pub(crate) stall_at: f64,
}

impl Default for Outlook {
    /// Of a worker without leases.
    fn default() -> Self {
        let never = f64::INFINITY;
        Self { first_end: never, free_at: f64::NEG_INFINITY, hedge_at: never, stall_at: never }
    }
}

/// A question whether a worker lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probed {
    pub(crate) lease: LeaseId,
    pub(crate) asked: Instant,
    pub(crate) times: u32,
}

/// Why a peer is not taken into the roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// Some part of its capabilities is over its limit.
    #[error("its capabilities are over the limits")]
    Unsound,
    /// The room has [`ROOM_PEERS_MAX`] lenders.
    #[error("the room is full ({ROOM_PEERS_MAX} peers)")]
    Full,
}

impl Roster {
    /// An empty room.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a peer that offers its processor. A second offer replaces its capabilities and keeps its standing.
    pub fn admit(&mut self, peer: PeerId, capabilities: Capabilities, now: Instant) -> Result<(), AdmitError> {
        if !capabilities.is_sound() {
            return Err(AdmitError::Unsound);
        }
        if let Some(lender) = self.lenders.get_mut(&peer) {
            lender.speed.claim(&capabilities.pilots, capabilities.throttled);
            lender.capabilities = capabilities;
            return Ok(());
        }
        if self.lenders.len() >= ROOM_PEERS_MAX {
            return Err(AdmitError::Full);
        }
        let lender = Lender::new(capabilities, Standing::alone(&peer), now);
        self.lenders.insert(peer, lender);
        Ok(())
    }

    /// Forgets a peer, and with it its standing.
    pub fn remove(&mut self, peer: &PeerId) {
        self.lenders.remove(peer);
    }

    /// The lender of this id.
    pub fn lender(&self, peer: &PeerId) -> Option<&Lender> {
        self.lenders.get(peer)
    }

    /// All lenders, in the order of their ids.
    pub fn lenders(&self) -> impl ExactSizeIterator<Item = (&PeerId, &Lender)> {
        self.lenders.iter()
    }

    /// The lenders of one model, paused ones included, in the order of their ids.
    pub fn lenders_of(&self, model: ModelId) -> impl Iterator<Item = (&PeerId, &Lender)> {
        self.lenders.iter().filter(move |(_, lender)| lender.lends(model))
    }

    pub(crate) fn lender_mut(&mut self, peer: &PeerId) -> Option<&mut Lender> {
        self.lenders.get_mut(peer)
    }

    pub(crate) fn end_pauses(&mut self, now: Instant) {
        for lender in self.lenders.values_mut() {
            lender.paused_until = lender.paused_until.filter(|until| *until > now || is(Mutant::PausesForGood));
        }
    }

    pub(crate) fn next_pause_end(&self) -> Option<Instant> {
        self.lenders.values().filter_map(|lender| lender.paused_until).min()
    }
}

impl Lender {
    fn new(capabilities: Capabilities, standing: Standing, since: Instant) -> Self {
        let mut speed = Speed::default();
        speed.claim(&capabilities.pilots, capabilities.throttled);
        Self {
            capabilities,
            standing,
            speed,
            path: None,
            too_large: BTreeMap::new(),
            window: WINDOW_BEGIN,
            refusals_in_row: 0,
            valid_in_row: 0,
            delivered: None,
            probed: None,
            outlook: Outlook::default(),
            since,
            units_delivered: 0,
            failures: 0,
            failures_in_row: 0,
            paused_until: None,
            lacks: BTreeSet::new(),
            stored: VecDeque::new(),
            leases: Vec::new(),
        }
    }

    /// What it offered last. Its name is untrusted text.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// When it first offered.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Sound deliveries so far.
    pub fn units_delivered(&self) -> u64 {
        self.units_delivered
    }

    /// Failed units, wrong bodies and stalls so far.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Leases it holds.
    pub fn leases_held(&self) -> usize {
        self.leases.len()
    }

    /// Until when it is not asked, if it is paused.
    pub fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Whether it offered the model and never refused it as unknown.
    pub fn lends(&self, model: ModelId) -> bool {
        self.capabilities.models.contains(&model) && !self.lacks.contains(&model)
    }

    /// Whether it is not asked at this time.
    pub fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// Whom it may belong to, and whether it is the requester's own.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Deliveries in a row that proved right: another domain, or an own device, gave the same answer.
    pub fn valid_in_row(&self) -> u32 {
        self.valid_in_row
    }

    /// Seconds that the work will take it to compute, as measured, or else as claimed; `None` if nothing is known.
    pub fn seconds(&self, work: &Work, model: ModelId, shape: &ModelShape, now: Instant) -> Option<f64> {
        self.seconds_of(&Shape::of(work, model, shape), now)
    }

    /// The same of a unit whose shape is known.
    pub(crate) fn seconds_of(&self, key: &Shape, now: Instant) -> Option<f64> {
        self.speed.seconds(key, now)
    }

    /// Seconds that a unit of `bytes` spends on its way there and back.
    pub fn overhead(&self, bytes: usize) -> f64 {
        let by_path = self
            .path
            .map(|(round_trip, bytes_per_second)| round_trip.as_secs_f64() + bytes as f64 / bytes_per_second.max(1.0));
        self.speed.overhead().or(by_path).unwrap_or(OVERHEAD_UNKNOWN)
    }

    /// Whether a unit of this shape is as large as one for which its memory did not suffice.
    pub fn is_too_large(&self, key: &Shape) -> bool {
        let Footprint { part, cells } = key.footprint();
        self.too_large.get(&(key.model(), part)).is_some_and(|smallest| *smallest <= cells)
    }

    /// Whether it is paused because it failed, not because it was busy (true until the requester hears that time has
    /// passed), or does not answer the question whether it lives.
    pub(crate) fn is_suspect(&self) -> bool {
        self.failures_in_row > 0 && self.paused_until.is_some() || self.probed.is_some()
    }

    pub(crate) fn stand(&mut self, standing: Standing) {
        self.standing = standing;
    }

    pub(crate) fn take_path(&mut self, round_trip: Duration, bytes_per_second: f64) {
        self.path = Some((round_trip, bytes_per_second));
    }

    pub(crate) fn speed_mut(&mut self) -> &mut Speed {
        &mut self.speed
    }

    /// Leases it may hold where a unit takes `seconds` and spends `overhead` on its way: one that runs, and as many as
    /// cover the way of the next.
    pub(crate) fn window(&self, seconds: f64, overhead: f64) -> usize {
        if self.failures_in_row > 0 {
            return 1; // Nothing in advance for a worker that failed last.
        }
        let cover = if seconds > 0.0 { (overhead / seconds).min(LEASES_PER_WORKER as f64) as usize } else { 0 };
        self.window.min(WINDOW_BEGIN + cover).min(LEASES_PER_WORKER)
    }

    /// It was late, or short of memory.
    pub(crate) fn shrink_window(&mut self) {
        self.window = (self.window / 2).max(1);
    }

    pub(crate) fn note_too_large(&mut self, key: &Shape) {
        let Footprint { part, cells } = key.footprint();
        let smallest = self.too_large.entry((key.model(), part)).or_insert(cells);
        *smallest = cells.min(*smallest);
        self.shrink_window();
    }

    /// A refusal without blame; returns whether it is one too many.
    pub(crate) fn count_refusal(&mut self) -> bool {
        self.refusals_in_row += 1;
        self.refusals_in_row > protocol::limits::REFUSALS_IN_ROW_MAX
    }

    pub(crate) fn count_valid(&mut self) {
        self.valid_in_row = self.valid_in_row.saturating_add(1);
    }

    pub(crate) fn doubt(&mut self) {
        self.valid_in_row = 0;
    }

    pub(crate) fn failures_in_row(&self) -> u32 {
        self.failures_in_row
    }

    pub(crate) fn count_delivery(&mut self) {
        self.units_delivered += 1;
        self.failures_in_row = 0;
        self.refusals_in_row = 0;
        self.window = (self.window + 1).min(LEASES_PER_WORKER);
    }

    /// Takes back its last failure: the unit was at fault.
    pub(crate) fn forgive(&mut self) {
        self.failures = self.failures.saturating_sub(1);
        self.failures_in_row = self.failures_in_row.saturating_sub(1);
        self.paused_until = None;
    }

    /// Takes back a delivery that proved unsound: it did not end the row of failures that stood before it.
    pub(crate) fn uncount_delivery(&mut self, failures_in_row: u32) {
        self.units_delivered = self.units_delivered.saturating_sub(1);
        self.failures_in_row = self.failures_in_row.max(failures_in_row);
    }

    /// Pauses it, twice as long with every failure in a row.
    pub(crate) fn count_failure(&mut self, now: Instant) {
        self.failures += 1;
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        self.shrink_window();
        let doublings = (self.failures_in_row - 1).min(16);
        self.pause(REFUSAL_PAUSE.saturating_mul(1 << doublings).min(PAUSE_MAX), now);
    }

    /// Pauses it for at least `pause`.
    pub(crate) fn pause(&mut self, pause: Duration, now: Instant) {
        self.paused_until = self.paused_until.max(Some(now + pause));
    }

    pub(crate) fn note_lacking(&mut self, model: ModelId) {
        self.lacks.insert(model);
    }

    /// Notes that the blob is on its way; returns whether it was not before.
    pub(crate) fn store(&mut self, blob: Hash) -> bool {
        if self.stored.contains(&blob) {
            return false;
        }
        if self.stored.len() >= BLOBS_MAX {
            self.stored.pop_front();
        }
        self.stored.push_back(blob);
        true
    }

    pub(crate) fn unstore(&mut self, blob: Hash) {
        self.stored.retain(|stored| *stored != blob);
    }
}

#[cfg(test)]
mod tests {
    use protocol::limits::NAME_BYTES_MAX;

    use super::*;

    fn capabilities() -> Capabilities {
        Capabilities::new("ada", "cpu")
    }

    fn peer(index: usize) -> PeerId {
        PeerId::new(format!("peer{index:03}")).unwrap()
    }

    #[test]
    fn a_full_room_and_unsound_capabilities_are_refused() {
        let mut roster = Roster::new();
        let boast = Capabilities { name: "x".repeat(NAME_BYTES_MAX + 1), ..capabilities() };
        assert_eq!(roster.admit(peer(0), boast.clone(), Instant::ZERO), Err(AdmitError::Unsound));
        for index in 0..ROOM_PEERS_MAX {
            assert_eq!(roster.admit(peer(index), capabilities(), Instant::ZERO), Ok(()));
        }
        assert_eq!(roster.admit(peer(ROOM_PEERS_MAX), capabilities(), Instant::ZERO), Err(AdmitError::Full));
        assert_eq!(roster.admit(peer(0), capabilities(), Instant::ZERO), Ok(()), "a second offer needs no place");
        assert_eq!(roster.admit(peer(0), boast, Instant::ZERO), Err(AdmitError::Unsound));
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_end_with_a_delivery() {
        let mut lender = Lender::new(capabilities(), Standing::alone(&peer(0)), Instant::ZERO);
        let pause = |lender: &mut Lender| {
            lender.paused_until = None;
            lender.count_failure(Instant::ZERO);
            lender.paused_until.unwrap() - Instant::ZERO
        };
        assert_eq!(pause(&mut lender), REFUSAL_PAUSE);
        assert_eq!(pause(&mut lender), REFUSAL_PAUSE * 2);
        assert_eq!(pause(&mut lender), REFUSAL_PAUSE * 4);
        for _ in 0..100 {
            pause(&mut lender);
        }
        assert_eq!(pause(&mut lender), PAUSE_MAX);
        let before = lender.failures_in_row();
        lender.count_delivery();
        assert_eq!(pause(&mut lender), REFUSAL_PAUSE);
        lender.uncount_delivery(before);
        assert_eq!(pause(&mut lender), PAUSE_MAX, "an unsound delivery clears no record");
    }
}
