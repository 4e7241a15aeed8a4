//! The text encoder (transformers' CLIPTextModel): token ids to embeddings.

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::json;

use crate::attention::Attention;
use crate::config::Config;
use crate::files::Files;
use crate::layers::{Activation, LayerNorm, Linear};
use crate::weights::{LoadError, Weights};

/// In configurations written before transformers 4.24, this end-of-text id stands for "the largest id of the prompt".
const LEGACY_END_ID: u32 = 2;

/// What decides a text encoder's form.
#[derive(Clone, Debug)]
pub(crate) struct ClipConfig {
    pub width: usize,
    pub feed_forward_width: usize,
    pub layers: usize,
    pub heads: usize,
    pub tokens: usize,
    pub vocabulary: usize,
    pub activation: Activation,
    pub epsilon: f64,
    pub end_id: u32,
}

impl ClipConfig {
    /// Reads `config.json`; defaults are CLIPTextConfig's.
    pub(crate) fn open(files: &Files) -> Result<Self, LoadError> {
        let config = Config::open(files, "config.json")?;
        config.only("model_type", &[json!("clip_text_model")])?;
        config.only("use_attention_mask", &[json!(false)])?;
        let epsilon = config.number("layer_norm_eps", 1e-5)?;
        if epsilon <= 0.0 {
            return Err(config.malformed("layer_norm_eps must be positive"));
        }
        Ok(Self {
            width: config.count("hidden_size", Some(512))?,
            feed_forward_width: config.count("intermediate_size", Some(2048))?,
            layers: config.count("num_hidden_layers", Some(12))?,
            heads: config.count("num_attention_heads", Some(8))?,
            tokens: config.count("max_position_embeddings", Some(77))?,
            vocabulary: config.count("vocab_size", Some(49_408))?,
            activation: Activation::read(&config)?,
            epsilon,
            end_id: config.count("eos_token_id", Some(49_407))? as u32,
        })
    }
}

/// A text encoder with its weights.
pub struct Clip {
    config: ClipConfig,
    device: Device,
    /// `[vocabulary, width]`.
    token_embedding: Tensor<2>,
    /// `[tokens, width]`.
    position_embedding: Tensor<2>,
    layers: Vec<Layer>,
    final_norm: LayerNorm,
}

struct Layer {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    up: Linear,
    down: Linear,
}

/// What a text encoder says about a prompt.
pub struct TextEmbedding {
    /// The last layer's states after the final norm, `[1, tokens, width]`.
    pub hidden: Tensor<3>,
    /// The state at the end of the text, `[1, width]`.
    pub pooled: Tensor<2>,
}

impl Clip {
    /// Loads the component `text_encoder` from its files; keys may begin with `text_model.` or not.
    pub fn load(files: &Files, device: &Device) -> Result<Self, LoadError> {
        let config = ClipConfig::open(files)?;
        let weights = Weights::open(files, "model", device)?;
        let prefixed = weights.contains("text_model.embeddings.token_embedding.weight");
        let weights = if prefixed { weights.at("text_model") } else { weights };
        let embeddings = weights.at("embeddings");
        let layer = |index| Layer::load(&weights.at(format!("encoder.layers.{index}")), &config);
        let (tokens, width) = (config.tokens, config.width);
        Ok(Self {
            device: device.clone(),
            token_embedding: embeddings.tensor("token_embedding.weight", [config.vocabulary, width])?,
            position_embedding: embeddings.tensor("position_embedding.weight", [tokens, width])?,
            layers: (0..config.layers).map(layer).collect::<Result<_, _>>()?,
            final_norm: LayerNorm::load(&weights.at("final_layer_norm"), width, config.epsilon)?,
            config,
        })
    }

    /// Embeds one prompt of at least one and at most `tokens` ids. `None` if there are more or fewer, or an id is
    /// outside the vocabulary.
    pub fn forward(&self, ids: &[u32]) -> Option<TextEmbedding> {
        let count = ids.len();
        let known = ids.iter().all(|&id| (id as usize) < self.config.vocabulary);
        if !known || !(1..=self.config.tokens).contains(&count) {
            return None;
        }
        let wide: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
        let indexes = Tensor::<1, Int>::from_data(TensorData::new(wide, [count]), &self.device);
        let tokens = self.token_embedding.clone().select(0, indexes);
        let positions = self.position_embedding.clone().narrow(0, 0, count);
        let states = (tokens + positions).reshape([1, count, self.config.width]);
        let states = self.layers.iter().fold(states, |states, layer| layer.forward(states, self.config.activation));
        let hidden = self.final_norm.forward(states);
        let pooled = hidden.clone().narrow(1, self.end_of_text(ids), 1).reshape([1, self.config.width]);
        Some(TextEmbedding { hidden, pooled })
    }

    /// The first position of the end-of-text token, or of the largest id for legacy configurations; 0 if there is none.
    fn end_of_text(&self, ids: &[u32]) -> usize {
        let end = match self.config.end_id {
            LEGACY_END_ID => ids.iter().max().copied().unwrap_or_default(),
            end => end,
        };
        ids.iter().position(|&id| id == end).unwrap_or_default()
    }
}

impl Layer {
    fn load(weights: &Weights, config: &ClipConfig) -> Result<Self, LoadError> {
        let (width, wide) = (config.width, config.feed_forward_width);
        let names = ["q_proj", "k_proj", "v_proj", "out_proj"];
        Ok(Self {
            norm1: LayerNorm::load(&weights.at("layer_norm1"), width, config.epsilon)?,
            attention: Attention::load_named(&weights.at("self_attn"), names, [width; 2], config.heads, true)?,
            norm2: LayerNorm::load(&weights.at("layer_norm2"), width, config.epsilon)?,
            up: Linear::load(&weights.at("mlp.fc1"), width, wide, true)?,
            down: Linear::load(&weights.at("mlp.fc2"), wide, width, true)?,
        })
    }

    fn forward(&self, x: Tensor<3>, activation: Activation) -> Tensor<3> {
        let normed = self.norm1.forward(x.clone());
        let x = x + self.attention.forward(normed.clone(), normed, true);
        let wide = activation.apply(self.up.forward(self.norm2.forward(x.clone())));
        x + self.down.forward(wide)
    }
}
