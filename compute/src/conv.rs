//! Convolution. On a processor as matrix products: the weights times the patches of the picture, a band of output rows at a
//! time; in browsers by Winograd's filters where they apply.

mod winograd;

use burn::tensor::{Tensor, TensorData};

use self::winograd::Winograd;
use crate::activation::FOR_BROWSERS;
#[cfg(feature = "gpu")]
use crate::device::is_processor;
use crate::threads;
use crate::weights::{LoadError, Weights};

/// Values of the patches that are laid out at once, about: they should stay in a processor's second-level cache.
const PATCH_VALUES: usize = 256 * 1024;

/// Fewest output cells in a band, so that the matrix product has enough columns to run at speed.
const BAND_CELLS_MIN: usize = 256;

/// A square convolution with bias.
pub(crate) struct Conv {
    kernels: Kernels,
    window: Window,
}

enum Kernels {
    Processor {
        /// `[outputs, inputs * kernel * kernel]`.
        weight: Tensor<2>,
        bias: Vec<f32>,
        winograd: Option<Winograd>,
    },
    #[cfg(feature = "gpu")]
    Gpu {
        /// `[outputs, inputs, kernel, kernel]`.
        weight: Tensor<4>,
        bias: Tensor<1>,
    },
}

/// How patches are taken from a picture.
#[derive(Clone, Copy)]
struct Window {
    kernel: usize,
    stride: usize,
    /// Zeros before and after both axes.
    padding: (usize, usize),
}

/// The sides of one channel, and how many columns it has afterwards.
#[derive(Clone, Copy)]
struct Sides {
    rows: usize,
    columns: usize,
    out_columns: usize,
}

impl Conv {
    /// Reads a `kernel` x `kernel` convolution that keeps the picture's size.
    pub(crate) fn load(weights: &Weights, inputs: usize, outputs: usize, kernel: usize) -> Result<Self, LoadError> {
        let padding = (kernel - 1) / 2;
        Self::load_with(weights, [inputs, outputs], kernel, 1, (padding, padding))
    }

    /// Reads a convolution with the given stride and padding (before, after).
    pub(crate) fn load_with(
        weights: &Weights,
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        stride: usize,
        padding: (usize, usize),
    ) -> Result<Self, LoadError> {
        let window = Window { kernel, stride, padding };
        let shape = [outputs, inputs, kernel, kernel];
        #[cfg(feature = "gpu")]
        if !is_processor(weights.device()) {
            let kernels =
                Kernels::Gpu { weight: weights.tensor("weight", shape)?, bias: weights.tensor("bias", [outputs])? };
            return Ok(Self { kernels, window });
        }
        let weight = weights.tensor("weight", shape)?.reshape([outputs, inputs * kernel * kernel]);
        let fits = kernel == 3 && stride == 1 && padding == (1, 1);
        // Native matrix kernels are three times as fast as a browser's, which has more to gain from fewer products.
        let winograd = (FOR_BROWSERS && fits).then(|| Winograd::new(weight.clone()));
        let kernels = Kernels::Processor { weight, bias: weights.values("bias", &[outputs])?, winograd };
        Ok(Self { kernels, window })
    }

    /// `[batch, inputs, rows, columns]` to `[batch, outputs, rows, columns]` (rows and columns divided by the stride).
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match &self.kernels {
            Kernels::Processor { weight, bias, winograd } => {
                self.window.on_processor(x, weight, bias, winograd.as_ref())
            }
            #[cfg(feature = "gpu")]
            Kernels::Gpu { weight, bias } => {
                let Window { stride, padding, .. } = self.window;
                crate::gpu::conv2d(x, weight.clone(), bias.clone(), stride, padding)
            }
        }
    }
}

