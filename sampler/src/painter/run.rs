//! Consecutive steps of a canvas in one unit, as its worker takes them: the arithmetic is the painter's own.

use protocol::tensor::{self, TensorError};
use protocol::unit::UnitError;
use protocol::{Branches, ModelShape, Unit, Wire, Work};

use super::PainterError;
use super::denoiser::Denoiser;
use crate::canvas::Grid;
use crate::schedule::{Schedule, SchedulerConfig};
use crate::wire;

/// A [`Work::Run`] being computed: one evaluation of the network after the other.
#[derive(Clone, Debug)]
pub struct Run {
    /// The passes of a step; their timestep is the present one's.
    unit: Unit,
    shape: ModelShape,
    wire: Wire,
    canvas: Grid,
    denoiser: Denoiser,
    /// The step that is taken next.
    step: u32,
    /// The step that is not taken any more.
    end: u32,
}

impl Run {
    /// Begins `unit`, a run of steps, with the values of its input. `scheduler` is the model's.
    pub fn new(
        unit: &Unit,
        shape: &ModelShape,
        scheduler: &SchedulerConfig,
        mut values: Vec<f32>,
    ) -> Result<Self, PainterError> {
        let refuse = |why| Err(PainterError::Unit(UnitError(why)));
        let Work::Run { conditioning, guidance, wire, steps, history, rows, columns } = unit.work else {
            return refuse("it is not a run of steps");
        };
        unit.work.check(shape)?;
        let schedule = Schedule::new(scheduler, steps.in_all as usize)?;
        if schedule.history_tensors() != history as usize {
            return refuse("it remembers other tensors than the model's scheduler does");
        }
        if values.len() != unit.work.input_values(shape) {
            return refuse("its input is not of its length");
        }
        let latent_values = shape.latent_channels as usize * rows as usize * columns as usize;
        let history = values.split_off(latent_values);
        let history = (!history.is_empty()).then_some(history);
        let is_guided = guidance > 1.0;
        let work = Work::Denoise {
            conditioning,
            conditioning_rows: if is_guided { 2 } else { 1 },
            branches: if is_guided { Branches::Both } else { Branches::Prompt },
            timestep: 0.0,
            rows,
            columns,
        };
        Ok(Self {
            unit: Unit { work, ..unit.clone() },
            shape: *shape,
            wire,
            canvas: Grid::new(rows, columns, None),
            denoiser: Denoiser::going_on(shape.latent_channels, guidance, schedule, values, history),
            step: steps.first,
            end: steps.first + steps.count,
        })
    }

    /// The evaluation that is needed next, and its input; `None` when all steps are taken.
    pub fn next_pass(&self) -> Option<(Unit, Vec<u8>)> {
        if self.step == self.end {
            return None;
        }
        let mut unit = self.unit.clone();
        if let Work::Denoise { timestep, .. } = &mut unit.work {
            *timestep = self.denoiser.schedule().timesteps()[self.step as usize];
        }
        Some((unit, tensor::to_bytes(&self.denoiser.input(self.step as usize))))
    }

    /// Takes a step with the evaluation's output. One that is refused changes nothing.
    pub fn accept(&mut self, output: &[u8]) -> Result<(), TensorError> {
        let mut values = tensor::from_bytes(output, self.unit.work.output_values(&self.shape))?;
        if self.step < self.end {
            wire::round(&mut values, self.wire);
            self.denoiser.take_step(self.step as usize, &self.canvas, &[values]);
            self.step += 1;
        }
        Ok(())
    }

    /// The run's output, when all steps are taken.
    pub fn output(&self) -> Vec<f32> {
        self.denoiser.tensors()
    }
}
