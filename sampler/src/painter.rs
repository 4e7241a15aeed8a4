//! Paints one picture: says which units the present stage needs, takes their outputs in any order, and does all arithmetic
//! between the stages. Every driver shares it, so that pixels are equal by construction.

mod denoiser;
mod drive;
mod run;
mod snapshot;
#[cfg(test)]
mod tests;
mod units;

use protocol::limits::STAGE_UNITS_MAX;
use protocol::tensor::{self, TensorError};
use protocol::unit::UnitError;
use protocol::{Hash, JobId, JobSpec, ModelShape, PlanKind, SpecError, Unit, UnitId, Work};

use crate::canvas::{self, Grid};
use crate::schedule::{Schedule, ScheduleError, SchedulerConfig};
use crate::wire;

use denoiser::Denoiser;
pub use drive::{PaintError, paint};
pub use run::Run;
pub use snapshot::{Snapshot, SnapshotError};
use units::{StepTiles, Units};

/// What a job is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The conditioning.
    Encode,
    /// The model's outputs of one step.
    Denoise {
        /// The step, counted from zero.
        step: u32,
        /// Steps in all.
        steps: u32,
    },
    /// What is left of the latent after some steps.
    Run {
        /// The first step, counted from zero.
        first: u32,
        /// How many steps.
        count: u32,
        /// Steps in all.
        steps: u32,
    },
    /// The pixels.
    Decode,
    /// The whole picture, in one unit.
    Whole,
    /// Nothing: the picture is there.
    Done,
}