impl Window {
    fn on_processor(&self, x: Tensor<4>, weight: &Tensor<2>, bias: &[f32], winograd: Option<&Winograd>) -> Tensor<4> {
        let ([batch, inputs, rows, columns], device) = (x.dims(), x.device());
        let (out_rows, out_columns) = (self.out(rows), self.out(columns));
        let sides = Sides { rows, columns, out_columns };
        let [outputs, depth] = weight.dims();
        let values = x.into_data().try_into_vec::<f32>().expect("every tensor here is f32");
        let mut result = vec![0.0; batch * outputs * out_rows * out_columns];

        let band_cells = (PATCH_VALUES / depth).max(BAND_CELLS_MIN);
        let band_rows = (band_cells / out_columns).clamp(1, out_rows);
        let pictures = values.chunks_exact(inputs * rows * columns);
        for (picture, result) in pictures.zip(result.chunks_exact_mut(outputs * out_rows * out_columns)) {
            if let Some(sums) = winograd.and_then(|winograd| winograd.forward(picture, rows, columns)) {
                let planes = result.chunks_exact_mut(rows * columns).zip(sums.chunks_exact(rows * columns));
                planes.zip(bias).for_each(|((plane, sums), bias)| add_bias(plane, sums, *bias));
                continue;
            }
            // The bands depend on the shape alone, never on the number of threads, and so do the bits.
            let firsts: Vec<usize> = (0..out_rows).step_by(band_rows).collect();
            let band = |first: &usize| {
                let last = (first + band_rows).min(out_rows);
                let patches = self.patches(picture, inputs, sides, *first..last);
                let patches = TensorData::new(patches, [depth, (last - first) * out_columns]);
                let product = weight.clone().matmul(Tensor::from_data(patches, &device));
                product.into_data().try_into_vec::<f32>().expect("every tensor here is f32")
            };
            let bands: Vec<Vec<f32>> = threads::map(&firsts, band);
            for ((plane, bias), output) in result.chunks_exact_mut(out_rows * out_columns).zip(bias).zip(0..) {
                let pieces = plane.chunks_mut(band_rows * out_columns).zip(&bands);
                pieces.for_each(|(piece, band)| add_bias(piece, &band[output * piece.len()..], *bias));
            }
        }
        Tensor::from_data(TensorData::new(result, [batch, outputs, out_rows, out_columns]), &device)
    }
}

fn add_bias(piece: &mut [f32], product: &[f32], bias: f32) {
    piece.iter_mut().zip(product).for_each(|(value, &product)| *value = product + bias);
}

impl Window {
    /// Cells along one axis after the convolution.
    fn out(&self, cells: usize) -> usize {
        (cells + self.padding.0 + self.padding.1).saturating_sub(self.kernel) / self.stride + 1
    }

    /// The patches under a band of output rows, `[channels * kernel * kernel, rows of the band * out_columns]`.
    fn patches(&self, picture: &[f32], channels: usize, sides: Sides, band: std::ops::Range<usize>) -> Vec<f32> {
        let Window { kernel, stride, padding: (before, _) } = *self;
        let Sides { rows, columns, out_columns, .. } = sides;
        let mut patches = vec![0.0; channels * kernel * kernel * band.len() * out_columns];
        let mut lines = patches.chunks_exact_mut(out_columns);
        for channel in picture.chunks_exact(rows * columns) {
            for (down, right) in (0..kernel * kernel).map(|offset| (offset / kernel, offset % kernel)) {
                for out_row in band.clone() {
                    let line = lines.next().expect("there is a line for each channel, offset and row");
                    // Cells outside the picture stay zero.
                    let Some(row) = (out_row * stride + down).checked_sub(before).filter(|row| *row < rows) else {
                        continue;
                    };
                    let row = &channel[row * columns..(row + 1) * columns];
                    copy_line(line, row, stride, right, before);
                }
            }
        }
        patches
    }
}

/// Sets `line[i]` to `row[i * stride + right - before]` wherever that is inside the row.
fn copy_line(line: &mut [f32], row: &[f32], stride: usize, right: usize, before: usize) {
    let first = before.saturating_sub(right).div_ceil(stride);
    let start = first * stride + right - before;
    if first >= line.len() || start >= row.len() {
        return;
    }
    let count = (row.len() - start).div_ceil(stride).min(line.len() - first);
    let line = &mut line[first..first + count];
    if stride == 1 {
        line.copy_from_slice(&row[start..start + count]);
    } else {
        line.iter_mut().zip(row[start..].iter().step_by(stride)).for_each(|(cell, value)| *cell = *value);
    }
}
