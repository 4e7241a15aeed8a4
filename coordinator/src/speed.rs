//! How fast a worker is: what it claims at first, then what its deliveries show.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::limits::SPEED_BELIEVED;
use protocol::{Footprint, Instant, ModelId, ModelShape, Pilot, Work};

/// Weight of what was known in the running mean of seconds a unit takes (EWMA).
const KEPT: f64 = 0.8;

/// Unit shapes remembered of one worker.
const SHAPES_MAX: usize = 32;

/// A worker that says it is throttled is taken to be this much slower than it was.
const THROTTLED: f64 = 2.0;

/// What units of one shape have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    cost: u64,
    kind: Kind,
    model: ModelId,
    footprint: Footprint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Encode,
    Denoise,
    Run,
    Decode,
    Paint,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    seconds: f64,
    at: Instant,
}

/// One worker's speeds. All times are in seconds.
#[derive(Clone, Debug, Default)]
pub struct Speed {
    measured: BTreeMap<Shape, Measured>,
    /// Seconds for one of [`Work::cost`], as the worker claims.
    claimed: BTreeMap<ModelId, f64>,
    is_throttled: bool,
    /// What a unit costs beside computing: its way there and back, when nothing else is under way.
    overhead: Option<f64>,
}

impl Speed {
    /// Takes what the worker says of itself.
    pub fn claim(&mut self, pilots: &[Pilot], is_throttled: bool) {
        let seconds = |pilot: &Pilot| pilot.nanoseconds_per_cost.clamp(1, 1_000_000_000_000) as f64 / 1e9;
        self.claimed = pilots.iter().map(|pilot| (pilot.model, seconds(pilot))).collect();
        if is_throttled != self.is_throttled {
            self.is_throttled = is_throttled;
            let factor = if is_throttled { THROTTLED } else { 1.0 / THROTTLED };
            for measured in self.measured.values_mut() {
                measured.seconds *= factor;
            }
        }
    }

    /// Notes that a unit took `seconds`. A worker that takes more than twice what it took is believed to be slow at once.
    pub fn measure(&mut self, key: Shape, seconds: f64, now: Instant) {
        let before = self.measured.get(&key).map(|measured| measured.seconds);
        let seconds = match before {
            None => seconds,
            Some(before) if seconds > 2.0 * before => seconds / 2.0,
            Some(before) => KEPT * before + (1.0 - KEPT) * seconds,
        };
        if before.is_none() && self.measured.len() >= SHAPES_MAX {
            let oldest = self.measured.iter().min_by_key(|(_, measured)| measured.at).map(|(key, _)| *key);
            oldest.and_then(|key| self.measured.remove(&key));
        }
        self.measured.insert(key, Measured { seconds, at: now });
    }

    /// Notes that a unit took `seconds` on its way there and back.
    pub fn measure_overhead(&mut self, seconds: f64) {
        self.overhead = Some(self.overhead.map_or(seconds, |before| KEPT * before + (1.0 - KEPT) * seconds));
    }

    /// Seconds that the unit will take to compute: as measured, or scaled from the measured unit nearest in cost, or as
    /// claimed. `None` if nothing is known. What was measured long ago is half forgotten, so that a worker that was slow
    /// gets another chance.
    pub fn seconds(&self, key: &Shape, now: Instant) -> Option<f64> {
        let claimed = || {
            let factor = if self.is_throttled { THROTTLED } else { 1.0 };
            self.claimed.get(&key.model).map(|seconds| seconds * key.cost as f64 * factor)
        };
        let nearest = self.measured.get_key_value(key).or_else(|| {
            let like = self.measured.iter().filter(|(known, _)| known.model == key.model && known.kind == key.kind);
            like.min_by_key(|(known, _)| known.cost.abs_diff(key.cost))
        });
        let Some((known, measured)) = nearest else { return claimed() };
        let seconds = measured.seconds * key.cost as f64 / known.cost.max(1) as f64;
        if now - measured.at > SPEED_BELIEVED {
            return Some((seconds + claimed().unwrap_or(0.0).min(seconds)) / 2.0);
        }
        Some(seconds)
    }

