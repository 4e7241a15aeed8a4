//! Attention, and the transformers between residual blocks.

mod softmax;

use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Tensor, TensorData, activation, module};

use crate::activation::{FOR_BROWSERS, gelu};
use crate::device::is_processor;
use crate::group_norm::GroupNorm;
use crate::layers::{LayerNorm, Linear};
use crate::weights::{LoadError, Weights};

/// Added to the variance in the norms of a transformer block (PyTorch's default).
const LAYER_EPSILON: f64 = 1e-5;

/// Added to the variance in the group norm before a transformer or an autoencoder's attention.
pub(crate) const GROUP_EPSILON: f64 = 1e-6;

/// Multi-head attention. All arithmetic is f32, so that `upcast_attention` has nothing left to ask for.
pub(crate) struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: usize,
}

impl Attention {
    /// Reads `to_q`, `to_k`, `to_v` (with `bias` or not) and `to_out.0`; `heads` must divide `width`.
    pub(crate) fn load(
        weights: &Weights,
        width: usize,
        context_width: usize,
        heads: usize,
        bias: bool,
    ) -> Result<Self, LoadError> {
        Self::load_named(weights, ["to_q", "to_k", "to_v", "to_out.0"], [width, context_width], heads, bias)
    }

    /// Reads the four projections (query, key, value, out) under other names.
    pub(crate) fn load_named(
        weights: &Weights,
        names: [&str; 4],
        [width, context_width]: [usize; 2],
        heads: usize,
        bias: bool,
    ) -> Result<Self, LoadError> {
        if !width.is_multiple_of(heads) {
            return Err(weights.malformed(&format!("{heads} heads do not divide a width of {width}")));
        }
        let [query, key, value, out] = names.map(|name| weights.at(name));
        Ok(Self {
            query: Linear::load(&query, width, width, bias)?,
            key: Linear::load(&key, context_width, width, bias)?,
            value: Linear::load(&value, context_width, width, bias)?,
            out: Linear::load(&out, width, width, true)?,
            heads,
        })
    }

    /// Attends from `x` `[batch, tokens, width]` to `context` `[batch, others, context_width]`.
    pub(crate) fn forward(&self, x: Tensor<3>, context: Tensor<3>, causal: bool) -> Tensor<3> {
        let [batch, tokens, width] = x.dims();
        let split = |y: Tensor<3>| {
            let [batch, tokens, width] = y.dims();
            y.reshape([batch, tokens, self.heads, width / self.heads]).swap_dims(1, 2)
        };
        let query = split(self.query.forward(x));
        let key = split(self.key.forward(context.clone()));
        let value = split(self.value.forward(context));
        let mixed = attend(query, key, value, causal);
        self.out.forward(mixed.swap_dims(1, 2).reshape([batch, tokens, width]))
    }
}

/// Softmax attention of `query` to `key` and `value`, all `[batch, heads, tokens, width]`.
fn attend(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, causal: bool) -> Tensor<4> {
    #[cfg(feature = "gpu")]
    if !is_processor(&query.device()) {
        return crate::gpu::attention(query, key, value, causal);
    }
    if FOR_BROWSERS && !causal {
        return softmax::attend(query, key, value);
    }
    let options = AttentionModuleOptions { is_causal: causal, ..Default::default() };
    module::attention(query, key, value, None, None, options)
}

/// The feed-forward part of a transformer block: a linear unit gated by an exact GELU.
pub(crate) struct FeedForward {
    up: Linear,
    down: Linear,
}

impl FeedForward {
    fn load(weights: &Weights, width: usize) -> Result<Self, LoadError> {
        Ok(Self {
            up: Linear::load(&weights.at("net.0.proj"), width, 8 * width, true)?,
            down: Linear::load(&weights.at("net.2"), 4 * width, width, true)?,
        })
    }

    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let up = self.up.forward(x);
        if FOR_BROWSERS && is_processor(&up.device()) {
            return self.down.forward(gate(up));
        }
        let half = up.dims()[2] / 2;
        let gate = activation::gelu(up.clone().narrow(2, half, half));
        self.down.forward(up.narrow(2, 0, half) * gate)
    }
}

/// The first half of the last axis, each value times the GELU of its counterpart in the second.
fn gate(x: Tensor<3>) -> Tensor<3> {
    let ([batch, tokens, width], device) = (x.dims(), x.device());
    let values = x.into_data().try_into_vec::<f32>().expect("every tensor here is f32");
    let mut gated = Vec::with_capacity(values.len() / 2);
    for row in values.chunks_exact(width) {
        let (value, gate) = row.split_at(width / 2);
        gated.extend(value.iter().zip(gate).map(|(value, &gate)| value * gelu(gate)));
    }
    Tensor::from_data(TensorData::new(gated, [batch, tokens, width / 2]), &device)
}