/// Why a job cannot be painted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PainterError {
    /// A side, count or width of zero, or one too large for any body.
    #[error("the model's shape is impossible")]
    Shape,
    /// The job does not fit the model.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The model's scheduler cannot take the job's steps.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Too many tiles.
    #[error("the layout cuts a stage into {units} units, and at most {STAGE_UNITS_MAX} are possible")]
    Units {
        /// Units of the largest stage.
        units: usize,
    },
    /// A unit that no worker would accept.
    #[error("a unit of the job cannot be sent: {0}")]
    Unit(#[from] UnitError),
    /// Noise given that is not of the latent's size, or to a job whose worker makes its own.
    #[error("{found} values of noise were given where {expected} are used")]
    Noise {
        /// Values used.
        expected: usize,
        /// Values given.
        found: usize,
    },
    /// Runs of steps are of the whole canvas.
    #[error("steps can be handed over in runs only where the layout has no tiles")]
    Runs,
    /// A snapshot that is not one of this job on this model, or that this kind of plan cannot go on with.
    #[error("the painting cannot go on from its checkpoint: {0}")]
    Snapshot(&'static str),
}

/// One job being painted.
#[derive(Clone, Debug)]
pub struct Painter {
    units: Units,
    denoiser: Denoiser,
    /// Decoded tiles, in pixels.
    pixel_grid: Grid,
    stage: u32,
    /// Accepted outputs of the present stage, in canonical order.
    outputs: Vec<Option<Vec<f32>>>,
    /// Cost of all stages before the present one.
    cost_before: u64,
    conditioning: Option<(Hash, Vec<u8>)>,
    /// The latent as the model sees it in the present step, or the decoder at the end.
    input: Vec<f32>,
    image: Option<Vec<f32>>,
}

impl Painter {
    /// A painter at the first stage of `spec`, cut into units as `kind` says. `scheduler` is the model's.
    pub fn new(
        job: JobId,
        spec: JobSpec,
        shape: ModelShape,
        scheduler: &SchedulerConfig,
        kind: PlanKind,
    ) -> Result<Self, PainterError> {
        check_shape(&shape)?;
        spec.check(&shape)?;
        let (rows, columns) = spec.size.cells(&shape);
        let branches = if spec.guided() { 2 } else { 1 };
        let layout = spec.layout;
        let tiles = canvas::step_tile_counts(rows, columns, layout.tiles, spec.seed, spec.steps);
        let denoise_units = branches * tiles.into_iter().max().unwrap_or(0);
        if matches!(kind, PlanKind::Runs { .. }) && !layout.tiles.is_whole() {
            return Err(PainterError::Runs);
        }
        let most = denoise_units.max(canvas::tile_count(rows, columns, layout.decode_tiles));
        if most > STAGE_UNITS_MAX {
            return Err(PainterError::Units { units: most });
        }
        let schedule = Schedule::new(scheduler, spec.steps as usize)?;
        // The latent and the picture are kept here, and may come in one piece, whatever the kind.
        Work::Paint { spec: Box::new(spec.clone()) }.check(&shape)?;
        let units = Units {
            job,
            kind,
            shape,
            tiles: StepTiles::new(&spec, &shape),
            decode_tiles: Grid::new(rows, columns, layout.decode_tiles),
            timesteps: schedule.timesteps().to_vec(),
            history: schedule.history_tensors() as u32,
            from_step: 0,
            spec,
        };
        units.check()?;
        let mut painter = Self {
            pixel_grid: units.decode_tiles.scaled(shape.factor),
            denoiser: Denoiser::new(&units.spec, &shape, schedule),
            units,
            stage: 0,
            outputs: Vec::new(),
            cost_before: 0,
            conditioning: None,
            input: Vec::new(),
            image: None,
        };
        painter.open_stage(0);
        Ok(painter)
    }

    /// Goes on with the painting of `snapshot`, cut as `kind` says, whatever the kind was before: the pixels are those of
    /// a painting that was never interrupted.
    pub fn resume(
        snapshot: Snapshot,
        job: JobId,
        shape: ModelShape,
        scheduler: &SchedulerConfig,
        kind: PlanKind,
    ) -> Result<Self, PainterError> {
        let Snapshot { spec, kind: _, steps_done, conditioning, latent, history } = snapshot;
        let mut painter = Self::new(job, spec, shape, scheduler, kind)?;
        let refuse = |why| Err(PainterError::Snapshot(why));
        let units = &painter.units;
        let rows = if units.spec.guided() { 2 } else { 1 };
        let conditioning_bytes = 4 * rows * shape.tokens as usize * shape.embedding_width as usize;
        if conditioning.as_ref().is_some_and(|bytes| bytes.len() != conditioning_bytes) {
            return refuse("its conditioning is not of this model's shape");
        }
        if steps_done > units.spec.steps || (kind == PlanKind::Whole && conditioning.is_some()) {
            return refuse("no stage of this plan begins where it stopped");
        }
        let remembers = steps_done > 0 && painter.denoiser.schedule().history_tensors() > 0;
        let is_whole = |tensor: &Vec<f32>| tensor.len() == painter.denoiser.latent().len();
        if !is_whole(&latent) || history.is_some() != remembers || !history.as_ref().is_none_or(is_whole) {
            return refuse("its latent is not of this model's shape");
        }
        painter.denoiser.restore(latent, history);
        painter.conditioning = conditioning.map(|bytes| (Hash::of(&bytes), bytes));
        if painter.conditioning.is_some() {
            painter.units.from_step = steps_done;
            painter.open_stage(painter.units.stage_after(steps_done));
        }
        Ok(painter)
    }

    /// Starts from `noise`, standard normal values `[latent_channels, rows, columns]`, instead of the seed's.
    pub fn with_noise(mut self, noise: &[f32]) -> Result<Self, PainterError> {
        let used = match self.units.kind {
            PlanKind::Whole => 0,
            PlanKind::Cfg | PlanKind::Tiles | PlanKind::CfgTiles | PlanKind::Runs { .. } => self.latent().len(),
        };
        if noise.len() != used {
            return Err(PainterError::Noise { expected: used, found: noise.len() });
        }
        self.denoiser.start_from(noise);
        Ok(self)
    }

    /// Takes the output of a unit of the present stage. The output of any other unit, or of one that already has its
    /// output, changes nothing; nor does one that is refused.
    pub fn accept(&mut self, id: UnitId, output: &[u8]) -> Result<(), TensorError> {
        if !self.is_wanted(id) {
            return Ok(());
        }
        let work = self.work(id.index);
        let mut values = tensor::from_bytes(output, work.output_values(&self.units.shape))?;
        match work {
            Work::Denoise { .. } => wire::round(&mut values, self.units.spec.layout.wire),
            // The steps of a run are rounded one by one, where they are taken.
            Work::Encode { .. } | Work::Run { .. } | Work::Decode { .. } | Work::Paint { .. } => {}
        }
        self.outputs[id.index as usize] = Some(values);
        Ok(())
    }

    /// Merges the outputs of a complete stage and opens the next one. Does nothing while outputs are missing, or at the
    /// end.
    pub fn advance(&mut self) {
        let stage = self.stage();
        if stage == Stage::Done || !self.is_stage_complete() {
            return;
        }
        let outputs: Vec<Vec<f32>> = std::mem::take(&mut self.outputs).into_iter().flatten().collect();
        match stage {
            Stage::Encode => {
                let bytes = tensor::to_bytes(&outputs.concat());
                self.conditioning = Some((Hash::of(&bytes), bytes));
            }
            Stage::Denoise { step, .. } => {
                self.denoiser.take_step(step as usize, &self.units.tiles.grid(step), &outputs);
            }
            Stage::Run { .. } => {
                let mut latent = outputs.concat();
                let history = latent.split_off(self.latent().len());
                self.denoiser.restore(latent, (!history.is_empty()).then_some(history));
            }
            Stage::Decode => self.image = Some(self.pixel_grid.merge(3, &outputs)),
            Stage::Whole => {
                let mut latent = outputs.concat();
                self.image = Some(latent.split_off(self.latent().len()));
                self.denoiser.finish(latent);
            }
            Stage::Done => {}
        }
        self.open_stage(self.stage + 1);
    }

    /// This painting as it was when the present stage began. Outputs are not copied first to be thrown away: those of a large
    /// stage are many megabytes.
    pub fn beginning(&mut self) -> Self {
        let outputs = std::mem::take(&mut self.outputs);
        let beginning = Self { outputs: vec![None; outputs.len()], ..self.clone() };
        self.outputs = outputs;
        beginning
    }

    /// Forgets the outputs of the present stage, so that all its units are wanted again.
    pub fn forget_outputs(&mut self) {
        self.outputs.iter_mut().for_each(|output| *output = None);
    }

    /// The painting as it was when the present stage began; `None` when the picture is done.
    pub fn snapshot(&self) -> Option<Snapshot> {
        let steps_done = self.units.steps_done(self.stage())?;
        Some(Snapshot {
            spec: self.units.spec.clone(),
            kind: self.units.kind,
            steps_done,
            conditioning: self.conditioning.as_ref().map(|(_, bytes)| bytes.clone()),
            latent: self.latent().to_vec(),
            history: self.denoiser.schedule().history().map(<[f32]>::to_vec),
        })
    }

    /// What the job is waiting for.
    pub fn stage(&self) -> Stage {
        self.units.stage(self.stage)
    }

    /// The present stage, counted from zero; equal to [`Painter::stages`] when the picture is done.
    pub fn stage_index(&self) -> u32 {
        self.stage
    }

    /// Number of stages.
    pub fn stages(&self) -> u32 {
        self.units.stages()
    }

    /// The units of the present stage, in canonical order; none when the picture is done.
    pub fn units(&self) -> Vec<Unit> {
        let unit = |index: u32| Unit {
            job: self.units.job,
            id: UnitId { stage: self.stage, index },
            model: self.units.spec.model,
            work: self.work(index),
        };
        (0..self.outputs.len() as u32).map(unit).collect()
    }

    /// Whether the unit is of the present stage and has no output yet.
    pub fn is_wanted(&self, id: UnitId) -> bool {
        id.stage == self.stage && self.outputs.get(id.index as usize).is_some_and(Option::is_none)
    }

    /// The input body of a unit of the present stage; empty for units that have none, and for units of other stages.
    pub fn input(&self, id: UnitId) -> Vec<u8> {
        if id.stage != self.stage || id.index as usize >= self.outputs.len() {
            return Vec::new();
        }
        if let Stage::Run { .. } = self.stage() {
            return tensor::to_bytes(&self.input);
        }
        match self.units.grid(self.stage()) {
            Some(grid) => tensor::to_bytes(&grid.cut(&self.input, self.units.tile(self.stage(), id.index))),
            None => Vec::new(),
        }
    }

    /// Hash and bytes of the conditioning, `[rows, tokens, embedding_width]`; there after the encoding stage.
    pub fn conditioning(&self) -> Option<(Hash, &[u8])> {
        self.conditioning.as_ref().map(|(hash, bytes)| (*hash, bytes.as_slice()))
    }

    /// Whether every unit of the present stage has its output.
    pub fn is_stage_complete(&self) -> bool {
        self.outputs.iter().all(Option::is_some)
    }

    /// The latent after the last complete step, `[latent_channels, rows, columns]`. A job painted in one unit shows noise
    /// until its picture is there.
    pub fn latent(&self) -> &[f32] {
        self.denoiser.latent()
    }

    /// The picture, `[3, height, width]` in about [-1, 1], when it is done.
    pub fn image(&self) -> Option<&[f32]> {
        self.image.as_deref()
    }

    /// The picture as rows of RGB bytes, when it is done.
    pub fn pixels(&self) -> Option<Vec<u8>> {
        let image = self.image()?;
        let level = |value: f32| ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        let area = image.len() / 3;
        Some((0..area).flat_map(|pixel| [0, 1, 2].map(|channel| level(image[channel * area + pixel]))).collect())
    }

    /// Cost of the accepted units, and of all units of the job, by [`Work::cost`].
    pub fn progress(&self) -> (u64, u64) {
        let accepted = self.outputs.iter().enumerate().filter(|(_, output)| output.is_some());
        let present: u64 = accepted.map(|(index, _)| self.work(index as u32).cost(&self.units.shape)).sum();
        (self.cost_before + present, self.units.cost())
    }

    /// What the job asks for.
    pub fn spec(&self) -> &JobSpec {
        &self.units.spec
    }

    fn open_stage(&mut self, index: u32) {
        self.stage = index;
        let stage = self.stage();
        self.outputs = vec![None; self.units.count(stage)];
        self.cost_before = self.units.cost_before(stage);
        match stage {
            Stage::Denoise { step, .. } => self.input = self.denoiser.input(step as usize),
            Stage::Run { .. } => self.input = self.denoiser.tensors(),
            Stage::Decode => self.input = self.latent().to_vec(),
            Stage::Encode | Stage::Whole | Stage::Done => self.input.clear(),
        }
    }

    /// The work of a unit of the present stage.
    fn work(&self, index: u32) -> Work {
        let conditioning = self.conditioning.as_ref().map_or(Hash::of(&[]), |(hash, _)| *hash);
        self.units.work(self.stage(), index, conditioning).expect("the index counts units of a stage that has them")
    }
}

/// Checks what the arithmetic of sizes relies on, before anything is computed from it.
fn check_shape(shape: &ModelShape) -> Result<(), PainterError> {
    const SIDE_MAX: u32 = 4096;
    let ModelShape { latent_channels, factor, native_cells, tokens, embedding_width } = *shape;
    let sides = [latent_channels, factor, native_cells, tokens, embedding_width];
    match sides.iter().all(|side| (1..=SIDE_MAX).contains(side)) {
        true => Ok(()),
        false => Err(PainterError::Shape),
    }
}
