//! Cuts a job into stages and units: a pure function of the job, the model's shape and the plan's kind.

use std::borrow::Cow;

use protocol::unit::UnitError;
use protocol::{Branches, Hash, JobId, JobSpec, ModelShape, PlanKind, Steps, Tiles, Work};

use super::Stage;
use crate::canvas::Grid;

/// Stages beside the denoising ones: encoding before, decoding after.
const STAGES_AROUND_STEPS: u32 = 2;

/// What the units of a job follow from.
#[derive(Clone, Debug)]
pub struct Units {
    pub job: JobId,
    pub spec: JobSpec,
    pub shape: ModelShape,
    pub kind: PlanKind,
    /// Tiles of the steps, in latent cells.
    pub tiles: StepTiles,
    /// Tiles of the decoder, in latent cells.
    pub decode_tiles: Grid,
    pub timesteps: Vec<f32>,
    /// Tensors that the schedule remembers.
    pub history: u32,
    /// Steps that were taken before the painting went on; a run of steps that began before is only finished.
    pub from_step: u32,
}

/// The tiles of every step.
#[derive(Clone, Debug)]
pub enum StepTiles {
    Same(Grid),
    Shifted { rows: u32, columns: u32, tile: u32, seed: u64 },
}

impl StepTiles {
    pub fn new(spec: &JobSpec, shape: &ModelShape) -> Self {
        let (rows, columns) = spec.size.cells(shape);
        match spec.layout.tiles {
            Tiles::Whole => Self::Same(Grid::new(rows, columns, None)),
            Tiles::Blended(tiling) => Self::Same(Grid::new(rows, columns, Some(tiling))),
            Tiles::Shifted { tile } => Self::Shifted { rows, columns, tile, seed: spec.seed },
        }
    }

    pub fn grid(&self, step: u32) -> Cow<'_, Grid> {
        match *self {
            Self::Same(ref grid) => Cow::Borrowed(grid),
            Self::Shifted { rows, columns, tile, seed } => Cow::Owned(Grid::shifted(rows, columns, tile, seed, step)),
        }
    }
}

impl Units {
    pub fn stages(&self) -> u32 {
        match self.kind {
            PlanKind::Whole => 1,
            PlanKind::Cfg | PlanKind::Tiles | PlanKind::CfgTiles | PlanKind::Runs { .. } => {
                self.spec.steps.div_ceil(self.steps_per_stage()) + STAGES_AROUND_STEPS
            }
        }
    }

    pub fn stage(&self, index: u32) -> Stage {
        match self.kind {
            PlanKind::Whole if index == 0 => Stage::Whole,
            PlanKind::Whole => Stage::Done,
            PlanKind::Cfg | PlanKind::Tiles | PlanKind::CfgTiles | PlanKind::Runs { .. } => {
                let last = self.stages() - 1;
                match index {
                    0 => Stage::Encode,
                    index if index < last => self.steps_of(index),
                    index if index == last => Stage::Decode,
                    _ => Stage::Done,
                }
            }
        }
    }

    /// The stage that takes the step after so many, or decodes after the last.
    pub fn stage_after(&self, steps_done: u32) -> u32 {
        if steps_done < self.spec.steps { 1 + steps_done / self.steps_per_stage() } else { self.stages() - 1 }
    }

    /// Steps that are taken when a stage begins; `None` after the last.
    pub fn steps_done(&self, stage: Stage) -> Option<u32> {
        match stage {
            Stage::Encode | Stage::Whole => Some(0),
            Stage::Denoise { step: first, .. } | Stage::Run { first, .. } => Some(first),
            Stage::Decode => Some(self.spec.steps),
            Stage::Done => None,
        }
    }

    /// Number of units in a stage.
    pub fn count(&self, stage: Stage) -> usize {
        match stage {
            Stage::Encode | Stage::Whole | Stage::Run { .. } => 1,
            Stage::Denoise { step, .. } => self.tiles.grid(step).count() * self.branches().len(),
            Stage::Decode => self.decode_tiles.count(),
            Stage::Done => 0,
        }
    }

