//! The latent between two steps, and the one place where a step's arithmetic is done.

use protocol::{JobSpec, ModelShape};

use crate::canvas::Grid;
use crate::guidance;
use crate::noise::{self, Purpose};
use crate::schedule::Schedule;

/// A latent on its way from noise to picture.
#[derive(Clone, Debug)]
pub struct Denoiser {
    channels: usize,
    /// How strongly the prompt is followed; `None` without a negative branch.
    guidance: Option<f32>,
    schedule: Schedule,
    /// `[latent_channels, rows, columns]`, f32.
    latent: Vec<f32>,
}

impl Denoiser {
    /// The seed's noise, before the first step.
    pub fn new(spec: &JobSpec, shape: &ModelShape, schedule: Schedule) -> Self {
        let (rows, columns) = spec.size.cells(shape);
        let noise = noise::field(spec.seed, Purpose::Initial, 0, shape.latent_channels, rows, columns);
        let guidance = spec.guided().then_some(spec.guidance);
        let mut denoiser = Self { channels: shape.latent_channels as usize, guidance, schedule, latent: Vec::new() };
        denoiser.start_from(&noise);
        denoiser
    }

    /// Goes on with a latent and what is remembered of the steps before it; `guidance` as in a [`JobSpec`].
    pub fn going_on(
        channels: u32,
        guidance: f32,
        schedule: Schedule,
        latent: Vec<f32>,
        history: Option<Vec<f32>>,
    ) -> Self {
        let guidance = (guidance > 1.0).then_some(guidance);
        let mut denoiser = Self { channels: channels as usize, guidance, schedule, latent: Vec::new() };
        denoiser.restore(latent, history);
        denoiser
    }

    /// Starts from these standard normal values instead.
    pub fn start_from(&mut self, noise: &[f32]) {
        let sigma = self.schedule.init_noise_sigma();
        self.latent = noise.iter().map(|value| value * sigma).collect();
    }

    /// Goes on from what another denoiser of the same job had after some step; `history` as [`Denoiser::tensors`] has it.
    pub fn restore(&mut self, latent: Vec<f32>, history: Option<Vec<f32>>) {
        self.latent = latent;
        self.schedule.remember(history);
    }

    /// Puts a finished latent in place of its own.
    pub fn finish(&mut self, latent: Vec<f32>) {
        self.latent = latent;
    }

    /// Takes `step`: `outputs` are those of the units of each tile of `tiles`, negative branch before prompt, in grid order.
    /// Guidance is applied to each tile before tiles are merged, whichever units the branches came in.
    pub fn take_step(&mut self, step: usize, tiles: &Grid, outputs: &[Vec<f32>]) {
        // No output is copied on the way: those of a large step are many megabytes, and all workers wait for this.
        let output = match self.guidance {
            None => tiles.merge(self.channels, outputs),
            Some(guidance) => {
                let guide = |branches: &[Vec<f32>]| {
                    let (negative, prompt) = match branches {
                        [both] => both.split_at(both.len() / 2),
                        branches => (branches[0].as_slice(), branches[1].as_slice()),
                    };
                    guidance::combine(negative, prompt, guidance)
                };
                let guided: Vec<Vec<f32>> = outputs.chunks_exact(outputs.len() / tiles.count()).map(guide).collect();
                tiles.merge(self.channels, &guided)
            }
        };
        self.schedule.step(step, &output, &mut self.latent);
    }

    /// The latent as the model sees it in `step`.
    pub fn input(&self, step: usize) -> Vec<f32> {
        let mut input = self.latent.clone();
        self.schedule.scale_model_input(step, &mut input);
        input
    }

    /// The latent after the last step taken, then what is remembered of it: all that goes over to another denoiser.
    pub fn tensors(&self) -> Vec<f32> {
        [self.latent.as_slice(), self.schedule.history().unwrap_or_default()].concat()
    }

    /// The latent after the last step taken.
    pub fn latent(&self) -> &[f32] {
        &self.latent
    }

    /// Noise levels, and what is remembered between the steps.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }
}
