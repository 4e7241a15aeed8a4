//! The UNet (diffusers' UNet2DConditionModel): predicts noise, velocity or flow from a noisy latent, a timestep and a text.

mod blocks;
mod config;

use burn::tensor::{Device, Tensor, TensorData, activation};

pub(crate) use self::blocks::{Conditions, DownBlock, MidBlock, UpBlock};
pub(crate) use self::config::UnetConfig;
use crate::attention::TransformerShape;
use crate::conv::Conv;
use crate::files::Files;
use crate::group_norm::GroupNorm;
use crate::layers::Linear;
use crate::pace::{Cancelled, Pace, rest};
use crate::resnet::ResnetShape;
use crate::weights::{LoadError, Weights};

/// The longest wavelength of the timestep's sinusoids, in timesteps over 2 pi.
const PERIOD_MAX: f64 = 10_000.0;

/// A UNet with its weights.
pub struct Unet {
    config: UnetConfig,
    device: Device,
    pub(crate) conv_in: Conv,
    pub(crate) time_embedding: TimeEmbedding,
    pub(crate) down_blocks: Vec<DownBlock>,
    pub(crate) mid_block: MidBlock,
    pub(crate) up_blocks: Vec<UpBlock>,
    norm_out: GroupNorm,
    pub(crate) conv_out: Conv,
}

impl Unet {
    /// Loads the component `unet` from its files.
    pub fn load(files: &Files, device: &Device) -> Result<Self, LoadError> {
        let config = UnetConfig::open(files)?;
        let weights = Weights::open(files, "diffusion_pytorch_model", device)?;
        let channels = &config.channels;
        let (finest, coarsest) = (channels[0], channels[channels.len() - 1]);
        let time_width = 4 * finest;
        let resnet = |divisor| {
            let (groups, epsilon) = (config.groups, config.epsilon);
            ResnetShape { groups, epsilon, time_width: Some(time_width), divisor }
        };
        // diffusers never restricts the mid block of this kind to the text.
        let mid_transformer = config.transformer(channels.len() - 1, false);
        Ok(Self {
            device: device.clone(),
            conv_in: Conv::load(&weights.at("conv_in"), config.in_channels, finest, config.conv_in_kernel)?,
            time_embedding: TimeEmbedding::load(&weights.at("time_embedding"), finest, time_width)?,
            down_blocks: load_down(&weights, &config, &resnet(1.0))?,
            mid_block: MidBlock::load(
                &weights.at("mid_block"),
                coarsest,
                &resnet(config.mid_divisor),
                &mid_transformer,
            )?,
            up_blocks: load_up(&weights, &config, &resnet(1.0))?,
            norm_out: GroupNorm::load(&weights.at("conv_norm_out"), finest, config.groups, config.epsilon)?,
            conv_out: Conv::load(&weights.at("conv_out"), finest, config.out_channels, config.conv_out_kernel)?,
            config,
        })
    }

    /// Evaluates the network: `sample` `[batch, in_channels, rows, columns]`, one `timestep` for the whole batch, `text`
    /// `[batch, tokens, context_width]`; gives `[batch, out_channels, rows, columns]`. Any size from 1 x 1 will do.
    pub async fn forward(
        &self,
        sample: Tensor<4>,
        timestep: f32,
        text: Tensor<3>,
        pace: &dyn Pace,
    ) -> Result<Tensor<4>, Cancelled> {
        let [batch, ..] = sample.dims();
        let sample = match self.config.center_input_sample {
            true => sample.mul_scalar(2.0).sub_scalar(1.0),
            false => sample,
        };
        let time = self.time_embedding.forward(self.sinusoids(timestep, batch));
        let conditions = Conditions { time, text };

        let mut x = self.conv_in.forward(sample);
        let mut skips = vec![x.clone()];
        rest(&x, pace).await?;
        for block in &self.down_blocks {
            x = block.forward(x, &conditions, &mut skips, pace).await?;
        }
        x = self.mid_block.forward(x, &conditions, pace).await?;
        for block in &self.up_blocks {
            x = block.forward(x, &conditions, &mut skips, pace).await?;
        }
        Ok(self.conv_out.forward(self.norm_out.forward_silu(x)))
    }

