//! The engine that runs a diffusion model on this machine's processor.

use burn::tensor::{Device, Tensor, TensorData};
use protocol::tensor;
use protocol::unit::UnitError;
use protocol::{ModelId, ModelShape, Unit, Work};
use sampler::{Run, SchedulerConfig};

use super::{Engine, EngineError, check, paint, take_steps, to_output};
use crate::clip::Clip;
use crate::folder::ModelFolder;
use crate::pace::{Cancelled, Free, Pace, Stop, finish};
use crate::threads::Threads;
use crate::tokenizer::{PromptError, Tokenizer};
use crate::unet::Unet;
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
    numeric_class: String,
    device: Device,
    threads: Threads,
    networks: Networks,
}

struct Networks {
    clip: Clip,
    unet: Unet,
    vae: Vae,
}

impl Diffusion {
    /// Loads the networks of `folder`, to be run on `threads` threads of this machine's processor (0: one for each of its
    /// cores).
    ///
    /// # Errors
    /// If a file cannot be read or is not what its network needs, or there are no threads.
    pub fn load(folder: &ModelFolder, threads: usize) -> Result<Self, LoadError> {
        Self::load_on(folder, Device::flex(), processor(), threads)
    }

    /// Loads the networks of `folder` onto `device`; `numeric_class` names its kernels and whatever decides their bits.
    ///
    /// # Errors
    /// Those of [`Diffusion::load`].
    pub fn load_on(
        folder: &ModelFolder,
        device: Device,
        numeric_class: String,
        threads: usize,
    ) -> Result<Self, LoadError> {
        let files = folder.files();
        let networks = Networks {
            clip: Clip::load(&files.at("text_encoder"), &device)?,
            unet: Unet::load(&files.at("unet"), &device)?,
            vae: Vae::load(&files.at("vae"), &device)?,
        };
        Ok(Self {
            id: folder.id(),
            shape: folder.shape(),
            scheduler: folder.scheduler().clone(),
            tokenizer: folder.tokenizer().clone(),
            numeric_class,
            device,
            threads: Threads::new(threads)?,
            networks,
        })
    }

    /// The one model it has.
    pub fn model(&self) -> (ModelId, ModelShape) {
        (self.id, self.shape)
    }

    /// Computes `unit` as [`Engine::compute`] does, at a pace that may wait where there is one thread for everything. On
    /// threads of our own it must not.
    ///
    /// # Errors
    /// If the unit is not sound, the device fails, or the pace gives it up.
    pub async fn run(
        &self,
        unit: &Unit,
        input: &[u8],
        conditioning: Option<&[u8]>,
        pace: &dyn Pace,
    ) -> Result<Vec<u8>, EngineError> {
        let piece = async |unit: &Unit, input: &[u8], conditioning: Option<&[u8]>| {
            self.piece(unit, input, conditioning, pace).await
        };
        let check = || check(unit, (self.id, &self.shape), input, conditioning);
        let values = match &unit.work {
            Work::Encode { .. } | Work::Denoise { .. } | Work::Decode { .. } => {
                return self.piece(unit, input, conditioning, pace).await;
            }
            Work::Run { .. } => {
                let run = Run::new(unit, &self.shape, &self.scheduler, check()?)?;
                take_steps(run, conditioning, piece).await?
            }
            Work::Paint { spec } => {
                check()?;
                paint(unit.job, spec, &self.shape, &self.scheduler, piece).await?
            }
        };
        to_output(unit, &self.shape, &values)
    }

    /// Computes a unit that is one evaluation of a network.
    async fn piece(
        &self,
        unit: &Unit,
        input: &[u8],
        conditioning: Option<&[u8]>,
        pace: &dyn Pace,
    ) -> Result<Vec<u8>, EngineError> {
        let shape = self.shape;
        let input = check(unit, (self.id, &shape), input, conditioning)?;
        let values = match &unit.work {
            Work::Encode { prompt, negative } => {
                let prompts: Vec<&str> = negative.as_deref().into_iter().chain([prompt.as_str()]).collect();
                self.encode(&prompts, pace).await?
            }
            Work::Denoise { conditioning_rows, branches, timestep, rows, columns, .. } => {
                let count = *conditioning_rows as usize;
                let row_values = shape.tokens as usize * shape.embedding_width as usize;
                let embeddings = tensor::from_bytes(conditioning.unwrap_or_default(), count * row_values);
                let embeddings = embeddings.map_err(|_| EngineError::Conditioning("has another shape"))?;
                let picked = branches.rows(count).ok_or(EngineError::Conditioning("has no row for its branches"))?;
                let texts: Vec<&[f32]> =
                    picked.iter().map(|row| &embeddings[row * row_values..(row + 1) * row_values]).collect();
                self.denoise(&input, [*rows, *columns], *timestep, &texts, pace).await?
            }
            Work::Decode { rows, columns } => self.decode(input, [*rows, *columns], pace).await?,
            Work::Run { .. } | Work::Paint { .. } => {
                return Err(EngineError::Unit(UnitError("several steps are no piece of one")));
            }
        };
        to_output(unit, &shape, &values)
    }

