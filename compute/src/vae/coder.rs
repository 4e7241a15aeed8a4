//! The two halves of an autoencoder, which have one form: a convolution, blocks and a mid block, and a convolution.

use burn::tensor::Tensor;

use super::config::VaeConfig;
use crate::attention::CellAttention;
use crate::conv::Conv;
use crate::group_norm::GroupNorm;
use crate::pace::{Cancelled, Pace, rest};
use crate::resnet::{Downsample, Resnet, ResnetShape, Upsample};
use crate::weights::{LoadError, Weights};

/// Added to every variance (fixed in diffusers' Encoder and Decoder).
const EPSILON: f64 = 1e-6;

/// The decoder (mid block first), or the encoder (mid block last).
pub(crate) struct Coder {
    conv_in: Conv,
    pub(crate) blocks: Vec<Block>,
    pub(crate) mid_block: MidBlock,
    mid_first: bool,
    norm_out: GroupNorm,
    conv_out: Conv,
}

/// Residual blocks at one resolution, and the way to the next.
pub(crate) struct Block {
    pub(crate) resnets: Vec<Resnet>,
    pub(crate) resize: Resize,
}

/// How a block ends.
pub(crate) enum Resize {
    Up(Upsample),
    Down(Downsample),
    Stay,
}

/// Two residual blocks with attention over all cells between them, if the model has it.
pub(crate) struct MidBlock {
    pub(crate) resnets: [Resnet; 2],
    pub(crate) attention: Option<CellAttention>,
}

impl Coder {
    pub(crate) fn load_decoder(weights: &Weights, config: &VaeConfig) -> Result<Self, LoadError> {
        let channels: Vec<usize> = config.channels.iter().rev().copied().collect();
        let last = channels.len() - 1;
        let block = |index: usize| {
            let weights = weights.at(format!("up_blocks.{index}"));
            let sides = [channels[index.saturating_sub(1)], channels[index]];
            let upsample = || Upsample::load(&weights.at("upsamplers.0"), channels[index]);
            let resize = if index < last { Resize::Up(upsample()?) } else { Resize::Stay };
            Block::load(&weights, sides, config.layers + 1, config.groups, resize)
        };
        Ok(Self {
            conv_in: Conv::load(&weights.at("conv_in"), config.latent_channels, channels[0], 3)?,
            blocks: (0..=last).map(block).collect::<Result<_, _>>()?,
            mid_block: MidBlock::load(&weights.at("mid_block"), channels[0], config)?,
            mid_first: true,
            norm_out: GroupNorm::load(&weights.at("conv_norm_out"), channels[last], config.groups, EPSILON)?,
            conv_out: Conv::load(&weights.at("conv_out"), channels[last], config.out_channels, 3)?,
        })
    }

    pub(crate) fn load_encoder(weights: &Weights, config: &VaeConfig) -> Result<Self, LoadError> {
        let channels = &config.channels;
        let last = channels.len() - 1;
        let block = |index: usize| {
            let weights = weights.at(format!("down_blocks.{index}"));
            let sides = [channels[index.saturating_sub(1)], channels[index]];
            let downsample = || Downsample::load(&weights.at("downsamplers.0"), channels[index], 0);
            let resize = if index < last { Resize::Down(downsample()?) } else { Resize::Stay };
            Block::load(&weights, sides, config.layers, config.groups, resize)
        };
        Ok(Self {
            conv_in: Conv::load(&weights.at("conv_in"), config.in_channels, channels[0], 3)?,
            blocks: (0..=last).map(block).collect::<Result<_, _>>()?,
            mid_block: MidBlock::load(&weights.at("mid_block"), channels[last], config)?,
            mid_first: false,
            norm_out: GroupNorm::load(&weights.at("conv_norm_out"), channels[last], config.groups, EPSILON)?,
            conv_out: Conv::load(&weights.at("conv_out"), channels[last], 2 * config.latent_channels, 3)?,
        })
    }

    /// `[batch, channels in, rows, columns]` to `[batch, channels out, ...]` with rows and columns multiplied or divided
    /// by the model's factor.
    pub(crate) async fn forward(&self, x: Tensor<4>, pace: &dyn Pace) -> Result<Tensor<4>, Cancelled> {
        let mut x = self.conv_in.forward(x);
        rest(&x, pace).await?;
        if self.mid_first {
            x = self.mid_block.forward(x, pace).await?;
        }
        for block in &self.blocks {
            x = block.forward(x, pace).await?;
        }
        if !self.mid_first {
            x = self.mid_block.forward(x, pace).await?;
        }
        Ok(self.conv_out.forward(self.norm_out.forward_silu(x)))
    }
}

impl Block {
    fn load(
        weights: &Weights,
        [inputs, outputs]: [usize; 2],
        layers: usize,
        groups: usize,
        resize: Resize,
    ) -> Result<Self, LoadError> {
        let resnet = |index: usize| {
            let inputs = if index == 0 { inputs } else { outputs };
            Resnet::load(&weights.at(format!("resnets.{index}")), inputs, outputs, &resnet_shape(groups))
        };
        Ok(Self { resnets: (0..layers).map(resnet).collect::<Result<_, _>>()?, resize })
    }

    pub(crate) async fn forward(&self, x: Tensor<4>, pace: &dyn Pace) -> Result<Tensor<4>, Cancelled> {
        let mut x = x;
        for resnet in &self.resnets {
            x = resnet.forward(x, None);
            rest(&x, pace).await?;
        }
        x = match &self.resize {
            Resize::Up(upsample) => upsample.forward(x, None),
            Resize::Down(downsample) => downsample.forward(x),
            Resize::Stay => x,
        };
        rest(&x, pace).await?;
        Ok(x)
    }
}

impl MidBlock {
    fn load(weights: &Weights, channels: usize, config: &VaeConfig) -> Result<Self, LoadError> {
        let resnet = |name| Resnet::load(&weights.at(name), channels, channels, &resnet_shape(config.groups));
        let attention = || CellAttention::load(&weights.at("attentions.0"), channels, config.groups);
        Ok(Self {
            resnets: [resnet("resnets.0")?, resnet("resnets.1")?],
            attention: config.mid_block_add_attention.then(attention).transpose()?,
        })
    }

    pub(crate) async fn forward(&self, x: Tensor<4>, pace: &dyn Pace) -> Result<Tensor<4>, Cancelled> {
        let mut x = self.resnets[0].forward(x, None);
        rest(&x, pace).await?;
        if let Some(attention) = &self.attention {
            x = attention.forward(x);
            rest(&x, pace).await?;
        }
        x = self.resnets[1].forward(x, None);
        rest(&x, pace).await?;
        Ok(x)
    }
}

fn resnet_shape(groups: usize) -> ResnetShape {
    ResnetShape { groups, epsilon: EPSILON, time_width: None, divisor: 1.0 }
}
