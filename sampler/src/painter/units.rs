//! Cuts a job into stages and units: a pure function of the job, the model's shape and the plan's kind.

use std::ops::Range;

use protocol::unit::UnitError;
use protocol::{Branches, Hash, JobId, JobSpec, ModelShape, PlanKind, Work};

use super::Stage;
use crate::canvas::Grid;

/// Stages beside the denoising steps: encoding before, decoding after.
const STAGES_AROUND_STEPS: u32 = 2;

/// What the units of a job follow from.
#[derive(Clone, Debug)]
pub struct Units {
    pub job: JobId,
    pub spec: JobSpec,
    pub shape: ModelShape,
    pub kind: PlanKind,
    /// Tiles of every step, in latent cells.
    pub tiles: Grid,
    /// Tiles of the decoder, in latent cells.
    pub decode_tiles: Grid,
    pub timesteps: Vec<f32>,
}

impl Units {
    pub fn stages(&self) -> u32 {
        match self.kind {
            PlanKind::Whole => 1,
            PlanKind::Cfg | PlanKind::Tiles | PlanKind::CfgTiles => self.spec.steps + STAGES_AROUND_STEPS,
        }
    }

    pub fn stage(&self, index: u32) -> Stage {
        let steps = self.spec.steps;
        match self.kind {
            PlanKind::Whole if index == 0 => Stage::Whole,
            PlanKind::Whole => Stage::Done,
            PlanKind::Cfg | PlanKind::Tiles | PlanKind::CfgTiles => match index {
                0 => Stage::Encode,
                index if index <= steps => Stage::Denoise { step: index - 1, steps },
                index if index == steps + 1 => Stage::Decode,
                _ => Stage::Done,
            },
        }
    }

    /// The stage that begins when this many steps are taken, or the prompt is not read; `None` if none begins there.
    pub fn stage_after(&self, steps_done: Option<u32>) -> Option<u32> {
        let Some(steps_done) = steps_done else { return Some(0) };
        (0..self.stages()).find(|&index| index > 0 && self.steps_done(self.stage(index)) == Some(steps_done))
    }

    /// Steps that are taken when a stage begins; `None` after the last.
    pub fn steps_done(&self, stage: Stage) -> Option<u32> {
        match stage {
            Stage::Encode | Stage::Whole => Some(0),
            Stage::Denoise { step, .. } => Some(step),
            Stage::Decode => Some(self.spec.steps),
            Stage::Done => None,
        }
    }

    /// Number of units in a stage.
    pub fn count(&self, stage: Stage) -> usize {
        match stage {
            Stage::Encode | Stage::Whole => 1,
            Stage::Denoise { .. } => self.tiles.count() * self.branches().len(),
            Stage::Decode => self.decode_tiles.count(),
            Stage::Done => 0,
        }
    }

    /// The grid whose tiles are the inputs of a stage's units.
    pub fn grid(&self, stage: Stage) -> Option<&Grid> {
        match stage {
            Stage::Denoise { .. } => Some(&self.tiles),
            Stage::Decode => Some(&self.decode_tiles),
            Stage::Encode | Stage::Whole | Stage::Done => None,
        }
    }

    /// The tile of the grid that a unit works on.
    pub fn tile(&self, stage: Stage, index: u32) -> usize {
        match stage {
            Stage::Denoise { .. } => index as usize / self.branches().len(),
            Stage::Encode | Stage::Decode | Stage::Whole | Stage::Done => index as usize,
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
                let region = self.tiles.region(self.tile(stage, index));
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
        self.cost_of(0..self.stages())
    }

    /// Cost of all units of some stages.
    pub fn cost_of(&self, stages: Range<u32>) -> u64 {
        stages
            .map(|stage| {
                let stage = self.stage(stage);
                // The units of one stage differ in nothing that costs.
                let unit = self.work(stage, 0, Hash::of(&[]));
                self.count(stage) as u64 * unit.map_or(0, |work| work.cost(&self.shape))
            })
            .sum()
    }

    /// Checks the units of every stage against the limits.
    pub fn check(&self) -> Result<(), UnitError> {
        for stage in 0..self.stages() {
            let work = self.work(self.stage(stage), 0, Hash::of(&[]));
            work.map_or(Ok(()), |work| work.check(&self.shape))?;
        }
        Ok(())
    }

    /// What the units of one tile evaluate, in canonical order.
    fn branches(&self) -> &'static [Branches] {
        if !self.spec.guided() {
            return &[Branches::Prompt];
        }
        match self.kind {
            PlanKind::Whole | PlanKind::Tiles => &[Branches::Both],
            PlanKind::Cfg | PlanKind::CfgTiles => &[Branches::Negative, Branches::Prompt],
        }
    }
}
