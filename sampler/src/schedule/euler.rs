//! Euler's method on the noise level (diffusers' EulerDiscreteScheduler without churn; Karras et al., arXiv 2206.00364).

use super::config::{EulerOptions, FinalSigma, Prediction, Spacing, Training};
use super::{Plan, Solver, tables};

/// Euler steps.
#[derive(Clone, Debug)]
pub struct Euler {
    prediction: Prediction,
}

/// The times and noise levels.
pub fn plan(training: &Training, options: &EulerOptions, steps: usize) -> Plan {
    let training_sigmas = tables::training_sigmas(training);
    // Times are f32 before their noise levels are looked up.
    let mut timesteps: Vec<f32> =
        tables::spaced(training.spacing, training, steps).into_iter().map(|time| time as f32).collect();
    let mut sigmas: Vec<f64> =
        timesteps.iter().map(|&time| tables::interpolate(f64::from(time), &training_sigmas)).collect();
    if options.karras {
        sigmas = tables::karras(sigmas[0], sigmas[steps - 1], steps);
        timesteps = tables::times_of_sigmas(&sigmas, &training_sigmas).into_iter().map(|time| time as f32).collect();
    }
    let mut sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).collect();
    sigmas.push(match options.final_sigma {
        FinalSigma::Zero => 0.0,
        FinalSigma::Lowest => training_sigmas[0],
    });
    let highest = sigmas.iter().copied().fold(0.0, f32::max);
    let start_sigma = match training.spacing {
        Spacing::Linspace | Spacing::Trailing => highest,
        Spacing::Leading => (highest * highest + 1.0).sqrt(),
    };
    Plan { timesteps, sigmas, start_sigma, solver: Solver::Euler(Euler { prediction: options.prediction }) }
}

/// Scales a latent of noise level `sigma` to unit variance, in place.
pub fn scale_model_input(sigma: f32, latent: &mut [f32]) {
    let deviation = (sigma * sigma + 1.0).sqrt();
    latent.iter_mut().for_each(|value| *value /= deviation);
}

impl Euler {
    /// From noise level `sigma` to `next`.
    pub fn step(&self, sigma: f32, next: f32, model_output: &[f32], latent: &mut [f32]) {
        let distance = next - sigma;
        let variance = sigma * sigma + 1.0;
        let output_share = -sigma / variance.sqrt();
        for (value, &output) in latent.iter_mut().zip(model_output) {
            let clean = match self.prediction {
                Prediction::Epsilon => *value - sigma * output,
                Prediction::V => output * output_share + *value / variance,
            };
            *value += (*value - clean) / sigma * distance;
        }
    }
}
