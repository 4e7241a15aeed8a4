//! A model folder in diffusers' layout, read without its weights: what it is, whether we can compute it, and its id.

use std::path::Path;

use protocol::{Hash, ModelId, ModelShape};
use sampler::SchedulerConfig;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::clip::ClipConfig;
use crate::files::Files;
use crate::tokenizer::Tokenizer;
use crate::unet::UnetConfig;
use crate::vae::VaeConfig;
use crate::weights::{self, LoadError};

/// The only pipeline this engine runs.
const PIPELINE: &str = "StableDiffusionPipeline";

/// Its components, and the classes that can stand for each.
const COMPONENTS: [(&str, &str); 4] = [
    ("text_encoder", "CLIPTextModel"),
    ("tokenizer", "CLIPTokenizer or CLIPTokenizerFast"),
    ("unet", "UNet2DConditionModel"),
    ("vae", "AutoencoderKL"),
];

/// Components that may be named and are not used: they judge or transform pictures beside the diffusion.
const IGNORED: [&str; 3] = ["feature_extractor", "image_encoder", "safety_checker"];

/// Bytes hashed at a time.
const PIECE_BYTES: u64 = 1024 * 1024;

const INDEX: &str = "model_index.json";
const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// A model folder whose configuration has been checked.
pub struct ModelFolder {
    files: Files,
    name: String,
    id: ModelId,
    used: Vec<UsedFile>,
    shape: ModelShape,
    scheduler: SchedulerConfig,
    tokenizer: Tokenizer,
}

/// A file that decides what a model computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedFile {
    /// Its name below the model's folder.
    pub name: String,
    /// SHA-256 of its bytes.
    pub sha256: Hash,
    /// Its length.
    pub bytes: u64,
}

impl ModelFolder {
    /// Reads the folder's configuration, and hashes its files.
    ///
    /// # Errors
    /// If a file is missing, damaged, or asks for what this engine does not compute.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        // A folder that is not there is reported by the first file that is not.
        let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let name = absolute.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self::from_files(Files::on_disk(path), &name)
    }

    /// The same for files that may lie elsewhere than on disk; `name` is what the folder is called.
    ///
    /// # Errors
    /// Those of [`ModelFolder::open`].
    pub fn from_files(files: Files, name: &str) -> Result<Self, LoadError> {
        check_pipeline(&files)?;
        let unet = UnetConfig::open(&files.at("unet"))?;
        let vae = VaeConfig::open(&files.at("vae"))?;
        let clip = ClipConfig::open(&files.at("text_encoder"))?;
        check_fit(&files, &unet, &vae, &clip)?;
        let scheduler = SchedulerConfig::parse(&files.read_text(SCHEDULER)?)
            .map_err(|error| LoadError::unsupported(&files.path(SCHEDULER), error))?;
        let tokenizer = Tokenizer::open(&files.at("tokenizer"), clip.tokens)?;
        let shape = ModelShape {
            latent_channels: vae.latent_channels as u32,
            factor: 1 << (vae.channels.len() - 1),
            native_cells: unet.sample_size as u32,
            tokens: tokenizer.tokens() as u32,
            embedding_width: clip.width as u32,
        };
        let used = used_files(&files)?;
        Ok(Self { id: identify(&used), files, name: name.to_owned(), used, shape, scheduler, tokenizer })
    }

    /// Its files.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The files that decide what the model computes, in order of their names.
    pub fn used(&self) -> &[UsedFile] {
        &self.used
    }

    /// The folder's own name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 over path, SHA-256 and length of every file that decides what the model computes.
    pub fn id(&self) -> ModelId {
        self.id
    }

    /// The shapes of the model's tensors.
    pub fn shape(&self) -> ModelShape {
        self.shape
    }

    /// The model's noise schedule.
    pub fn scheduler(&self) -> &SchedulerConfig {
        &self.scheduler
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The end of `prompt` that the model would not read, if there is one.
    pub fn excess(&self, prompt: &str) -> Option<String> {
        self.tokenizer.excess(prompt)
    }
}

