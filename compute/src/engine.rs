//! What a worker's lane needs of whatever computes for it.

mod diffusion;
mod fake;

use protocol::tensor::{self, TensorError};
use protocol::unit::UnitError;
use protocol::{Hash, JobId, JobSpec, ModelId, ModelShape, PlanKind, Unit};
use sampler::{Painter, PainterError, Run, SchedulerConfig, Stage};

pub use diffusion::Diffusion;
pub use fake::Fake;

use crate::pace::Stop;
use crate::tokenizer::PromptError;

/// Computes units, one at a time.
///
/// Its results depend on nothing but the unit and its bodies: neither on what it computed before, nor on the number of
/// threads, nor on how units are grouped.
pub trait Engine: Send {
    /// Engines of one class give equal bits; those of different classes agree only to rounding.
    fn numeric_class(&self) -> String;

    /// The models it can compute.
    fn models(&self) -> Vec<(ModelId, ModelShape)>;

    /// Computes `unit` from its input body and, for denoising, the bytes of the conditioning it names; see
    /// [`protocol::Work`] for shapes. `cancelled` is asked often, and when it says so the work is given up.
    fn compute(
        &mut self,
        unit: &Unit,
        input: &[u8],
        conditioning: Option<&[u8]>,
        cancelled: Stop<'_>,
    ) -> Result<Vec<u8>, EngineError>;
}

/// Why a unit has no result.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// It is for a model that this engine does not have.
    #[error("this engine does not have the model {0}")]
    Model(ModelId),
    /// It is outside the limits.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// Its input body is not what it says.
    #[error("the unit's input: {0}")]
    Input(TensorError),
    /// Its conditioning is missing, or not the bytes it names.
    #[error("the unit's conditioning {0}")]
    Conditioning(&'static str),
    /// Its prompt cannot be encoded.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// Its picture cannot be painted.
    #[error(transparent)]
    Paint(#[from] PainterError),
    /// The network gave values that are not finite numbers of sane size.
    #[error("the network's output: {0}")]
    Output(TensorError),
    /// The device it ran on failed: it is lost, or out of memory.
    #[error("the device failed: {0}")]
    Device(String),
    /// The caller gave it up.
    #[error("the unit was cancelled")]
    Cancelled,
}

/// Checks all that is said of a unit before any of it is used; gives the values of its input.
fn check(
    unit: &Unit,
    (id, shape): (ModelId, &ModelShape),
    input: &[u8],
    conditioning: Option<&[u8]>,
) -> Result<Vec<f32>, EngineError> {
    if unit.model != id {
        return Err(EngineError::Model(unit.model));
    }
    unit.work.check(shape)?;
    if let Some((named, _)) = unit.work.conditioning() {
        let bytes = conditioning.ok_or(EngineError::Conditioning("is missing"))?;
        if Hash::of(bytes) != named {
            return Err(EngineError::Conditioning("is not the one it names"));
        }
    }
    tensor::from_bytes(input, unit.work.input_values(shape)).map_err(EngineError::Input)
}

/// Encodes the output of `unit`, if it is as long as its shape says and every value is sane.
fn to_output(unit: &Unit, shape: &ModelShape, values: &[f32]) -> Result<Vec<u8>, EngineError> {
    let bytes = tensor::to_bytes(values);
    tensor::from_bytes(&bytes, unit.work.output_values(shape)).map_err(EngineError::Output)?;
    Ok(bytes)
}

/// Paints a whole picture by computing the units of its plan; gives its latent, then its pixels.
async fn paint(
    job: JobId,
    spec: &JobSpec,
    shape: &ModelShape,
    scheduler: &SchedulerConfig,
    mut compute: impl AsyncFnMut(&Unit, &[u8], Option<&[u8]>) -> Result<Vec<u8>, EngineError>,
) -> Result<Vec<f32>, EngineError> {
    let mut painter = Painter::new(job, spec.clone(), *shape, scheduler, PlanKind::CfgTiles)?;
    while painter.stage() != Stage::Done {
        for unit in painter.units() {
            if !painter.is_wanted(unit.id) {
                continue;
            }
            let conditioning = painter.conditioning().map(|(_, bytes)| bytes);
            let conditioning = conditioning.filter(|_| unit.work.conditioning().is_some());
            let output = compute(&unit, &painter.input(unit.id), conditioning).await?;
            painter.accept(unit.id, &output).map_err(EngineError::Output)?;
        }
        painter.advance();
    }
    let image = painter.image().expect("a painting that ends without an error has a picture");
    Ok([painter.latent(), image].concat())
}

/// Takes the steps of a run by computing their passes; gives its latent, then what is remembered.
async fn take_steps(
    mut run: Run,
    conditioning: Option<&[u8]>,
    mut compute: impl AsyncFnMut(&Unit, &[u8], Option<&[u8]>) -> Result<Vec<u8>, EngineError>,
) -> Result<Vec<f32>, EngineError> {
    while let Some((unit, input)) = run.next_pass() {
        let output = compute(&unit, &input, conditioning).await?;
        run.accept(&output).map_err(EngineError::Output)?;
    }
    Ok(run.output())
}