    /// The sinusoids of a timestep, `[batch, channels of the finest resolution]`, rounded to f32 where PyTorch rounds.
    pub(crate) fn sinusoids(&self, timestep: f32, batch: usize) -> Tensor<2> {
        let width = self.config.channels[0];
        let half = width / 2;
        let angle = |index: usize| {
            let exponent = (-PERIOD_MAX.ln()) as f32 * index as f32 / (half as f64 - self.config.freq_shift) as f32;
            f64::from(timestep * f64::from(exponent).exp() as f32)
        };
        let sines = (0..half).map(|index| angle(index).sin() as f32);
        let cosines = (0..half).map(|index| angle(index).cos() as f32);
        let mut row: Vec<f32> = match self.config.flip_sin_to_cos {
            true => cosines.chain(sines).collect(),
            false => sines.chain(cosines).collect(),
        };
        row.resize(width, 0.0); // An odd width ends with a zero.
        Tensor::from_data(TensorData::new(row.repeat(batch), [batch, width]), &self.device)
    }
}

impl UnetConfig {
    fn transformer(&self, block: usize, only_cross_attention: bool) -> TransformerShape {
        TransformerShape {
            heads: self.heads[block],
            layers: self.transformer_layers[block],
            context_width: self.context_width[block],
            groups: self.groups,
            linear_projection: self.linear_projection,
            only_cross_attention,
        }
    }
}

fn load_down(weights: &Weights, config: &UnetConfig, resnet: &ResnetShape) -> Result<Vec<DownBlock>, LoadError> {
    let channels = &config.channels;
    let load = |block: usize| {
        let inputs = channels[block.saturating_sub(1)];
        let transformer = config.transformer(block, config.only_cross_attention[block]);
        let transformer = config.down_attention[block].then_some(&transformer);
        let downsample = (block + 1 < channels.len()).then_some(config.downsample_padding);
        let weights = weights.at(format!("down_blocks.{block}"));
        DownBlock::load(&weights, [inputs, channels[block]], config.layers[block], resnet, transformer, downsample)
    };
    (0..channels.len()).map(load).collect()
}

/// Up block `index` mirrors the down block at `level`; its last residual block takes what the level above it left.
fn load_up(weights: &Weights, config: &UnetConfig, resnet: &ResnetShape) -> Result<Vec<UpBlock>, LoadError> {
    let channels = &config.channels;
    let last = channels.len() - 1;
    let load = |index: usize| {
        let level = last - index;
        let inputs = channels[(level + 1).min(last)];
        let mut skips = vec![channels[level]; config.layers[level]];
        skips.push(channels[level.saturating_sub(1)]);
        let transformer = config.transformer(level, config.only_cross_attention[level]);
        let transformer = config.up_attention[index].then_some(&transformer);
        let weights = weights.at(format!("up_blocks.{index}"));
        UpBlock::load(&weights, [inputs, channels[level]], &skips, resnet, transformer, index < last)
    };
    (0..channels.len()).map(load).collect()
}

/// Two linear layers over the timestep's sinusoids.
pub(crate) struct TimeEmbedding {
    first: Linear,
    second: Linear,
}

impl TimeEmbedding {
    fn load(weights: &Weights, inputs: usize, width: usize) -> Result<Self, LoadError> {
        Ok(Self {
            first: Linear::load(&weights.at("linear_1"), inputs, width, true)?,
            second: Linear::load(&weights.at("linear_2"), width, width, true)?,
        })
    }

    pub(crate) fn forward(&self, sinusoids: Tensor<2>) -> Tensor<2> {
        self.second.forward(activation::silu(self.first.forward(sinusoids)))
    }
}
