//! DPM-Solver++ of order one and two, multistep, midpoint (Lu et al., arXiv 2211.01095; diffusers'
//! DPMSolverMultistepScheduler), for diffusion models and for flow-matching models.

use super::config::{DpmSolverOptions, FinalSigma, Levels, Prediction, Spacing, Training};
use super::{Plan, Solver, tables};

/// With fewer steps than this, `lower_order_final` makes the last step first-order.
const FEW_STEPS: usize = 15;

/// DPM-Solver++ steps.
#[derive(Clone, Debug)]
pub struct DpmSolver {
    model: Model,
    second_order: bool,
    first_order_at_end: bool,
}

/// What the model predicts, and how signal and noise share the latent.
#[derive(Clone, Copy, Debug)]
enum Model {
    /// Shares whose squares sum to one.
    Diffusion(Prediction),
    /// Shares that sum to one; the model predicts noise minus clean latent.
    Flow,
}

/// Signal share, noise share, and half the logarithm of the signal-to-noise ratio, of one noise level.
struct Level {
    signal: f32,
    noise: f32,
    log_ratio: f32,
}

/// The times and noise levels.
pub fn plan(training: &Training, options: &DpmSolverOptions, steps: usize) -> Plan {
    let training_sigmas = tables::training_sigmas(training);
    let (times, sigmas): (Vec<f64>, Vec<f64>) = match options.levels {
        Levels::Training => {
            let times = spaced(training, steps);
            let sigmas = times.iter().map(|&time| tables::interpolate(time, &training_sigmas)).collect();
            (times, sigmas)
        }
        Levels::Karras => {
            let (lowest, highest) = (training_sigmas[0], training_sigmas[training_sigmas.len() - 1]);
            let sigmas = tables::karras(f64::from(highest), f64::from(lowest), steps);
            let times = tables::times_of_sigmas(&sigmas, &training_sigmas);
            (times.into_iter().map(f64::round_ties_even).collect(), sigmas)
        }
        Levels::Flow { shift } => flow(training, shift, steps),
    };
    let mut sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).collect();
    sigmas.push(match options.final_sigma {
        FinalSigma::Zero => 0.0,
        FinalSigma::Lowest => training_sigmas[0],
    });
    let solver = DpmSolver {
        model: match options.levels {
            Levels::Training | Levels::Karras => Model::Diffusion(options.prediction),
            Levels::Flow { .. } => Model::Flow,
        },
        second_order: options.second_order,
        first_order_at_end: options.euler_at_final
            || (options.lower_order_final && steps < FEW_STEPS)
            || matches!(options.final_sigma, FinalSigma::Zero),
    };
    Plan {
        // Times are whole numbers, cut off, not rounded.
        timesteps: times.into_iter().map(|time| time.trunc() as f32).collect(),
        sigmas,
        start_sigma: 1.0,
        solver: Solver::DpmSolver(solver),
    }
}

/// This family leaves out the last of one time more than there are steps, except where trailing.
fn spaced(training: &Training, steps: usize) -> Vec<f64> {
    match training.spacing {
        Spacing::Trailing => tables::spaced(training.spacing, training, steps),
        Spacing::Linspace | Spacing::Leading => {
            let mut times = tables::spaced(training.spacing, training, steps + 1);
            times.truncate(steps);
            times.into_iter().map(f64::round_ties_even).collect()
        }
    }
}

/// Times and levels of a flow-matching model: evenly spaced, then shifted towards noise.
fn flow(training: &Training, shift: f64, steps: usize) -> (Vec<f64>, Vec<f64>) {
    let count = training.timesteps as f64;
    let shifted = |signal: f64| {
        let sigma = 1.0 - signal;
        shift * sigma / (1.0 + (shift - 1.0) * sigma)
    };
    let sigmas: Vec<f64> =
        tables::linspace(1.0, 1.0 / count, steps + 1).into_iter().skip(1).rev().map(shifted).collect();
    (sigmas.iter().map(|sigma| sigma * count).collect(), sigmas)
}

impl DpmSolver {
    /// Takes step `step` given the clean latent that the step before predicted; returns what this step predicts.
    pub fn step(
        &self,
        sigmas: &[f32],
        step: usize,
        previous: Option<Vec<f32>>,
        model_output: &[f32],
        latent: &mut [f32],
    ) -> Vec<f32> {
        let (here, next) = (self.level(sigmas[step]), self.level(sigmas[step + 1]));
        let clean = self.clean(&here, model_output, latent);
        let advance = next.log_ratio - here.log_ratio;
        let keep = next.noise / here.noise;
        let gain = next.signal * (libm::expf(-advance) - 1.0);
        let last = step + 2 == sigmas.len();
        match previous.filter(|_| self.second_order && !(last && self.first_order_at_end)) {
            None => {
                for (value, clean) in latent.iter_mut().zip(&clean) {
                    *value = keep * *value - gain * clean;
                }
            }
            Some(previous) => {
                let advanced = here.log_ratio - self.level(sigmas[step - 1]).log_ratio;
                let slope = 1.0 / (advanced / advance);
                for ((value, clean), before) in latent.iter_mut().zip(&clean).zip(&previous) {
                    *value = keep * *value - gain * clean - 0.5 * gain * (slope * (clean - before));
                }
            }
        }
        clean
    }

    fn level(&self, sigma: f32) -> Level {
        let (signal, noise) = match self.model {
            Model::Diffusion(_) => {
                let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
                (signal, sigma * signal)
            }
            Model::Flow => (1.0 - sigma, sigma),
        };
        Level { signal, noise, log_ratio: libm::logf(signal) - libm::logf(noise) }
    }

    /// The clean latent that the model's output implies.
    fn clean(&self, here: &Level, model_output: &[f32], latent: &[f32]) -> Vec<f32> {
        let clean = |(&value, &output): (&f32, &f32)| match self.model {
            Model::Diffusion(Prediction::Epsilon) => (value - here.noise * output) / here.signal,
            Model::Diffusion(Prediction::V) => here.signal * value - here.noise * output,
            Model::Flow => value - here.noise * output,
        };
        latent.iter().zip(model_output).map(clean).collect()
    }
}
