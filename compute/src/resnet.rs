//! Residual blocks, and the layers between resolutions.

use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Tensor, activation, module};

use crate::conv::Conv;
use crate::group_norm::GroupNorm;
use crate::layers::Linear;
use crate::weights::{LoadError, Weights};

/// What the residual blocks of one network share.
#[derive(Clone, Copy)]
pub(crate) struct ResnetShape {
    /// Groups of every normalisation.
    pub groups: usize,
    /// Added to every variance.
    pub epsilon: f64,
    /// Width of the time embedding; `None` in autoencoders.
    pub time_width: Option<usize>,
    /// The output is divided by this (diffusers' `output_scale_factor`).
    pub divisor: f32,
}

/// A residual block (diffusers' ResnetBlock2D with `time_embedding_norm` "default").
pub(crate) struct Resnet {
    norm1: GroupNorm,
    conv1: Conv,
    time_projection: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv,
    shortcut: Option<Conv>,
    divisor: f32,
}

impl Resnet {
    pub(crate) fn load(
        weights: &Weights,
        inputs: usize,
        outputs: usize,
        shape: &ResnetShape,
    ) -> Result<Self, LoadError> {
        let ResnetShape { groups, epsilon, time_width, divisor } = *shape;
        let project = |width| Linear::load(&weights.at("time_emb_proj"), width, outputs, true);
        let shortcut = (inputs != outputs).then(|| Conv::load(&weights.at("conv_shortcut"), inputs, outputs, 1));
        Ok(Self {
            norm1: GroupNorm::load(&weights.at("norm1"), inputs, groups, epsilon)?,
            conv1: Conv::load(&weights.at("conv1"), inputs, outputs, 3)?,
            time_projection: time_width.map(project).transpose()?,
            norm2: GroupNorm::load(&weights.at("norm2"), outputs, groups, epsilon)?,
            conv2: Conv::load(&weights.at("conv2"), outputs, outputs, 3)?,
            shortcut: shortcut.transpose()?,
            divisor,
        })
    }

    /// `[batch, inputs, rows, columns]` and, in a UNet, the time embedding `[batch, time_width]`, to
    /// `[batch, outputs, rows, columns]`.
    pub(crate) fn forward(&self, x: Tensor<4>, time: Option<&Tensor<2>>) -> Tensor<4> {
        let mut hidden = self.conv1.forward(self.norm1.forward_silu(x.clone()));
        if let (Some(projection), Some(time)) = (&self.time_projection, time) {
            let shift = projection.forward(activation::silu(time.clone()));
            let [batch, channels] = shift.dims();
            hidden = hidden + shift.reshape([batch, channels, 1, 1]);
        }
        let hidden = self.conv2.forward(self.norm2.forward_silu(hidden));
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        let sum = x + hidden;
        if self.divisor == 1.0 { sum } else { sum.div_scalar(self.divisor) }
    }
}

/// Halves rows and columns by a strided convolution.
pub(crate) struct Downsample(Conv);

impl Downsample {
    /// `padding` 1 pads all sides; 0, as autoencoders use it, pads only below and to the right.
    pub(crate) fn load(weights: &Weights, channels: usize, padding: usize) -> Result<Self, LoadError> {
        let padding = if padding == 0 { (0, 1) } else { (padding, padding) };
        Ok(Self(Conv::load_with(&weights.at("conv"), [channels; 2], 3, 2, padding)?))
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.0.forward(x)
    }
}

/// Enlarges by nearest neighbour, then convolves.
pub(crate) struct Upsample(Conv);

impl Upsample {
    pub(crate) fn load(weights: &Weights, channels: usize) -> Result<Self, LoadError> {
        Ok(Self(Conv::load(&weights.at("conv"), channels, channels, 3)?))
    }

    /// To `size` (rows, columns), or to twice the size.
    pub(crate) fn forward(&self, x: Tensor<4>, size: Option<[usize; 2]>) -> Tensor<4> {
        let [_, _, rows, columns] = x.dims();
        let size = size.unwrap_or([2 * rows, 2 * columns]);
        self.0.forward(module::interpolate(x, InterpolateOptions::new(InterpolateMode::Nearest).with_output_size(size)))
    }
}
