//! The stages of a job under each kind of plan, and what their units cost.

use std::collections::BTreeMap;

use protocol::limits::HISTORY_TENSORS_MAX;
use protocol::unit::UnitError;
use protocol::{Branches, Hash, JobSpec, ModelShape, PeerId, PlanKind, Size, Steps, Work};

use super::{Cut, Task};

/// One stage, or several alike.
#[derive(Clone, Debug, PartialEq)]
pub struct StagePlan {
    /// What its units do.
    pub kind: StageKind,
    /// How many stages of this kind follow each other.
    pub times: usize,
    /// Units of each, at most [`protocol::limits::STAGE_UNITS_MAX`].
    pub units: usize,
    /// Bytes of tensors to and from workers for one unit, without the conditioning.
    pub unit_bytes: usize,
    /// Cost of one unit, as [`Work::cost`] counts it.
    pub unit_cost: u64,
    /// Seconds that one such stage of every picture is expected to take; infinite if nobody can.
    pub seconds: f64,
    /// Who is expected to get units, in the order of ids.
    pub peers: Vec<PeerId>,
    /// What one of its units does.
    pub(super) work: Work,
    /// The evaluations that make up a unit, and how often each is made.
    pub(super) parts: Vec<(Work, usize)>,
}

/// What the units of a stage do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageKind {
    /// Prompt to conditioning.
    Encode,
    /// One denoising step.
    Denoise,
    /// Several denoising steps.
    Run,
    /// Latent to pixels.
    Decode,
    /// All of it in one unit.
    Paint,
}

/// Tiles of an upscaled picture: each is enlarged by `factor` with a network that sees so many pixels of its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpscaleTiles {
    /// How many.
    pub tiles: usize,
    /// Bytes of RGB f32 there and back, of each.
    pub tile_bytes: usize,
}

impl UpscaleTiles {
    /// Side of a tile in pixels before it is enlarged.
    const SIDE_PIXELS: u32 = 256;
    /// Pixels that neighbouring tiles share, before they are enlarged.
    const OVERLAP_PIXELS: u32 = 32;

    /// The tiles of a picture of `size` that is to have `factor` times its width and height.
    pub fn of(size: Size, factor: u32) -> Self {
        let stride = Self::SIDE_PIXELS - Self::OVERLAP_PIXELS;
        let along = |side: u32| 1 + side.saturating_sub(Self::SIDE_PIXELS).div_ceil(stride) as usize;
        let pixels = size.width.min(Self::SIDE_PIXELS) as usize * size.height.min(Self::SIDE_PIXELS) as usize;
        let enlarged = pixels.saturating_mul(factor as usize).saturating_mul(factor as usize);
        Self { tiles: along(size.width) * along(size.height), tile_bytes: 12 * pixels.saturating_add(enlarged) }
    }
}

