//! An engine for tests and measurements: any shape, no weights, a fixed time for every unit, and outputs that are a pure
//! function of the unit's bytes.

use std::time::{Duration, Instant};

use protocol::{Branches, Hash, ModelId, ModelShape, Unit, Work};
use sampler::{Run, SchedulerConfig};

use super::{Engine, EngineError, check, paint, take_steps, to_output};
use crate::pace::{Stop, finish};

/// How long it waits before it asks again whether it is cancelled: often enough for who waits for that, and seldom enough not to
/// burden a machine on which many of them are measured.
const PAUSE: Duration = Duration::from_millis(20);

/// The noise schedule of whole pictures, for want of a model that says one.
const SCHEDULER: &str = r#"{
    "_class_name": "EulerDiscreteScheduler", "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "prediction_type": "epsilon", "timestep_spacing": "trailing", "steps_offset": 1
}"#;

/// An engine that waits instead of computing.
pub struct Fake {
    id: ModelId,
    shape: ModelShape,
    cost: Duration,
    scheduler: SchedulerConfig,
}

impl Fake {
    /// An engine for one model, whose every unit takes `cost`. A whole picture, or a run of steps, takes as long as the units it
    /// stands for.
    pub fn new(id: ModelId, shape: ModelShape, cost: Duration) -> Self {
        let scheduler = SchedulerConfig::parse(SCHEDULER).expect("the constant is a supported scheduler");
        Self { id, shape, cost, scheduler }
    }

    /// The schedule of its whole pictures, for whoever paints the same picture from smaller units.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// Occupies the calling thread until the cost of a unit is spent, as computing would.
    fn wait(&self, began: Instant, cancelled: Stop<'_>) -> Result<(), EngineError> {
        loop {
            if cancelled() {
                return Err(EngineError::Cancelled);
            }
            let left = self.cost.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(PAUSE));
        }
    }
}

impl Engine for Fake {
    fn numeric_class(&self) -> String {
        "fake".into()
    }

    fn models(&self) -> Vec<(ModelId, ModelShape)> {
        vec![(self.id, self.shape)]
    }

    fn compute(
        &mut self,
        unit: &Unit,
        input: &[u8],
        conditioning: Option<&[u8]>,
        cancelled: Stop<'_>,
    ) -> Result<Vec<u8>, EngineError> {
        // The answer's own making is part of the cost.
        let began = Instant::now();
        let shape = self.shape;
        let checked = check(unit, (self.id, &shape), input, conditioning)?;
        let values = match &unit.work {
            Work::Encode { .. } | Work::Denoise { .. } | Work::Decode { .. } => {
                let passes = passes(&unit.work);
                let values = unit.work.output_values(&shape) / passes.len();
                let bodies = [input, conditioning.unwrap_or_default()].map(Hash::of);
                let values: Vec<Vec<f32>> = passes.iter().map(|pass| stand_in(pass, bodies, values)).collect();
                let values = values.concat();
                let output = to_output(unit, &shape, &values);
                self.wait(began, cancelled)?;
                return output;
            }
            Work::Run { .. } => {
                let run = Run::new(unit, &shape, &self.scheduler, checked)?;
                let compute = async |unit: &Unit, input: &[u8], conditioning: Option<&[u8]>| {
                    self.compute(unit, input, conditioning, cancelled)
                };
                finish(take_steps(run, conditioning, compute))?
            }
            Work::Paint { spec } => {
                let scheduler = self.scheduler.clone();
                let compute = async |unit: &Unit, input: &[u8], conditioning: Option<&[u8]>| {
                    self.compute(unit, input, conditioning, cancelled)
                };
                finish(paint(unit.job, spec, &shape, &scheduler, compute))?
            }
        };
        to_output(unit, &shape, &values)
    }
}

/// The work, one guidance branch at a time: a branch's output does not depend on what else is asked for.
fn passes(work: &Work) -> Vec<Work> {
    let Work::Denoise { conditioning, conditioning_rows, branches: Branches::Both, timestep, rows, columns } = *work
    else {
        return vec![work.clone()];
    };
    [Branches::Negative, Branches::Prompt]
        .map(|branches| Work::Denoise { conditioning, conditioning_rows, branches, timestep, rows, columns })
        .to_vec()
}

/// `count` values in [-1, 1] that depend on every byte of the work and its bodies, and on neither its job nor its place in it.
fn stand_in(work: &Work, [input, conditioning]: [Hash; 2], count: usize) -> Vec<f32> {
    let work = serde_json::to_vec(work).expect("work is plain data");
    let parts = [Hash::of(&work), input, conditioning];
    let seed = Hash::of(&parts.map(|part| *part.as_bytes()).concat());
    let mut state = u64::from_le_bytes(seed.as_bytes()[..8].try_into().expect("a hash has 32 bytes"));
    let mut next = || {
        // SplitMix64 (Steele, Lea and Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}