/// What the transformers of one block share.
#[derive(Clone, Copy)]
pub(crate) struct TransformerShape {
    /// Heads of every attention.
    pub heads: usize,
    /// Transformer blocks in a row.
    pub layers: usize,
    /// Width of the text embedding.
    pub context_width: usize,
    /// Groups of the normalisation at its entrance.
    pub groups: usize,
    /// Whether the projections at its ends are stored as linear layers, not as 1 x 1 convolutions.
    pub linear_projection: bool,
    /// Whether the first attention, too, attends to the text.
    pub only_cross_attention: bool,
}

/// Self attention, attention to the text, and a feed-forward layer (diffusers' BasicTransformerBlock).
pub(crate) struct TransformerBlock {
    norm1: LayerNorm,
    pub(crate) attention1: Attention,
    norm2: LayerNorm,
    pub(crate) attention2: Attention,
    norm3: LayerNorm,
    pub(crate) feed_forward: FeedForward,
    only_cross_attention: bool,
}

impl TransformerBlock {
    fn load(weights: &Weights, width: usize, shape: &TransformerShape) -> Result<Self, LoadError> {
        let TransformerShape { heads, context_width, only_cross_attention, .. } = *shape;
        let norm = |name| LayerNorm::load(&weights.at(name), width, LAYER_EPSILON);
        let first_width = if only_cross_attention { context_width } else { width };
        Ok(Self {
            norm1: norm("norm1")?,
            attention1: Attention::load(&weights.at("attn1"), width, first_width, heads, false)?,
            norm2: norm("norm2")?,
            attention2: Attention::load(&weights.at("attn2"), width, context_width, heads, false)?,
            norm3: norm("norm3")?,
            feed_forward: FeedForward::load(&weights.at("ff"), width)?,
            only_cross_attention,
        })
    }

    pub(crate) fn forward(&self, x: Tensor<3>, context: &Tensor<3>) -> Tensor<3> {
        let normed = self.norm1.forward(x.clone());
        let first = if self.only_cross_attention { context.clone() } else { normed.clone() };
        let x = x + self.attention1.forward(normed, first, false);
        let x = x.clone() + self.attention2.forward(self.norm2.forward(x), context.clone(), false);
        x.clone() + self.feed_forward.forward(self.norm3.forward(x))
    }
}

/// Transformer blocks over the cells of a picture (diffusers' Transformer2DModel for continuous input).
pub(crate) struct Transformer {
    norm: GroupNorm,
    project_in: Linear,
    pub(crate) blocks: Vec<TransformerBlock>,
    project_out: Linear,
}

impl Transformer {
    pub(crate) fn load(weights: &Weights, width: usize, shape: &TransformerShape) -> Result<Self, LoadError> {
        let project = |name| match shape.linear_projection {
            true => Linear::load(&weights.at(name), width, width, true),
            false => Linear::load_pointwise(&weights.at(name), width, width),
        };
        let block = |index| TransformerBlock::load(&weights.at(format!("transformer_blocks.{index}")), width, shape);
        Ok(Self {
            norm: GroupNorm::load(&weights.at("norm"), width, shape.groups, GROUP_EPSILON)?,
            project_in: project("proj_in")?,
            blocks: (0..shape.layers).map(block).collect::<Result<_, _>>()?,
            project_out: project("proj_out")?,
        })
    }

    /// `[batch, width, rows, columns]` to the same shape; `context` is `[batch, tokens, context_width]`.
    pub(crate) fn forward(&self, x: Tensor<4>, context: &Tensor<3>) -> Tensor<4> {
        let shape = x.dims();
        let cells = self.project_in.forward(to_cells(self.norm.forward(x.clone())));
        let cells = self.blocks.iter().fold(cells, |cells, block| block.forward(cells, context));
        x + to_picture(self.project_out.forward(cells), shape)
    }
}

/// The attention in the middle of an autoencoder: one head over all cells, with its own norm and residual.
pub(crate) struct CellAttention {
    norm: GroupNorm,
    attention: Attention,
}

impl CellAttention {
    /// Reads the weights under their names of today, or those of checkpoints before diffusers 0.18.
    pub(crate) fn load(weights: &Weights, width: usize, groups: usize) -> Result<Self, LoadError> {
        let names = match weights.contains("query.weight") {
            true => ["query", "key", "value", "proj_attn"],
            false => ["to_q", "to_k", "to_v", "to_out.0"],
        };
        Ok(Self {
            norm: GroupNorm::load(&weights.at("group_norm"), width, groups, GROUP_EPSILON)?,
            attention: Attention::load_named(weights, names, [width; 2], 1, true)?,
        })
    }

    /// `[batch, width, rows, columns]` to the same shape.
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let cells = to_cells(self.norm.forward(x.clone()));
        let shape = x.dims();
        x + to_picture(self.attention.forward(cells.clone(), cells, false), shape)
    }
}

/// `[batch, width, rows, columns]` to `[batch, rows * columns, width]`.
fn to_cells(x: Tensor<4>) -> Tensor<3> {
    let [batch, width, rows, columns] = x.dims();
    x.reshape([batch, width, rows * columns]).swap_dims(1, 2)
}

fn to_picture(x: Tensor<3>, shape: [usize; 4]) -> Tensor<4> {
    x.swap_dims(1, 2).reshape(shape)
}