/// What is left to do of a job that is cut as `kind` says; nobody is planned in yet.
pub fn stages(kind: PlanKind, task: &Task<'_>) -> Result<Vec<StagePlan>, UnitError> {
    let (spec, shape) = (task.spec, task.shape);
    if kind == PlanKind::Whole {
        let pieces = stages(PlanKind::Tiles, task)?;
        let mut whole = stage(StageKind::Paint, 1, 1, Work::Paint { spec: Box::new(spec.clone()) }, shape)?;
        whole.parts = pieces.into_iter().map(|stage| (stage.work, stage.times * stage.units)).collect();
        return Ok(vec![whole]);
    }
    let mut stages = Vec::new();
    if task.steps_done.is_none() {
        let negative = spec.guided().then(|| spec.negative.clone());
        stages.push(stage(StageKind::Encode, 1, 1, Work::Encode { prompt: spec.prompt.clone(), negative }, shape)?);
    }
    let done = task.steps_done.unwrap_or(0);
    // What is alike is counted together: its order does not matter here.
    let both = if spec.guided() { Branches::Both } else { Branches::Prompt };
    for (size, times) in match kind {
        PlanKind::Runs { steps } => counted(runs(done, spec.steps, steps)),
        PlanKind::Whole | PlanKind::Cfg | PlanKind::Tiles | PlanKind::CfgTiles => {
            counted(task.cut.tiles[done as usize..].iter().copied())
        }
    } {
        stages.push(match kind {
            PlanKind::Runs { .. } => StagePlan {
                parts: vec![(step(spec, shape, both), size)],
                ..stage(StageKind::Run, times, 1, run(spec, shape, size as u32), shape)?
            },
            PlanKind::Cfg | PlanKind::CfgTiles => {
                stage(StageKind::Denoise, times, 2 * size, step(spec, shape, Branches::Prompt), shape)?
            }
            PlanKind::Whole | PlanKind::Tiles => {
                stage(StageKind::Denoise, times, size, step(spec, shape, both), shape)?
            }
        });
    }
    let (rows, columns) = region(spec, shape, spec.layout.decode_tiles.map(|tiling| tiling.tile));
    stages.push(stage(StageKind::Decode, 1, task.cut.decode_tiles, Work::Decode { rows, columns }, shape)?);
    Ok(stages)
}

impl Cut {
    /// Most tiles of a step.
    pub(super) fn tiles_max(&self) -> usize {
        self.tiles.iter().copied().max().unwrap_or(0)
    }
}

fn stage(kind: StageKind, times: usize, units: usize, work: Work, shape: &ModelShape) -> Result<StagePlan, UnitError> {
    work.check(shape)?;
    let unit_bytes = 4 * (work.input_values(shape) + work.output_values(shape));
    let unit_cost = work.cost(shape);
    let parts = vec![(work.clone(), 1)];
    Ok(StagePlan { kind, times, units, unit_bytes, unit_cost, seconds: f64::INFINITY, peers: Vec::new(), work, parts })
}

/// Lengths of the runs from step `done` on: runs end where they would if the job had begun with them.
fn runs(done: u32, steps: u32, each: u32) -> impl Iterator<Item = usize> {
    let each = each.clamp(1, steps);
    let mut at = done;
    std::iter::from_fn(move || {
        let end = ((at / each + 1) * each).min(steps);
        let length = end.checked_sub(at).filter(|length| *length > 0)?;
        at = end;
        Some(length as usize)
    })
}

fn counted(sizes: impl Iterator<Item = usize>) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    sizes.for_each(|size| *counts.entry(size).or_default() += 1);
    counts
}

/// What most of a job consists of: a step of one tile, or of the canvas.
pub fn any_step(spec: &JobSpec, shape: &ModelShape) -> Work {
    step(spec, shape, Branches::Prompt)
}

fn step(spec: &JobSpec, shape: &ModelShape, branches: Branches) -> Work {
    let (rows, columns) = region(spec, shape, spec.layout.tiles.side());
    let conditioning_rows = 1 + u32::from(spec.guided());
    Work::Denoise { conditioning: any_hash(), conditioning_rows, branches, timestep: 0.0, rows, columns }
}

fn run(spec: &JobSpec, shape: &ModelShape, count: u32) -> Work {
    let (rows, columns) = spec.size.cells(shape);
    Work::Run {
        conditioning: any_hash(),
        guidance: spec.guidance,
        wire: spec.layout.wire,
        steps: Steps { first: spec.steps - count, count, in_all: spec.steps },
        history: HISTORY_TENSORS_MAX as u32,
        rows,
        columns,
    }
}

fn region(spec: &JobSpec, shape: &ModelShape, side: Option<u32>) -> (u32, u32) {
    let (rows, columns) = spec.size.cells(shape);
    side.map_or((rows, columns), |side| (rows.min(side), columns.min(side)))
}

/// What a unit costs does not depend on which conditioning it names.
fn any_hash() -> Hash {
    Hash::from_bytes([0; 32])
}
