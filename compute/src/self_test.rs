//! A question with a known answer: an engine that answers it wrongly must not lend itself.

use protocol::{Branches, Hash, JobId, ModelId, Unit, UnitId, Work, tensor};
use sampler::noise::{self, Purpose};
use serde::{Deserialize, Serialize};

use crate::engine::{Diffusion, EngineError};
use crate::pace::{Free, Pace, finish};

/// Asked of the text encoder.
const PROMPT: &str = "mountains at sunset with a lake";

/// Side of the latent, in cells: small enough for a second on a slow processor.
const CELLS: u32 = 8;

/// Where in the noise schedule the UNet is asked.
const TIMESTEP: f32 = 500.0;

/// Decoded pixels kept in the answer, of all that there are: evenly spread.
const PIXELS_KEPT: usize = 256;

/// Largest difference, over the answer's largest value. Numeric classes differ by 1e-5, a broken kernel by much more.
const TOLERANCE: f64 = 1e-3;

/// Most values an answer may have: sixteen channels of the latent, and the pixels.
const VALUES_MAX: usize = 16 * (CELLS * CELLS) as usize + PIXELS_KEPT;

/// The answer: text encoder, UNet and decoder, each fed with what the one before gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfTest {
    /// The UNet's output.
    denoised: Vec<f32>,
    /// Some of the decoder's pixels.
    decoded: Vec<f32>,
}

/// Why an engine fails its test.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SelfTestError {
    /// It gave no answer.
    #[error("it could not compute the test: {0}")]
    Engine(#[from] EngineError),
    /// The answer known is for another model.
    #[error("the known answer is not one for this model")]
    Answer,
    /// It gave another answer.
    #[error("its {part} is off by {difference:.1e} of the largest value, where {TOLERANCE:.0e} is allowed")]
    Wrong {
        /// Which network's.
        part: &'static str,
        /// By how much, over the largest value known.
        difference: f64,
    },
}

impl SelfTest {
    /// The answer of `engine`, which must be known to be right.
    ///
    /// # Errors
    /// If the engine cannot compute it.
    pub async fn record(engine: &Diffusion, pace: &dyn Pace) -> Result<Self, EngineError> {
        let (model, shape) = engine.model();
        let unit = |work| unit(model, work);
        let text = unit(Work::Encode { prompt: PROMPT.into(), negative: None });
        let conditioning = engine.run(&text, &[], None, pace).await?;
        let latent = tensor::to_bytes(&noise::field(0, Purpose::Initial, 0, shape.latent_channels, CELLS, CELLS));
        let step = unit(Work::Denoise {
            conditioning: Hash::of(&conditioning),
            conditioning_rows: 1,
            branches: Branches::Prompt,
            timestep: TIMESTEP,
            rows: CELLS,
            columns: CELLS,
        });
        let denoised = engine.run(&step, &latent, Some(&conditioning), pace).await?;
        let decode = unit(Work::Decode { rows: CELLS, columns: CELLS });
        let pixels = values(&engine.run(&decode, &denoised, None, pace).await?);
        let every = pixels.len().div_ceil(PIXELS_KEPT);
        Ok(Self { denoised: values(&denoised), decoded: pixels.into_iter().step_by(every).collect() })
    }

    /// The answer of an engine on this machine's processor.
    ///
    /// # Errors
    /// If the engine cannot compute it.
    pub fn record_here(engine: &Diffusion) -> Result<Self, EngineError> {
        finish(Self::record(engine, &Free(&|| false)))
    }

    /// Asks `engine`; gives the largest difference found, over the largest value known.
    ///
    /// # Errors
    /// If it gives another answer or none.
    pub async fn judge(&self, engine: &Diffusion, pace: &dyn Pace) -> Result<f64, SelfTestError> {
        let sound = |values: &[f32]| !values.is_empty() && values.iter().all(|value| value.is_finite());
        if !sound(&self.denoised) || !sound(&self.decoded) || self.denoised.len() + self.decoded.len() > VALUES_MAX {
            return Err(SelfTestError::Answer);
        }
        let answer = Self::record(engine, pace).await?;
        let mut largest = 0.0;
        for (part, known, given) in
            [("denoising", &self.denoised, &answer.denoised), ("decoding", &self.decoded, &answer.decoded)]
        {
            if known.len() != given.len() {
                return Err(SelfTestError::Answer);
            }
            let difference = difference(known, given);
            if difference > TOLERANCE {
                return Err(SelfTestError::Wrong { part, difference });
            }
            largest = difference.max(largest);
        }
        Ok(largest)
    }
}

fn unit(model: ModelId, work: Work) -> Unit {
    Unit { job: JobId([0; 16]), id: UnitId { stage: 0, index: 0 }, model, work }
}

/// The values of an output, which has been checked.
fn values(bytes: &[u8]) -> Vec<f32> {
    tensor::from_bytes(bytes, bytes.len() / 4).expect("an engine's output has been checked")
}

fn difference(known: &[f32], given: &[f32]) -> f64 {
    let largest = known.iter().fold(f64::MIN_POSITIVE, |largest, &value| largest.max(f64::from(value).abs()));
    known.iter().zip(given).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs() / largest).fold(0.0, f64::max)
}
