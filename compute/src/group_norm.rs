//! Group normalisation, with SiLU after it where the network has one, as one pass over the values.

use burn::tensor::{Tensor, TensorData};

use crate::activation::{FOR_BROWSERS, silu};
#[cfg(feature = "gpu")]
use crate::device::is_processor;
use crate::threads;
use crate::weights::{LoadError, Weights};

/// Values summed in f32 before the sum goes to f64.
const RUN: usize = 1024;

/// Independent sums within a run, which the compiler may keep in one vector register.
const LANES: usize = 8;

/// Normalises groups of neighbouring channels over their whole area.
pub(crate) struct GroupNorm {
    affine: Affine,
    groups: usize,
    epsilon: f64,
}

/// Weight and bias of each channel.
enum Affine {
    Processor {
        weight: Vec<f32>,
        bias: Vec<f32>,
    },
    #[cfg(feature = "gpu")]
    Gpu {
        weight: Tensor<1>,
        bias: Tensor<1>,
    },
}

impl GroupNorm {
    /// Reads `weight` and `bias`, both `[channels]`; `groups` must divide `channels`.
    pub(crate) fn load(weights: &Weights, channels: usize, groups: usize, epsilon: f64) -> Result<Self, LoadError> {
        if !channels.is_multiple_of(groups) {
            return Err(weights.malformed(&format!("{groups} groups do not divide {channels} channels")));
        }
        #[cfg(feature = "gpu")]
        if !is_processor(weights.device()) {
            let (weight, bias) = (weights.tensor("weight", [channels])?, weights.tensor("bias", [channels])?);
            return Ok(Self { affine: Affine::Gpu { weight, bias }, groups, epsilon });
        }
        let weight = weights.values("weight", &[channels])?;
        let affine = Affine::Processor { weight, bias: weights.values("bias", &[channels])? };
        Ok(Self { affine, groups, epsilon })
    }

    /// `[batch, channels, rows, columns]` to the same shape.
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match &self.affine {
            Affine::Processor { weight, bias } => self.on_processor(x, weight, bias, |value| value),
            #[cfg(feature = "gpu")]
            Affine::Gpu { weight, bias } => {
                crate::gpu::group_norm(x, self.groups, weight.clone(), bias.clone(), self.epsilon, false)
            }
        }
    }

    /// The same, then `x * sigmoid(x)`.
    pub(crate) fn forward_silu(&self, x: Tensor<4>) -> Tensor<4> {
        match &self.affine {
            Affine::Processor { weight, bias } if FOR_BROWSERS => self.on_processor(x, weight, bias, silu),
            Affine::Processor { weight, bias } => {
                self.on_processor(x, weight, bias, |value| value / (1.0 + (-value).exp()))
            }
            #[cfg(feature = "gpu")]
            Affine::Gpu { weight, bias } => {
                crate::gpu::group_norm(x, self.groups, weight.clone(), bias.clone(), self.epsilon, true)
            }
        }
    }

    /// Groups are computed independently of each other, so that bits do not depend on the number of threads.
    fn on_processor(
        &self,
        x: Tensor<4>,
        weight: &[f32],
        bias: &[f32],
        then: impl Fn(f32) -> f32 + Sync + Send,
    ) -> Tensor<4> {
        let (shape, device) = (x.dims(), x.device());
        let [_, channels, rows, columns] = shape;
        let (area, channels) = (rows * columns, channels / self.groups);
        let mut values = x.into_data().try_into_vec::<f32>().expect("every tensor here is f32");
        threads::each_chunk(&mut values, channels * area, |index, group| {
            let first = index % self.groups * channels;
            let (mean, scale) = statistics(group, self.epsilon);
            for (plane, channel) in group.chunks_exact_mut(area).zip(first..) {
                let (weight, bias) = (weight[channel] * scale, bias[channel]);
                plane.iter_mut().for_each(|value| *value = then((*value - mean) * weight + bias));
            }
        });
        Tensor::from_data(TensorData::new(values, shape), &device)
    }
}

/// Mean, and one over the standard deviation with `epsilon` under the root.
fn statistics(values: &[f32], epsilon: f64) -> (f32, f32) {
    let count = values.len() as f64;
    let mean = (sum(values, |value| value) / count) as f32;
    let variance = sum(values, |value| (value - mean) * (value - mean)) / count;
    (mean, (1.0 / (variance + epsilon).sqrt()) as f32)
}

fn sum(values: &[f32], term: impl Fn(f32) -> f32) -> f64 {
    let run = |run: &[f32]| -> f64 {
        let mut lanes = [0.0f32; LANES];
        let chunks = run.chunks_exact(LANES);
        let rest: f32 = chunks.remainder().iter().map(|&value| term(value)).sum();
        for chunk in chunks {
            lanes.iter_mut().zip(chunk).for_each(|(lane, &value)| *lane += term(value));
        }
        lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>() + f64::from(rest)
    };
    values.chunks(RUN).map(run).sum()
}