pub(crate) fn check_pipeline(files: &Files) -> Result<(), LoadError> {
    let index = files.read_json(INDEX)?;
    let refuse = |reason: String| Err(LoadError::unsupported(&files.path(INDEX), reason));
    let class = index.get("_class_name").and_then(Value::as_str).unwrap_or("nothing");
    if class != PIPELINE {
        return refuse(format!("the pipeline is {class}, and only {PIPELINE} is supported"));
    }
    for (component, supported) in COMPONENTS {
        match class_of(&index, component) {
            Some(class) if supported.split(" or ").any(|supported| supported == class) => {}
            Some(class) => return refuse(format!("{component} is {class}, and only {supported} is supported")),
            None => return refuse(format!("there is no {component}; {PIPELINE} needs {supported}")),
        }
    }
    let known = |name: &str| {
        name == "scheduler" || IGNORED.contains(&name) || COMPONENTS.iter().any(|(component, _)| *component == name)
    };
    match index.iter().find(|(name, value)| value.is_array() && !known(name) && class_of(&index, name).is_some()) {
        Some((name, _)) => refuse(format!("the component {name} is not part of a {PIPELINE}")),
        None => Ok(()),
    }
}

/// The class of a component, which is written as `[library, class]`.
fn class_of<'a>(index: &'a Map<String, Value>, component: &str) -> Option<&'a str> {
    index.get(component)?.get(1)?.as_str()
}

/// Checks that the components can work on each other's tensors.
fn check_fit(files: &Files, unet: &UnetConfig, vae: &VaeConfig, clip: &ClipConfig) -> Result<(), LoadError> {
    let path = files.path("unet/config.json");
    let (channels, width) = (vae.latent_channels, clip.width);
    if unet.in_channels != channels || unet.out_channels != channels {
        let (inputs, outputs) = (unet.in_channels, unet.out_channels);
        let reason = format!(
            "in_channels {inputs} and out_channels {outputs} do not fit the autoencoder's {channels} latent channels; \
             inpainting and other UNets with extra channels are not supported"
        );
        return Err(LoadError::unsupported(&path, reason));
    }
    if let Some(other) = unet.context_width.iter().find(|other| **other != width) {
        let reason = format!("cross_attention_dim {other} does not fit the text encoder's width {width}");
        return Err(LoadError::malformed(&path, reason));
    }
    Ok(())
}

/// The files that decide what the model computes, sorted by the parts of their names.
fn used_files(files: &Files) -> Result<Vec<UsedFile>, LoadError> {
    let named = [INDEX, SCHEDULER, "text_encoder/config.json", "unet/config.json", "vae/config.json"];
    let mut names: Vec<String> = named.map(str::to_owned).to_vec();
    let tokenizer = Tokenizer::names(&files.at("tokenizer"));
    names.extend(tokenizer.iter().map(|name| format!("tokenizer/{name}")));
    for (component, stem) in
        [("text_encoder", "model"), ("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model")]
    {
        let weights = weights::names(&files.at(component), stem)?;
        names.extend(weights.iter().map(|name| format!("{component}/{name}")));
    }
    names.sort_by(|a, b| a.split('/').cmp(b.split('/')));
    names.into_iter().map(|name| hash_file(files, name)).collect()
}

fn identify(used: &[UsedFile]) -> ModelId {
    let mut whole = Sha256::new();
    for UsedFile { name, sha256, bytes } in used {
        // A name has no zero byte, so no two lists of files give the same bytes.
        whole.update(name.as_bytes());
        whole.update([0]);
        whole.update(sha256.as_bytes());
        whole.update(bytes.to_le_bytes());
    }
    ModelId(Hash::from_bytes(whole.finalize().into()))
}

fn hash_file(files: &Files, name: String) -> Result<UsedFile, LoadError> {
    let bytes = files.length(&name)?;
    let mut hasher = Sha256::new();
    let mut start = 0;
    while start < bytes {
        let length = PIECE_BYTES.min(bytes - start);
        hasher.update(files.read(&name, start, length as usize)?);
        start += length;
    }
    Ok(UsedFile { name, sha256: Hash::from_bytes(hasher.finalize().into()), bytes })
}
