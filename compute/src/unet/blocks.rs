//! The blocks of a UNet: residual blocks, each followed by a transformer where the block has them.

use burn::tensor::Tensor;

use crate::attention::{Transformer, TransformerShape};
use crate::pace::{Cancelled, Pace, rest};
use crate::resnet::{Downsample, Resnet, ResnetShape, Upsample};
use crate::weights::{LoadError, Weights};

/// What every layer of the UNet is given beside its input.
pub(crate) struct Conditions {
    /// The embedding of the timestep, `[batch, 4 * channels of the finest resolution]`.
    pub time: Tensor<2>,
    /// The embedding of the text, `[batch, tokens, context_width]`.
    pub text: Tensor<3>,
}

/// A block that ends at half its resolution, or, the last one, where it began.
pub(crate) struct DownBlock {
    pub(crate) resnets: Vec<Resnet>,
    pub(crate) attentions: Vec<Transformer>,
    pub(crate) downsample: Option<Downsample>,
}

impl DownBlock {
    /// `downsample` is the padding of the convolution that halves the resolution, if there is one.
    pub(crate) fn load(
        weights: &Weights,
        [inputs, outputs]: [usize; 2],
        layers: usize,
        resnet: &ResnetShape,
        transformer: Option<&TransformerShape>,
        downsample: Option<usize>,
    ) -> Result<Self, LoadError> {
        let inputs = |layer| if layer == 0 { inputs } else { outputs };
        Ok(Self {
            resnets: load_resnets(weights, layers, inputs, outputs, resnet)?,
            attentions: load_transformers(weights, layers, outputs, transformer)?,
            downsample: downsample
                .map(|padding| Downsample::load(&weights.at("downsamplers.0"), outputs, padding))
                .transpose()?,
        })
    }

    /// Pushes every intermediate picture that an up block will ask for.
    pub(crate) async fn forward(
        &self,
        x: Tensor<4>,
        conditions: &Conditions,
        skips: &mut Vec<Tensor<4>>,
        pace: &dyn Pace,
    ) -> Result<Tensor<4>, Cancelled> {
        let mut x = x;
        for (index, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, Some(&conditions.time));
            rest(&x, pace).await?;
            if let Some(transformer) = self.attentions.get(index) {
                x = transformer.forward(x, &conditions.text);
                rest(&x, pace).await?;
            }
            skips.push(x.clone());
        }
        if let Some(downsample) = &self.downsample {
            x = downsample.forward(x);
            skips.push(x.clone());
        }
        Ok(x)
    }
}

/// The block at the coarsest resolution: residual blocks with a transformer between them.
pub(crate) struct MidBlock {
    pub(crate) resnets: Vec<Resnet>,
    pub(crate) attentions: Vec<Transformer>,
}

impl MidBlock {
    pub(crate) fn load(
        weights: &Weights,
        channels: usize,
        resnet: &ResnetShape,
        transformer: &TransformerShape,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            resnets: load_resnets(weights, 2, |_| channels, channels, resnet)?,
            attentions: load_transformers(weights, 1, channels, Some(transformer))?,
        })
    }

    pub(crate) async fn forward(
        &self,
        x: Tensor<4>,
        conditions: &Conditions,
        pace: &dyn Pace,
    ) -> Result<Tensor<4>, Cancelled> {
        let x = self.resnets[0].forward(x, Some(&conditions.time));
        rest(&x, pace).await?;
        let x = self.attentions[0].forward(x, &conditions.text);
        rest(&x, pace).await?;
        let x = self.resnets[1].forward(x, Some(&conditions.time));
        rest(&x, pace).await?;
        Ok(x)
    }
}

/// A block that takes back what a down block left, and ends at twice its resolution, but for the last one.
pub(crate) struct UpBlock {
    pub(crate) resnets: Vec<Resnet>,
    pub(crate) attentions: Vec<Transformer>,
    pub(crate) upsample: Option<Upsample>,
}

impl UpBlock {
    /// `skips` are the channels that join before each residual block, in order; `inputs` those of the block before.
    pub(crate) fn load(
        weights: &Weights,
        [inputs, outputs]: [usize; 2],
        skips: &[usize],
        resnet: &ResnetShape,
        transformer: Option<&TransformerShape>,
        upsample: bool,
    ) -> Result<Self, LoadError> {
        let inputs = |layer| skips[layer] + if layer == 0 { inputs } else { outputs };
        Ok(Self {
            resnets: load_resnets(weights, skips.len(), inputs, outputs, resnet)?,
            attentions: load_transformers(weights, skips.len(), outputs, transformer)?,
            upsample: upsample.then(|| Upsample::load(&weights.at("upsamplers.0"), outputs)).transpose()?,
        })
    }

    /// Pops one picture of `skips` before each residual block.
    pub(crate) async fn forward(
        &self,
        x: Tensor<4>,
        conditions: &Conditions,
        skips: &mut Vec<Tensor<4>>,
        pace: &dyn Pace,
    ) -> Result<Tensor<4>, Cancelled> {
        let mut x = x;
        for (index, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("down blocks push as many pictures as up blocks pop");
            x = resnet.forward(Tensor::cat(vec![x, skip], 1), Some(&conditions.time));
            rest(&x, pace).await?;
            if let Some(transformer) = self.attentions.get(index) {
                x = transformer.forward(x, &conditions.text);
                rest(&x, pace).await?;
            }
        }
        Ok(match (&self.upsample, skips.last()) {
            // Where a down block rounded an odd size up, twice the size is one too many.
            (Some(upsample), Some(skip)) => {
                let [_, _, rows, columns] = skip.dims();
                upsample.forward(x, Some([rows, columns]))
            }
            (Some(upsample), None) => upsample.forward(x, None),
            (None, _) => x,
        })
    }
}

fn load_resnets(
    weights: &Weights,
    count: usize,
    inputs: impl Fn(usize) -> usize,
    outputs: usize,
    shape: &ResnetShape,
) -> Result<Vec<Resnet>, LoadError> {
    let load = |index| Resnet::load(&weights.at(format!("resnets.{index}")), inputs(index), outputs, shape);
    (0..count).map(load).collect()
}

fn load_transformers(
    weights: &Weights,
    count: usize,
    width: usize,
    shape: Option<&TransformerShape>,
) -> Result<Vec<Transformer>, LoadError> {
    let Some(shape) = shape else { return Ok(Vec::new()) };
    (0..count).map(|index| Transformer::load(&weights.at(format!("attentions.{index}")), width, shape)).collect()
}
