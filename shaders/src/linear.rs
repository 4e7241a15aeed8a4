//! The twin of `linear.wgsl`: a matrix product, with a bias on each row or without.

use crate::kernel::{Fold, Kernel, fill};

/// The WGSL template.
pub const LINEAR: &str = include_str!("linear.wgsl");

/// Rows, and columns, of one workgroup.
const TILE: usize = 64;

/// Products that are summed before they join the sum.
const SLICE: usize = 16;

/// `x [rows, inputs]` times `weight [inputs, outputs]`, plus `bias [outputs]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Linear {
    /// Rows of `x` and of the result.
    pub rows: usize,
    /// Columns of `x`.
    pub inputs: usize,
    /// Columns of the result.
    pub outputs: usize,
    /// Whether there is a bias; bound after the result.
    pub bias: bool,
}

impl Linear {
    fn fold(&self) -> Fold {
        Fold::new(self.rows.div_ceil(TILE))
    }
}

impl Kernel for Linear {
    const INVOCATIONS: [u32; 3] = [16, 16, 1];

    fn variant(&self) -> [usize; 3] {
        [usize::from(self.bias), 0, 0]
    }

    fn source(&self) -> String {
        let binding = "@group(0) @binding(3) var<storage, read_write> bias: array<f32>;";
        let (binding, bias, sizes_at) = if self.bias { (binding, "bias[column]", "4") } else { ("", "0.0", "3") };
        let values = [("BIAS_BINDING", binding), ("BIAS", bias), ("SIZES_AT", sizes_at)];
        fill(LINEAR, &values.map(|(name, value)| (name, value.to_owned())))
    }

    fn sizes(&self) -> Vec<usize> {
        vec![self.rows, self.inputs, self.outputs, self.fold().width]
    }

    fn grid(&self) -> [usize; 3] {
        let Fold { width, rows } = self.fold();
        [width, self.outputs.div_ceil(TILE), rows]
    }
}

/// `[rows, outputs]`.
pub fn linear(shape: &Linear, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let Linear { rows, inputs, outputs, .. } = *shape;
    let bias_at = |column: usize| bias.map_or(0.0, |bias| bias[column]);
    let mut out = Vec::with_capacity(rows * outputs);
    for (row, column) in (0..rows * outputs).map(|at| (at / outputs, at % outputs)) {
        let mut sum = 0.0;
        for first_input in (0..inputs).step_by(SLICE) {
            let mut part = 0.0;
            for input in first_input..inputs.min(first_input + SLICE) {
                part += x[row * inputs + input] * weight[input * outputs + column];
            }
            sum += part;
        }
        out.push(sum + bias_at(column));
    }
    out
}
