//! The tables schedules are made from, with the rounding of the numpy and torch functions that diffusers calls.

use super::config::{Betas, Spacing, Training};

/// The exponent of Karras et al. (arXiv 2206.00364), equation 5.
const RHO: f64 = 7.0;

/// The noise level where no signal is left. diffusers takes the level of signal power `2**-24`, which lies between two f32
/// values, half a unit (and 2^-39) below this one; torch's square root gives this one.
const HIGHEST_SIGMA: f32 = 4096.0;

/// Signal power left at each training step: the running product of `1 - beta`. f32, with torch's f64 accumulator.
pub fn alphas_cumulative(training: &Training) -> Vec<f32> {
    let count = training.timesteps;
    let mut betas = match training.betas {
        Betas::Linear => linspace_f32(training.beta_start as f32, training.beta_end as f32, count),
        Betas::ScaledLinear => {
            let mut roots = linspace_f32(training.beta_start.sqrt() as f32, training.beta_end.sqrt() as f32, count);
            roots.iter_mut().for_each(|root| *root *= *root);
            roots
        }
    };
    if training.zero_terminal_snr {
        rescale_to_zero_terminal_snr(&mut betas);
    }
    cumulative_product(&betas)
}

/// Noise level `sqrt((1 - a) / a)` at each training step, the last one finite even if no signal is left there.
pub fn training_sigmas(training: &Training) -> Vec<f32> {
    let level = |alpha: f32| ((1.0 - alpha) / alpha).sqrt();
    let mut sigmas: Vec<f32> = alphas_cumulative(training).into_iter().map(level).collect();
    if let (true, Some(last)) = (training.zero_terminal_snr, sigmas.last_mut()) {
        *last = HIGHEST_SIGMA;
    }
    sigmas
}

/// numpy's `linspace` in f64.
pub fn linspace(start: f64, stop: f64, count: usize) -> Vec<f64> {
    let step = (stop - start) / (count.max(2) - 1) as f64;
    let mut values: Vec<f64> = (0..count).map(|index| index as f64 * step + start).collect();
    if let (2.., Some(last)) = (count, values.last_mut()) {
        *last = stop;
    }
    values
}

/// Training steps of a schedule from high to low, whole numbers unless `Linspace`. Exactly `steps` of them: where its
/// division rounds up (61, 103, 121 and 122 steps, trailing) diffusers makes one more, before the training began.
pub fn spaced(spacing: Spacing, training: &Training, steps: usize) -> Vec<f64> {
    let count = training.timesteps;
    match spacing {
        Spacing::Linspace => linspace(0.0, (count - 1) as f64, steps).into_iter().rev().collect(),
        Spacing::Leading => {
            let stride = count / steps;
            (0..steps).rev().map(|index| (index * stride + training.steps_offset) as f64).collect()
        }
        Spacing::Trailing => {
            let start = count as f64;
            // numpy's arange takes its stride from its first two rounded values.
            let stride = (start - start / steps as f64) - start;
            (0..steps).map(|index| (start + index as f64 * stride).round_ties_even() - 1.0).collect()
        }
    }
}

/// numpy's `interp` of `values` at `position`, where `values[i]` stands at `i`.
pub fn interpolate(position: f64, values: &[f32]) -> f64 {
    let last = values.len() - 1;
    let position = position.clamp(0.0, last as f64);
    let low = position as usize;
    let (before, after) = (f64::from(values[low]), f64::from(values[(low + 1).min(last)]));
    (after - before) * (position - low as f64) + before
}

/// The levels of Karras et al. between two noise levels, from high to low.
pub fn karras(highest: f64, lowest: f64, steps: usize) -> Vec<f64> {
    let (high, low) = (libm::pow(highest, 1.0 / RHO), libm::pow(lowest, 1.0 / RHO));
    linspace(0.0, 1.0, steps).into_iter().map(|ramp| libm::pow(high + ramp * (low - high), RHO)).collect()
}

/// The training steps, with their fractions, that have noise levels `sigmas` (diffusers' `_sigma_to_t`, linear in the
/// logarithm of the level).
pub fn times_of_sigmas(sigmas: &[f64], training_sigmas: &[f32]) -> Vec<f64> {
    let logs: Vec<f32> = training_sigmas.iter().map(|&sigma| libm::logf(sigma)).collect();
    let time = |&sigma: &f64| {
        let target = libm::log(sigma.max(1e-10));
        let below = logs.iter().filter(|&&log| f64::from(log) <= target).count();
        let low = below.saturating_sub(1).min(logs.len() - 2);
        let share = (f64::from(logs[low]) - target) / f64::from(logs[low] - logs[low + 1]);
        let share = share.clamp(0.0, 1.0);
        (1.0 - share) * low as f64 + share * (low + 1) as f64
    };
    sigmas.iter().map(time).collect()
}

/// torch's `linspace` in f32: counted from the nearer end.
fn linspace_f32(start: f32, end: f32, count: usize) -> Vec<f32> {
    let step = (end - start) / (count - 1) as f32;
    let value = |index: usize| {
        if index < count / 2 { start + step * index as f32 } else { end - step * (count - index - 1) as f32 }
    };
    (0..count).map(value).collect()
}

fn cumulative_product(betas: &[f32]) -> Vec<f32> {
    let mut product = 1.0_f64;
    let next = |beta: &f32| {
        product *= f64::from(1.0 - beta);
        product as f32
    };
    betas.iter().map(next).collect()
}

/// Algorithm 1 of Lin et al. (arXiv 2305.08891): the last training step keeps no signal, the first keeps what it had.
fn rescale_to_zero_terminal_snr(betas: &mut [f32]) {
    let mut roots: Vec<f32> = cumulative_product(betas).into_iter().map(f32::sqrt).collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let scale = first / (first - last);
    roots.iter_mut().for_each(|root| *root = (*root - last) * scale);
    let mut before = 1.0;
    for (beta, root) in betas.iter_mut().zip(roots) {
        let alpha = root * root;
        *beta = 1.0 - alpha / before;
        before = alpha;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linspace_ends_where_it_should() {
        assert_eq!(linspace(0.0, 999.0, 4), [0.0, 333.0, 666.0, 999.0]);
        assert_eq!(linspace(0.0, 999.0, 1), [0.0]);
        assert_eq!(linspace_f32(0.0, 1.0, 5), [0.0, 0.25, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn interpolation_meets_its_points_and_stops_at_the_ends() {
        let values = [1.0, 3.0, 4.0];
        for (position, value) in [(0.0, 1.0), (0.5, 2.0), (1.0, 3.0), (2.0, 4.0), (9.0, 4.0), (-1.0, 1.0)] {
            assert_eq!(interpolate(position, &values), value);
        }
    }

    #[test]
    fn a_training_sigma_has_its_own_time() {
        let training: Vec<f32> = (1..=20).map(|index| index as f32 * 0.3).collect();
        let sigmas: Vec<f64> = training.iter().map(|&sigma| f64::from(sigma)).collect();
        for (index, time) in times_of_sigmas(&sigmas, &training).into_iter().enumerate() {
            assert!((time - index as f64).abs() < 1e-4);
        }
        assert_eq!(times_of_sigmas(&[0.0, 1e9], &training), [0.0, 19.0]);
    }
}
