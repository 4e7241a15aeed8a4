//! The twin of `conv.wgsl`: a square convolution with bias, as the weights times the patches under the window.

use crate::kernel::{Fold, Kernel, fill, unsigned};

/// The WGSL template.
pub const CONV: &str = include_str!("conv.wgsl");

/// Output channels, and output cells, of one workgroup.
const TILE: usize = 64;

/// Products that are summed before they join the sum.
const SLICE: usize = 16;

/// A convolution of `x [batch, inputs, rows, columns]` with `weight [outputs, inputs, kernel, kernel]` and
/// `bias [outputs]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv {
    /// Pictures.
    pub batch: usize,
    /// Channels of `x`.
    pub inputs: usize,
    /// Channels of the result.
    pub outputs: usize,
    /// Rows of `x`.
    pub rows: usize,
    /// Columns of `x`.
    pub columns: usize,
    /// Cells along each side of the window.
    pub kernel: usize,
    /// Cells from one window to the next, on both axes.
    pub stride: usize,
    /// Zeros before and after both axes.
    pub padding: (usize, usize),
}

impl Conv {
    /// Rows of the result.
    pub fn out_rows(&self) -> usize {
        self.out(self.rows)
    }

    /// Columns of the result.
    pub fn out_columns(&self) -> usize {
        self.out(self.columns)
    }

    fn out(&self, cells: usize) -> usize {
        let padded = cells + self.padding.0 + self.padding.1;
        if padded < self.kernel { 0 } else { (padded - self.kernel) / self.stride + 1 }
    }

    fn fold(&self) -> Fold {
        Fold::new((self.out_rows() * self.out_columns()).div_ceil(TILE))
    }
}

impl Kernel for Conv {
    const INVOCATIONS: [u32; 3] = [16, 16, 1];

    fn variant(&self) -> [usize; 3] {
        [self.kernel, self.stride, self.padding.0]
    }

    fn source(&self) -> String {
        let values = [("KERNEL", self.kernel), ("STRIDE", self.stride), ("BEFORE", self.padding.0)];
        fill(CONV, &values.map(|(name, value)| (name, unsigned(value))))
    }

    fn sizes(&self) -> Vec<usize> {
        let Fold { width, rows } = self.fold();
        let cells = self.out_rows() * self.out_columns();
        vec![self.inputs, self.outputs, self.rows, self.columns, self.out_columns(), cells, width, rows]
    }

    fn grid(&self) -> [usize; 3] {
        let Fold { width, rows } = self.fold();
        [width, self.outputs.div_ceil(TILE), rows * self.batch]
    }
}

/// `[batch, outputs, out_rows, out_columns]`.
pub fn conv(shape: &Conv, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let Conv { batch, inputs, outputs, rows, columns, kernel, stride, padding: (before, _) } = *shape;
    let (out_rows, out_columns) = (shape.out_rows(), shape.out_columns());
    let (window, depths) = (kernel * kernel, inputs * kernel * kernel);
    let mut out = Vec::with_capacity(batch * outputs * out_rows * out_columns);
    for (picture, channel) in (0..batch * outputs).map(|plane| (plane / outputs, plane % outputs)) {
        for cell in 0..out_rows * out_columns {
            let (top, left) = (cell / out_columns * stride, cell % out_columns * stride);
            let mut sum = 0.0;
            for first_depth in (0..depths).step_by(SLICE) {
                let mut part = 0.0;
                for depth in first_depth..depths.min(first_depth + SLICE) {
                    let plane = (picture * inputs + depth / window) * (rows * columns);
                    let row = (top + depth % window / kernel).checked_sub(before).filter(|row| *row < rows);
                    let column = (left + depth % kernel).checked_sub(before).filter(|column| *column < columns);
                    let value = match (row, column) {
                        (Some(row), Some(column)) => x[plane + row * columns + column],
                        (None, _) | (_, None) => 0.0,
                    };
                    part += weight[channel * depths + depth] * value;
                }
                sum += part;
            }
            out.push(sum + bias[channel]);
        }
    }
    out
}
