//! The engine that runs a diffusion model on this machine's processor.

use burn::tensor::{Device, Tensor, TensorData};
use protocol::tensor;
use protocol::{ModelId, ModelShape, Unit, Work};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use sampler::SchedulerConfig;

use super::{Engine, EngineError, check, paint, to_output};
use crate::clip::Clip;
use crate::folder::ModelFolder;
use crate::tokenizer::{PromptError, Tokenizer};
use crate::unet::{Cancelled, Stop, Unet};
use crate::vae::Vae;
use crate::weights::LoadError;

/// Raised whenever a change here changes the bits of any result.
const KERNELS: &str = "burn-flex 0.22.1, kernels 1";

/// A loaded model. Every guidance branch is its own pass of batch 1, so that results never depend on batching.
pub struct Diffusion {
    id: ModelId,
    shape: ModelShape,
    scheduler: SchedulerConfig,
    tokenizer: Tokenizer,
    device: Device,
    threads: ThreadPool,
    networks: Networks,
}

struct Networks {
    clip: Clip,
    unet: Unet,
    vae: Vae,
}

impl Diffusion {
    /// Loads the networks of `folder`, to be run on `threads` threads (0: one for each processor).
    pub fn load(folder: &ModelFolder, threads: usize) -> Result<Self, LoadError> {
        let device = Device::flex();
        let path = folder.path();
        let threads = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("compute-{index}"))
            .build()
            .map_err(|error| LoadError::Threads(error.to_string()))?;
        let networks = Networks {
            clip: Clip::load(&path.join("text_encoder"), &device)?,
            unet: Unet::load(&path.join("unet"), &device)?,
            vae: Vae::load(&path.join("vae"), &device)?,
        };
        Ok(Self {
            id: folder.id(),
            shape: folder.shape(),
            scheduler: folder.scheduler().clone(),
            tokenizer: folder.tokenizer().clone(),
            device,
            threads,
            networks,
        })
    }

    /// Embeddings of `prompts`, one after the other.
    fn encode(&self, prompts: &[&str], stop: Stop<'_>) -> Result<Vec<f32>, EngineError> {
        let mut values = Vec::new();
        for prompt in prompts {
            if stop() {
                return Err(EngineError::Cancelled);
            }
            let ids = self.tokenizer.ids(prompt)?;
            let text = self.threads.install(|| self.networks.clip.forward(&ids));
            let unknown = || PromptError::Unknown("a token is outside the text encoder's vocabulary".into());
            values.extend(to_values(text.ok_or_else(unknown)?.hidden));
        }
        Ok(values)
    }

    /// The model outputs for one latent under each of the conditioning's `rows`.
    fn denoise(
        &self,
        latent: &[f32],
        [rows, columns]: [u32; 2],
        timestep: f32,
        texts: &[&[f32]],
        stop: Stop<'_>,
    ) -> Result<Vec<f32>, EngineError> {
        let shape = self.latent_shape(rows, columns);
        let text_shape = [1, self.shape.tokens as usize, self.shape.embedding_width as usize];
        let pass = |text: &&[f32]| -> Result<Vec<f32>, Cancelled> {
            let latent = Tensor::from_data(TensorData::new(latent.to_vec(), shape), &self.device);
            let text = Tensor::from_data(TensorData::new(text.to_vec(), text_shape), &self.device);
            self.networks.unet.forward(latent, timestep, text, stop).map(to_values)
        };
        // Passes share nothing, so that bits are the same beside each other and one after the other.
        let outputs: Vec<Vec<f32>> = self.threads.install(|| texts.par_iter().map(pass).collect::<Result<_, _>>())?;
        Ok(outputs.concat())
    }

    fn decode(&self, latent: Vec<f32>, [rows, columns]: [u32; 2], stop: Stop<'_>) -> Result<Vec<f32>, EngineError> {
        let latent = TensorData::new(latent, self.latent_shape(rows, columns));
        let latent = Tensor::from_data(latent, &self.device);
        let pixels = self.threads.install(|| self.networks.vae.decode(latent, stop))?;
        Ok(to_values(pixels))
    }

    fn latent_shape(&self, rows: u32, columns: u32) -> [usize; 4] {
        [1, self.shape.latent_channels as usize, rows as usize, columns as usize]
    }
}

impl Engine for Diffusion {
    /// Engines of one class have the same kernels, compiled for the same architecture and picked by the same processor
    /// features, over the same system's mathematical functions.
    fn numeric_class(&self) -> String {
        format!("{KERNELS}, {} {}{}", std::env::consts::ARCH, std::env::consts::OS, processor_features())
    }

    fn models(&self) -> Vec<(ModelId, ModelShape)> {
        vec![(self.id, self.shape)]
    }

    fn compute(
        &mut self,
        unit: &Unit,
        input: &[u8],
        conditioning: Option<&[u8]>,
        cancelled: Stop<'_>,
    ) -> Result<Vec<u8>, EngineError> {
        let shape = self.shape;
        let input = check(unit, (self.id, &shape), input, conditioning)?;
        let values = match &unit.work {
            Work::Encode { prompt, negative } => {
                let prompts: Vec<&str> = negative.as_deref().into_iter().chain([prompt.as_str()]).collect();
                self.encode(&prompts, cancelled)?
            }
            Work::Denoise { conditioning_rows, branches, timestep, rows, columns, .. } => {
                let count = *conditioning_rows as usize;
                let row_values = shape.tokens as usize * shape.embedding_width as usize;
                let embeddings = tensor::from_bytes(conditioning.unwrap_or_default(), count * row_values);
                let embeddings = embeddings.map_err(|_| EngineError::Conditioning("has another shape"))?;
                let picked = branches.rows(count).ok_or(EngineError::Conditioning("has no row for its branches"))?;
                let texts: Vec<&[f32]> =
                    picked.iter().map(|row| &embeddings[row * row_values..(row + 1) * row_values]).collect();
                self.denoise(&input, [*rows, *columns], *timestep, &texts, cancelled)?
            }
            Work::Decode { rows, columns } => self.decode(input, [*rows, *columns], cancelled)?,
            Work::Paint { spec } => {
                let scheduler = self.scheduler.clone();
                paint(unit.job, spec, &shape, &scheduler, |unit, input, conditioning| {
                    self.compute(unit, input, conditioning, cancelled)
                })?
            }
        };
        to_output(unit, &shape, &values)
    }
}

impl From<Cancelled> for EngineError {
    fn from(Cancelled: Cancelled) -> Self {
        Self::Cancelled
    }
}

fn to_values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec::<f32>().expect("every tensor here is f32")
}

/// The features by which matrix kernels are picked at run time, each after a space.
#[cfg(target_arch = "x86_64")]
fn processor_features() -> String {
    let features = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
    ];
    features.iter().filter(|(_, has)| *has).map(|(name, _)| format!(" {name}")).collect()
}

/// Elsewhere the architecture says it all.
#[cfg(not(target_arch = "x86_64"))]
fn processor_features() -> String {
    String::new()
}
