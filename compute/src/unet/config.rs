//! Reads a UNet2DConditionModel's configuration: every key is honoured, or refused by name.

use serde_json::{Value, json};

use crate::config::Config;
use crate::files::Files;
use crate::weights::LoadError;

/// What decides a UNet's form. Lists have one entry for each resolution, the finest first.
#[derive(Clone, Debug)]
pub(crate) struct UnetConfig {
    pub sample_size: usize,
    pub in_channels: usize,
    pub out_channels: usize,
    pub channels: Vec<usize>,
    pub layers: Vec<usize>,
    pub down_attention: Vec<bool>,
    /// In the order the up blocks run: the coarsest first.
    pub up_attention: Vec<bool>,
    pub context_width: Vec<usize>,
    pub heads: Vec<usize>,
    pub transformer_layers: Vec<usize>,
    pub only_cross_attention: Vec<bool>,
    pub linear_projection: bool,
    pub groups: usize,
    pub epsilon: f64,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
    pub downsample_padding: usize,
    pub center_input_sample: bool,
    pub mid_divisor: f32,
    pub conv_in_kernel: usize,
    pub conv_out_kernel: usize,
}

impl UnetConfig {
    /// Reads `config.json`.
    pub(crate) fn open(files: &Files) -> Result<Self, LoadError> {
        let config = Config::open(files, "config.json")?;
        refuse_unsupported(&config)?;
        let channels = config.list("block_out_channels")?;
        let blocks = channels.len();
        let epsilon = config.number("norm_eps", 1e-5)?;
        let mid_divisor = config.number("mid_block_scale_factor", 1.0)?;
        if epsilon <= 0.0 || mid_divisor <= 0.0 {
            return Err(config.malformed("norm_eps and mid_block_scale_factor must be positive"));
        }
        // diffusers takes this key for the number of heads when num_attention_heads is null, as it is in every checkpoint.
        let heads = config.counts("attention_head_dim", blocks, Some(8))?;
        let only_cross_attention = config.flags("only_cross_attention", blocks)?;
        Ok(Self {
            sample_size: config.count("sample_size", None)?,
            in_channels: config.count("in_channels", Some(4))?,
            out_channels: config.count("out_channels", Some(4))?,
            layers: config.counts("layers_per_block", blocks, Some(2))?,
            down_attention: attention(&config, "down_block_types", blocks, "CrossAttnDownBlock2D", "DownBlock2D")?,
            up_attention: attention(&config, "up_block_types", blocks, "CrossAttnUpBlock2D", "UpBlock2D")?,
            context_width: config.counts("cross_attention_dim", blocks, Some(1280))?,
            heads,
            transformer_layers: config.counts("transformer_layers_per_block", blocks, Some(1))?,
            only_cross_attention,
            linear_projection: config.flag("use_linear_projection", false)?,
            groups: config.count("norm_num_groups", Some(32))?,
            epsilon,
            flip_sin_to_cos: config.flag("flip_sin_to_cos", true)?,
            freq_shift: config.number("freq_shift", 0.0)?,
            downsample_padding: padding(&config)?,
            center_input_sample: config.flag("center_input_sample", false)?,
            mid_divisor: mid_divisor as f32,
            conv_in_kernel: config.count("conv_in_kernel", Some(3))?,
            conv_out_kernel: config.count("conv_out_kernel", Some(3))?,
            channels,
        })
    }
}

fn refuse_unsupported(config: &Config) -> Result<(), LoadError> {
    let null: &[Value] = &[];
    config.only("_class_name", &[json!("UNet2DConditionModel")])?;
    config.only("act_fn", &[json!("silu"), json!("swish")])?;
    config.only("mid_block_type", &[json!("UNetMidBlock2DCrossAttn")])?;
    config.only("time_embedding_type", &[json!("positional")])?;
    config.only("resnet_time_scale_shift", &[json!("default")])?;
    config.only("attention_type", &[json!("default")])?;
    config.only("resnet_out_scale_factor", &[json!(1.0)])?;
    // An even kernel would change the picture's size.
    for kernel in ["conv_in_kernel", "conv_out_kernel"] {
        config.only(kernel, &[1, 3, 5, 7].map(|side| json!(side)))?;
    }
    for flag in ["dual_cross_attention", "resnet_skip_time_act", "class_embeddings_concat"] {
        config.only(flag, &[json!(false)])?;
    }
    for key in [
        "addition_embed_type",
        "addition_time_embed_dim",
        "class_embed_type",
        "cross_attention_norm",
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "num_attention_heads",
        "num_class_embeds",
        "projection_class_embeddings_input_dim",
        "reverse_transformer_layers_per_block",
        "time_cond_proj_dim",
        "time_embedding_act_fn",
        "time_embedding_dim",
        "timestep_post_act",
    ] {
        config.only(key, null)?;
    }
    config.flag("upcast_attention", false).map(|_| ())
}

fn attention(config: &Config, key: &str, blocks: usize, with: &str, without: &str) -> Result<Vec<bool>, LoadError> {
    let read = |name: &&str| match *name {
        name if name == with => Ok(true),
        name if name == without => Ok(false),
        name => Err(config.unsupported(format!("{key} has {name}, and only {with} and {without} are supported"))),
    };
    config.texts(key, blocks)?.iter().map(read).collect()
}

fn padding(config: &Config) -> Result<usize, LoadError> {
    config.only("downsample_padding", &[json!(0), json!(1)])?;
    Ok(if config.number("downsample_padding", 1.0)? == 0.0 { 0 } else { 1 })
}
