//! Reads an AutoencoderKL's configuration: every key is honoured, or refused by name.

use serde_json::json;

use crate::config::Config;
use crate::files::Files;
use crate::weights::LoadError;

/// What decides an autoencoder's form. Channels have one entry for each resolution, the finest first.
#[derive(Clone, Debug)]
pub(crate) struct VaeConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    pub channels: Vec<usize>,
    pub layers: usize,
    pub latent_channels: usize,
    pub groups: usize,
    pub scaling_factor: f32,
    pub shift_factor: Option<f32>,
    pub use_quant_conv: bool,
    pub use_post_quant_conv: bool,
    pub mid_block_add_attention: bool,
}

impl VaeConfig {
    /// Reads `config.json`.
    pub(crate) fn open(files: &Files) -> Result<Self, LoadError> {
        let config = Config::open(files, "config.json")?;
        config.only("_class_name", &[json!("AutoencoderKL")])?;
        config.only("act_fn", &[json!("silu"), json!("swish")])?;
        for key in ["latents_mean", "latents_std"] {
            config.only(key, &[])?;
        }
        let channels = config.list("block_out_channels")?;
        for (key, kind) in [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")] {
            if let Some(other) = config.texts(key, channels.len())?.iter().find(|name| **name != kind) {
                return Err(config.unsupported(format!("{key} has {other}, and only {kind} is supported")));
            }
        }
        let scaling_factor = config.number("scaling_factor", 0.18215)?;
        if scaling_factor == 0.0 {
            return Err(config.malformed("scaling_factor must not be zero"));
        }
        let shift_factor = match config.value("shift_factor") {
            Some(_) => Some(config.number("shift_factor", 0.0)? as f32),
            None => None,
        };
        config.only("in_channels", &[json!(3)])?;
        config.only("out_channels", &[json!(3)])?;
        Ok(Self {
            in_channels: 3,
            out_channels: 3,
            layers: config.count("layers_per_block", Some(1))?,
            latent_channels: config.count("latent_channels", Some(4))?,
            groups: config.count("norm_num_groups", Some(32))?,
            scaling_factor: scaling_factor as f32,
            shift_factor,
            use_quant_conv: config.flag("use_quant_conv", true)?,
            use_post_quant_conv: config.flag("use_post_quant_conv", true)?,
            mid_block_add_attention: config.flag("mid_block_add_attention", true)?,
            channels,
        })
    }
}