    /// Embeddings of `prompts`, one after the other.
    async fn encode(&self, prompts: &[&str], pace: &dyn Pace) -> Result<Vec<f32>, EngineError> {
        let mut values = Vec::new();
        for prompt in prompts {
            pace.pause().await?;
            let ids = self.tokenizer.ids(prompt)?;
            let text = self.threads.run(|| self.networks.clip.forward(&ids));
            let unknown = || PromptError::Unknown("a token is outside the text encoder's vocabulary".into());
            values.extend(to_values(text.ok_or_else(unknown)?.hidden).await?);
        }
        Ok(values)
    }

    /// The model outputs for one latent under each of the conditioning's `rows`.
    async fn denoise(
        &self,
        latent: &[f32],
        [rows, columns]: [u32; 2],
        timestep: f32,
        texts: &[&[f32]],
        pace: &dyn Pace,
    ) -> Result<Vec<f32>, EngineError> {
        let shape = self.latent_shape(rows, columns);
        let text_shape = [1, self.shape.tokens as usize, self.shape.embedding_width as usize];
        let pass = async |text: &&[f32]| {
            let latent = Tensor::from_data(TensorData::new(latent.to_vec(), shape), &self.device);
            let text = Tensor::from_data(TensorData::new(text.to_vec(), text_shape), &self.device);
            to_values(self.networks.unet.forward(latent, timestep, text, pace).await?).await
        };
        // Passes share nothing, so that bits are the same beside each other and one after the other.
        let outputs = self.threads.each(texts, pass).await;
        Ok(outputs.into_iter().collect::<Result<Vec<_>, EngineError>>()?.concat())
    }

    async fn decode(
        &self,
        latent: Vec<f32>,
        [rows, columns]: [u32; 2],
        pace: &dyn Pace,
    ) -> Result<Vec<f32>, EngineError> {
        let shape = self.latent_shape(rows, columns);
        let pass = async |latent: &Vec<f32>| {
            let latent = Tensor::from_data(TensorData::new(latent.clone(), shape), &self.device);
            to_values(self.networks.vae.decode(latent, pace).await?).await
        };
        let outputs = self.threads.each(&[latent], pass).await;
        Ok(outputs.into_iter().collect::<Result<Vec<_>, EngineError>>()?.concat())
    }

    fn latent_shape(&self, rows: u32, columns: u32) -> [usize; 4] {
        [1, self.shape.latent_channels as usize, rows as usize, columns as usize]
    }
}

impl Engine for Diffusion {
    fn numeric_class(&self) -> String {
        self.numeric_class.clone()
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
        finish(self.run(unit, input, conditioning, &Free(cancelled)))
    }
}

impl From<Cancelled> for EngineError {
    fn from(Cancelled: Cancelled) -> Self {
        Self::Cancelled
    }
}

async fn to_values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, EngineError> {
    let data = tensor.into_data_async().await.map_err(|error| {
        // What follows the first line is a trace of burn's own calls.
        EngineError::Device(error.to_string().lines().next().unwrap_or_default().to_owned())
    })?;
    Ok(data.try_into_vec::<f32>().expect("every tensor here is f32"))
}

/// The numeric class of this machine's processor: engines of one class have the same kernels, compiled for the same
/// architecture and picked by the same processor features, over the same system's mathematical functions.
fn processor() -> String {
    let (architecture, system) = (std::env::consts::ARCH, std::env::consts::OS);
    format!("{KERNELS}, {architecture} {system}{}", processor_features())
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
