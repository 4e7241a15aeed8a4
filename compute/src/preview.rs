//! A cheap look at a latent: the linear map to colours that comes closest to the autoencoder's for even latents.

use burn::tensor::{Device, Tensor, TensorData};
use sampler::noise::{self, Purpose};

use crate::folder::ModelFolder;
use crate::pace::{Free, finish};
use crate::vae::Vae;
use crate::weights::LoadError;

/// Cells along each side of the latents decoded: enough that pixels in the middle do not see the border.
const CELLS: usize = 4;

/// Even latents decoded for each channel; their values are normally distributed, as latents' are.
const PROBES_PER_CHANNEL: usize = 16;

/// Keeps the equations solvable if a channel does nothing.
const RIDGE: f64 = 1e-3;

/// For each latent channel the colour that one unit of it adds, then the colour of an empty latent: red, green and blue in
/// about [-1, 1]. A latent cell looks like `sum of latent[channel] * factors[channel] + factors[last]`.
///
/// # Errors
/// If the folder's autoencoder cannot be loaded.
pub fn preview_factors(folder: &ModelFolder) -> Result<Vec<[f32; 3]>, LoadError> {
    let device = Device::flex();
    let vae = Vae::load(&folder.files().at("vae"), &device)?;
    let channels = folder.shape().latent_channels;
    let probes = channels as usize * PROBES_PER_CHANNEL;
    let values = noise::field(0, Purpose::Initial, 0, 1, probes as u32, channels);
    let mut equations = Equations::new(channels as usize + 1);
    for probe in values.chunks_exact(channels as usize) {
        let latent = probe.iter().flat_map(|&value| [value; CELLS * CELLS]).collect();
        let latent = TensorData::new::<f32, _>(latent, [1, channels as usize, CELLS, CELLS]);
        let pixels = finish(vae.decode(Tensor::from_data(latent, &device), &Free(&|| false)));
        let known: Vec<f64> = probe.iter().map(|&value| f64::from(value)).chain([1.0]).collect();
        equations.add(&known, middle(pixels.expect("nothing cancels a preview")));
    }
    Ok(equations.solve())
}

/// The mean colour of the middle quarter of `[1, 3, height, width]`.
fn middle(pixels: Tensor<4>) -> [f64; 3] {
    let [_, _, height, width] = pixels.dims();
    let middle = pixels.narrow(2, height / 4, height / 2).narrow(3, width / 4, width / 2).clamp(-1.0, 1.0);
    let values = middle.into_data().try_into_vec::<f32>().expect("every tensor here is f32");
    let area = (height / 2) * (width / 2);
    [0, 1, 2].map(|part| {
        let plane = &values[part * area..(part + 1) * area];
        plane.iter().map(|&value| f64::from(value)).sum::<f64>() / area as f64
    })
}

/// The normal equations of a least squares fit with three right sides.
struct Equations {
    /// Each row: the coefficients, then the right sides.
    rows: Vec<Vec<f64>>,
}

impl Equations {
    fn new(unknowns: usize) -> Self {
        let row = |index: usize| (0..unknowns + 3).map(|at| if at == index { RIDGE } else { 0.0 }).collect();
        Self { rows: (0..unknowns).map(row).collect() }
    }

    fn add(&mut self, known: &[f64], colour: [f64; 3]) {
        for (row, factor) in self.rows.iter_mut().zip(known) {
            row.iter_mut().zip(known.iter().chain(&colour)).for_each(|(sum, value)| *sum += factor * value);
        }
    }

    /// By elimination; the matrix is positive definite, so that no row need be exchanged.
    fn solve(mut self) -> Vec<[f32; 3]> {
        let unknowns = self.rows.len();
        for pivot in 0..unknowns {
            let divisor = self.rows[pivot][pivot];
            self.rows[pivot].iter_mut().for_each(|value| *value /= divisor);
            let pivot_row = self.rows[pivot].clone();
            for (_, row) in self.rows.iter_mut().enumerate().filter(|(index, _)| *index != pivot) {
                let factor = row[pivot];
                row.iter_mut().zip(&pivot_row).for_each(|(value, pivot)| *value -= factor * pivot);
            }
        }
        self.rows.iter().map(|row| [0, 1, 2].map(|part| row[unknowns + part] as f32)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_map_is_found_again() {
        let factors = [[0.5, -1.0, 0.25], [0.0, 2.0, -0.5], [0.1, 0.2, 0.3]];
        let mut equations = Equations::new(3);
        for probe in noise::field(1, Purpose::Initial, 0, 1, 500, 2).chunks_exact(2) {
            let known = [f64::from(probe[0]), f64::from(probe[1]), 1.0];
            equations.add(&known, [0, 1, 2].map(|part| (0..3).map(|at| known[at] * factors[at][part]).sum()));
        }
        for (found, known) in equations.solve().iter().zip(&factors) {
            assert!(found.iter().zip(known).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4), "{found:?}");
        }
    }
}
