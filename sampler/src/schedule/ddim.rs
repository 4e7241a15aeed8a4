//! Deterministic DDIM (Song et al., arXiv 2010.02502, equation 12 with eta 0; diffusers' DDIMScheduler).

use super::config::{DdimOptions, Prediction, Training};
use super::{Plan, Solver, tables};

/// DDIM steps.
#[derive(Clone, Debug)]
pub struct Ddim {
    prediction: Prediction,
    clip: Option<f32>,
    /// Signal power before and after each step.
    alphas: Vec<(f32, f32)>,
}

/// The times and steps, or `None` if a step begins outside the training.
pub fn plan(training: &Training, options: &DdimOptions, steps: usize) -> Option<Plan> {
    let training_alphas = tables::alphas_cumulative(training);
    let end = if options.end_without_noise { 1.0 } else { training_alphas[0] };
    let times: Vec<usize> = tables::spaced(training.spacing, training, steps)
        .into_iter()
        .map(|time| time.round_ties_even() as usize)
        .collect();
    // Every step is this long, whatever the spacing of the times.
    let stride = training.timesteps / steps;
    let pair = |&time: &usize| {
        let before = *training_alphas.get(time)?;
        let after = time.checked_sub(stride).map_or(end, |earlier| training_alphas[earlier]);
        Some((before, after))
    };
    let alphas = times.iter().map(pair).collect::<Option<Vec<_>>>()?;
    Some(Plan {
        timesteps: times.into_iter().map(|time| time as f32).collect(),
        sigmas: Vec::new(),
        start_sigma: 1.0,
        solver: Solver::Ddim(Ddim { prediction: options.prediction, clip: options.clip, alphas }),
    })
}

impl Ddim {
    /// Takes step `step`.
    pub fn step(&self, step: usize, model_output: &[f32], latent: &mut [f32]) {
        let (before, after) = self.alphas[step];
        let (signal, noise) = (before.sqrt(), (1.0 - before).sqrt());
        let (signal_after, noise_after) = (after.sqrt(), (1.0 - after).sqrt());
        for (value, &output) in latent.iter_mut().zip(model_output) {
            let (clean, epsilon) = match self.prediction {
                Prediction::Epsilon => ((*value - noise * output) / signal, output),
                Prediction::V => (signal * *value - noise * output, signal * output + noise * *value),
            };
            let clean = self.clip.map_or(clean, |range| clean.clamp(-range, range));
            *value = signal_after * clean + noise_after * epsilon;
        }
    }

    /// Signal power before a step.
    #[cfg(test)]
    pub fn alpha(&self, step: usize) -> f32 {
        self.alphas[step].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_bounds_the_predicted_latent() {
        let alphas = vec![(0.25, 1.0)];
        let loose = Ddim { prediction: Prediction::Epsilon, clip: None, alphas: alphas.clone() };
        let tight = Ddim { clip: Some(1.0), ..loose.clone() };
        let (mut free, mut clipped) = ([2.0, 0.1], [2.0, 0.1]);
        loose.step(0, &[0.0, 0.0], &mut free);
        tight.step(0, &[0.0, 0.0], &mut clipped);
        assert_eq!(free, [4.0, 0.2]);
        assert_eq!(clipped, [1.0, 0.2]);
    }
}