    /// Seconds for a unit's way there and back, if measured.
    pub fn overhead(&self) -> Option<f64> {
        self.overhead
    }
}

impl Shape {
    /// The shape of a unit.
    pub fn of(work: &Work, model: ModelId, shape: &ModelShape) -> Self {
        let kind = match work {
            Work::Encode { .. } => Kind::Encode,
            Work::Denoise { .. } => Kind::Denoise,
            Work::Run { .. } => Kind::Run,
            Work::Decode { .. } => Kind::Decode,
            Work::Paint { .. } => Kind::Paint,
        };
        Self { model, kind, cost: work.cost(shape), footprint: work.footprint(shape) }
    }

    /// Its model.
    pub fn model(&self) -> ModelId {
        self.model
    }

    /// What its memory grows with.
    pub fn footprint(&self) -> Footprint {
        self.footprint
    }

    /// Its cost, as [`Work::cost`] counts it.
    pub fn cost(&self) -> u64 {
        self.cost
    }
}

/// Seconds since the driver's origin.
pub(crate) fn seconds(at: Instant) -> f64 {
    (at - Instant::ZERO).as_secs_f64()
}

/// The first instant that is not before that many seconds since the driver's origin.
pub(crate) fn after(seconds: f64) -> Instant {
    let since = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    Instant::ZERO + since + Duration::from_micros(1)
}

#[cfg(test)]
mod tests {
    use protocol::Hash;

    use super::*;

    const SHAPE: ModelShape =
        ModelShape { latent_channels: 2, factor: 2, native_cells: 4, tokens: 3, embedding_width: 4 };

    fn decode(cells: u32) -> Work {
        Work::Decode { rows: 1, columns: cells }
    }

    fn key(cells: u32) -> Shape {
        Shape::of(&decode(cells), model(), &SHAPE)
    }

    fn model() -> ModelId {
        ModelId(Hash::of(b"model"))
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn a_claim_holds_until_something_is_measured() {
        let mut speed = Speed::default();
        assert_eq!(speed.seconds(&key(4), at(0)), None);
        speed.claim(&[Pilot { model: model(), nanoseconds_per_cost: 500_000_000 }], false);
        assert_eq!(speed.seconds(&key(4), at(0)), Some(2.0));
        speed.measure(key(4), 8.0, at(1));
        assert_eq!(speed.seconds(&key(4), at(1)), Some(8.0));
        assert_eq!(speed.seconds(&key(2), at(1)), Some(4.0), "scaled to the unit");
        assert_eq!(speed.seconds(&key(4), at(60)), Some(5.0), "half forgotten");
    }

    #[test]
    fn a_sudden_stall_is_believed_faster_than_a_slow_drift() {
        let mut speed = Speed::default();
        for _ in 0..10 {
            speed.measure(key(4), 1.0, at(1));
        }
        speed.measure(key(4), 1.5, at(1));
        assert!((speed.seconds(&key(4), at(1)).unwrap() - 1.1).abs() < 1e-9);
        speed.measure(key(4), 8.0, at(1));
        assert_eq!(speed.seconds(&key(4), at(1)), Some(4.0));
    }

    #[test]
    fn who_is_throttled_counts_as_slower_until_it_says_otherwise() {
        let mut speed = Speed::default();
        speed.measure(key(4), 1.0, at(1));
        speed.claim(&[], true);
        speed.claim(&[], true);
        assert_eq!(speed.seconds(&key(4), at(1)), Some(2.0));
        speed.claim(&[], false);
        assert_eq!(speed.seconds(&key(4), at(1)), Some(1.0));
    }

    #[test]
    fn memory_of_shapes_is_bounded() {
        let mut speed = Speed::default();
        for cells in 1..100 {
            speed.measure(key(cells), 1.0, at(u64::from(cells)));
        }
        assert_eq!(speed.measured.len(), SHAPES_MAX);
    }
}