    /// The grid whose tiles are the inputs of a stage's units.
    pub fn grid(&self, stage: Stage) -> Option<Cow<'_, Grid>> {
        match stage {
            Stage::Denoise { step, .. } => Some(self.tiles.grid(step)),
            Stage::Decode => Some(Cow::Borrowed(&self.decode_tiles)),
            Stage::Encode | Stage::Run { .. } | Stage::Whole | Stage::Done => None,
        }
    }

    /// The tile of the grid that a unit works on.
    pub fn tile(&self, stage: Stage, index: u32) -> usize {
        match stage {
            Stage::Denoise { .. } => index as usize / self.branches().len(),
            Stage::Encode | Stage::Run { .. } | Stage::Decode | Stage::Whole | Stage::Done => index as usize,
        }
    }

    /// The work of a unit; `None` if the stage has no such unit.
    pub fn work(&self, stage: Stage, index: u32, conditioning: Hash) -> Option<Work> {
        if index as usize >= self.count(stage) {
            return None;
        }
        let guided = self.spec.guided();
        match stage {
            Stage::Encode => Some(Work::Encode {
                prompt: self.spec.prompt.clone(),
                negative: guided.then(|| self.spec.negative.clone()),
            }),
            Stage::Denoise { step, .. } => {
                let region = self.tiles.grid(step).region(self.tile(stage, index));
                let branches = self.branches();
                Some(Work::Denoise {
                    conditioning,
                    conditioning_rows: if guided { 2 } else { 1 },
                    branches: branches[index as usize % branches.len()],
                    timestep: self.timesteps[step as usize],
                    rows: region.rows,
                    columns: region.columns,
                })
            }
            Stage::Run { first, count, steps: in_all } => {
                let (rows, columns) = self.spec.size.cells(&self.shape);
                Some(Work::Run {
                    conditioning,
                    guidance: self.spec.guidance,
                    wire: self.spec.layout.wire,
                    steps: Steps { first, count, in_all },
                    history: self.history,
                    rows,
                    columns,
                })
            }
            Stage::Decode => {
                let region = self.decode_tiles.region(index as usize);
                Some(Work::Decode { rows: region.rows, columns: region.columns })
            }
            Stage::Whole => Some(Work::Paint { spec: Box::new(self.spec.clone()) }),
            Stage::Done => None,
        }
    }

    /// Cost of all units of the job.
    pub fn cost(&self) -> u64 {
        self.cost_before(Stage::Done)
    }

    /// Cost of all units of the stages before this one.
    pub fn cost_before(&self, stage: Stage) -> u64 {
        let of = |stage: Stage| {
            // The units of one stage differ in nothing that costs.
            let unit = self.work(stage, 0, Hash::of(&[]));
            self.count(stage) as u64 * unit.map_or(0, |work| work.cost(&self.shape))
        };
        let steps = self.spec.steps;
        // However steps are cut into stages, they cost the same.
        let first = |count: u32| (0..count).map(|step| of(Stage::Denoise { step, steps })).sum::<u64>();
        match (self.kind, stage) {
            (_, Stage::Encode | Stage::Whole) => 0,
            (PlanKind::Whole, _) => of(Stage::Whole),
            (_, Stage::Denoise { step: count, .. } | Stage::Run { first: count, .. }) => {
                of(Stage::Encode) + first(count)
            }
            (_, Stage::Decode) => of(Stage::Encode) + first(steps),
            (_, Stage::Done) => self.cost_before(Stage::Decode) + of(Stage::Decode),
        }
    }

    /// Checks the units of every stage against the limits.
    pub fn check(&self) -> Result<(), UnitError> {
        for stage in 0..self.stages() {
            let work = self.work(self.stage(stage), 0, Hash::of(&[]));
            work.map_or(Ok(()), |work| work.check(&self.shape))?;
        }
        Ok(())
    }

    /// The steps of a stage between encoding and decoding.
    fn steps_of(&self, index: u32) -> Stage {
        let (steps, each) = (self.spec.steps, self.steps_per_stage());
        let first = (index - 1) * each;
        match self.kind {
            PlanKind::Runs { .. } => {
                let end = (first + each).min(steps);
                let first = if end > self.from_step { first.max(self.from_step) } else { first };
                Stage::Run { first, count: end - first, steps }
            }
            PlanKind::Whole | PlanKind::Cfg | PlanKind::Tiles | PlanKind::CfgTiles => {
                Stage::Denoise { step: first, steps }
            }
        }
    }

    fn steps_per_stage(&self) -> u32 {
        match self.kind {
            PlanKind::Whole | PlanKind::Cfg | PlanKind::Tiles | PlanKind::CfgTiles => 1,
            PlanKind::Runs { steps } => steps.clamp(1, self.spec.steps),
        }
    }

    /// What the units of one tile evaluate, in canonical order.
    fn branches(&self) -> &'static [Branches] {
        if !self.spec.guided() {
            return &[Branches::Prompt];
        }
        match self.kind {
            PlanKind::Whole | PlanKind::Tiles | PlanKind::Runs { .. } => &[Branches::Both],
            PlanKind::Cfg | PlanKind::CfgTiles => &[Branches::Negative, Branches::Prompt],
        }
    }
}
