//! The layers every network is made of, with their weights.

use burn::tensor::{Tensor, TensorData, activation, module};

use crate::config::Config;
#[cfg(feature = "gpu")]
use crate::device::is_processor;
use crate::weights::{LoadError, Weights};

/// `y = x W + b`.
pub(crate) struct Linear {
    /// `[inputs, outputs]`: the transpose of what PyTorch stores.
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
}

impl Linear {
    /// Reads `weight` `[outputs, inputs]` and, if there must be one, `bias` `[outputs]`.
    pub(crate) fn load(weights: &Weights, inputs: usize, outputs: usize, bias: bool) -> Result<Self, LoadError> {
        let weight = weights.values("weight", &[outputs, inputs])?;
        Self::new(weights, weight, inputs, outputs, bias)
    }

    /// Reads a 1 x 1 convolution's `weight` `[outputs, inputs, 1, 1]` and `bias` as the linear layer that it is.
    pub(crate) fn load_pointwise(weights: &Weights, inputs: usize, outputs: usize) -> Result<Self, LoadError> {
        let weight = weights.values("weight", &[outputs, inputs, 1, 1])?;
        Self::new(weights, weight, inputs, outputs, true)
    }

    fn new(weights: &Weights, weight: Vec<f32>, inputs: usize, outputs: usize, bias: bool) -> Result<Self, LoadError> {
        let transposed = (0..inputs * outputs).map(|at| weight[at % outputs * inputs + at / outputs]).collect();
        let weight = Tensor::from_data(TensorData::new::<f32, _>(transposed, [inputs, outputs]), weights.device());
        let bias = if bias { Some(weights.tensor("bias", [outputs])?) } else { None };
        Ok(Self { weight, bias })
    }

    /// `[..., inputs]` to `[..., outputs]`.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        #[cfg(feature = "gpu")]
        if !is_processor(&self.weight.device()) {
            return crate::gpu::linear(x, self.weight.clone(), self.bias.clone());
        }
        module::linear(x, self.weight.clone(), self.bias.clone())
    }
}

/// Layer normalisation over the last axis.
pub(crate) struct LayerNorm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
}

impl LayerNorm {
    /// Reads `weight` and `bias`, both `[width]`.
    pub(crate) fn load(weights: &Weights, width: usize, epsilon: f64) -> Result<Self, LoadError> {
        Ok(Self { weight: weights.tensor("weight", [width])?, bias: weights.tensor("bias", [width])?, epsilon })
    }

    /// `[..., width]` to the same shape.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        module::layer_norm(x, self.weight.clone(), Some(self.bias.clone()), self.epsilon)
    }
}

/// The activations of the text encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x * sigmoid(1.702 x)`, which OpenAI's CLIP was trained with.
    QuickGelu,
    /// The exact Gaussian error linear unit.
    Gelu,
}

impl Activation {
    /// Reads the key `hidden_act`.
    pub(crate) fn read(config: &Config) -> Result<Self, LoadError> {
        match config.text("hidden_act", "quick_gelu")? {
            "quick_gelu" => Ok(Self::QuickGelu),
            "gelu" => Ok(Self::Gelu),
            other => {
                Err(config.unsupported(format!("hidden_act is {other}, and only quick_gelu and gelu are supported")))
            }
        }
    }

    pub(crate) fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::QuickGelu => activation::sigmoid(x.clone().mul_scalar(1.702)) * x,
            Self::Gelu => activation::gelu(x),
        }
    }
}
