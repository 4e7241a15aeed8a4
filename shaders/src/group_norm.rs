//! The twin of `group_norm.wgsl`: the second pass of a group norm, with SiLU after it where the network has one.

use crate::kernel::{Kernel, fill};
use crate::statistics::{CHUNK, Statistics};

/// The WGSL template.
pub const GROUP_NORM: &str = include_str!("group_norm.wgsl");

/// Normalises `x [batch, groups, channels, area]` over its last two axes, with `weight` and `bias`
/// `[groups * channels]`, given the [`Statistics`] of its groups.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupNorm {
    /// Pictures.
    pub batch: usize,
    /// Groups of one picture.
    pub groups: usize,
    /// Channels of one group.
    pub channels: usize,
    /// Cells of one channel.
    pub area: usize,
    /// The bits of the f32 that is added to the variance.
    pub epsilon: u32,
    /// Whether the result is `y * sigmoid(y)`.
    pub silu: bool,
}

impl GroupNorm {
    /// The kernel of the first pass.
    pub fn statistics(&self) -> Statistics {
        Statistics { groups: self.batch * self.groups, size: self.channels * self.area }
    }
}

impl Kernel for GroupNorm {
    const INVOCATIONS: [u32; 3] = [256, 1, 1];

    fn variant(&self) -> [usize; 3] {
        [usize::from(self.silu), 0, 0]
    }

    fn source(&self) -> String {
        fill(GROUP_NORM, &[("SILU", self.silu.to_string())])
    }

    fn sizes(&self) -> Vec<usize> {
        let Self { groups, channels, area, epsilon, .. } = *self;
        let first = self.statistics();
        vec![first.groups, groups, channels, area, first.chunks(), first.fold().width, epsilon as usize]
    }

    fn grid(&self) -> [usize; 3] {
        self.statistics().grid_of_chunks()
    }
}

/// The same shape as `x`; `statistics` as the function of that name returns them.
pub fn group_norm(shape: &GroupNorm, x: &[f32], statistics: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let groups = shape.statistics();
    let (size, chunks) = (groups.size, groups.chunks());
    let mut out = Vec::with_capacity(x.len());
    for index in 0..groups.groups {
        let (mut count, mut mean, mut spread) = (0.0f32, 0.0f32, 0.0f32);
        for chunk in 0..chunks {
            let other = CHUNK.min(size - chunk * CHUNK) as f32;
            let away = statistics[(index * chunks + chunk) * 2] - mean;
            let share = other / (count + other);
            spread += statistics[(index * chunks + chunk) * 2 + 1] + away * away * count * share;
            mean += away * share;
            count += other;
        }
        let scale = 1.0 / (spread / count + f32::from_bits(shape.epsilon)).sqrt();
        for i in 0..size {
            let channel = index % shape.groups * shape.channels + i / shape.area;
            let value = (x[index * size + i] - mean) * (weight[channel] * scale) + bias[channel];
            out.push(if shape.silu { value / (1.0 + (-value).min(80.0).exp()) } else { value });
        }
    }
    out
}
