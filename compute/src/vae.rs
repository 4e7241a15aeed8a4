//! The autoencoder (diffusers' AutoencoderKL): latent to pixels, and pixels to latent.

mod coder;
mod config;

use burn::tensor::{Device, Tensor};

pub(crate) use self::coder::{Coder, Resize};
pub(crate) use self::config::VaeConfig;
use crate::conv::Conv;
use crate::files::Files;
use crate::pace::{Cancelled, Pace};
use crate::weights::{LoadError, Weights};

/// Smallest and largest logarithm of a variance the encoder may claim.
const LOG_VARIANCE: (f32, f32) = (-30.0, 20.0);

/// An autoencoder with its weights. Its encoder is loaded only when asked for.
pub struct Vae {
    config: VaeConfig,
    pub(crate) decoder: Coder,
    pub(crate) post_quant: Option<Conv>,
    encoder: Option<Encoder>,
}

/// The half that turns pixels into latents.
pub(crate) struct Encoder {
    pub(crate) coder: Coder,
    pub(crate) quant: Option<Conv>,
}

impl Vae {
    /// Loads the decoder of the component `vae` from its files.
    pub fn load(files: &Files, device: &Device) -> Result<Self, LoadError> {
        let config = VaeConfig::open(files)?;
        let weights = Weights::open(files, "diffusion_pytorch_model", device)?;
        let channels = config.latent_channels;
        let post_quant =
            config.use_post_quant_conv.then(|| Conv::load(&weights.at("post_quant_conv"), channels, channels, 1));
        let decoder = Coder::load_decoder(&weights.at("decoder"), &config)?;
        Ok(Self { decoder, post_quant: post_quant.transpose()?, encoder: None, config })
    }

    /// Loads the decoder and the encoder.
    pub fn load_both(files: &Files, device: &Device) -> Result<Self, LoadError> {
        let mut vae = Self::load(files, device)?;
        let weights = Weights::open(files, "diffusion_pytorch_model", device)?;
        let channels = 2 * vae.config.latent_channels;
        let quant = vae.config.use_quant_conv.then(|| Conv::load(&weights.at("quant_conv"), channels, channels, 1));
        let coder = Coder::load_encoder(&weights.at("encoder"), &vae.config)?;
        vae.encoder = Some(Encoder { coder, quant: quant.transpose()? });
        Ok(vae)
    }

    /// Pixels of a latent as the sampler leaves it: `[batch, latent_channels, rows, columns]` to
    /// `[batch, 3, rows * factor, columns * factor]`, each value in about [-1, 1].
    pub async fn decode(&self, latent: Tensor<4>, pace: &dyn Pace) -> Result<Tensor<4>, Cancelled> {
        let latent = latent.div_scalar(self.config.scaling_factor);
        let latent = match self.config.shift_factor {
            Some(shift) => latent.add_scalar(shift),
            None => latent,
        };
        let latent = match &self.post_quant {
            Some(conv) => conv.forward(latent),
            None => latent,
        };
        self.decoder.forward(latent, pace).await
    }

    /// Mean and log variance of the latents of `pixels` `[batch, 3, height, width]` in [-1, 1], before scaling: each
    /// `[batch, latent_channels, rows, columns]`. `None` without an encoder.
    pub async fn encode(
        &self,
        pixels: Tensor<4>,
        pace: &dyn Pace,
    ) -> Option<Result<(Tensor<4>, Tensor<4>), Cancelled>> {
        let encoder = self.encoder.as_ref()?;
        let split = |moments: Tensor<4>| {
            let moments = match &encoder.quant {
                Some(conv) => conv.forward(moments),
                None => moments,
            };
            let half = self.config.latent_channels;
            let log_variance = moments.clone().narrow(1, half, half).clamp(LOG_VARIANCE.0, LOG_VARIANCE.1);
            (moments.narrow(1, 0, half), log_variance)
        };
        Some(encoder.coder.forward(pixels, pace).await.map(split))
    }

    pub(crate) fn encoder(&self) -> Option<&Encoder> {
        self.encoder.as_ref()
    }
}
