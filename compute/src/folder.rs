//! A model folder in diffusers' layout, read without its weights: what it is, whether we can compute it, and its id.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use protocol::{Hash, ModelId, ModelShape};
use sampler::SchedulerConfig;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::clip::ClipConfig;
use crate::config::{read_json, read_text};
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
const PIECE_BYTES: usize = 1024 * 1024;

/// A model folder whose configuration has been checked.
pub struct ModelFolder {
    path: PathBuf,
    name: String,
    id: ModelId,
    shape: ModelShape,
    scheduler: SchedulerConfig,
    tokenizer: Tokenizer,
}

impl ModelFolder {
    /// Reads the folder's configuration, and hashes its files.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        check_pipeline(path)?;
        let unet = UnetConfig::open(&path.join("unet/config.json"))?;
        let vae = VaeConfig::open(&path.join("vae/config.json"))?;
        let clip = ClipConfig::open(&path.join("text_encoder/config.json"))?;
        check_fit(path, &unet, &vae, &clip)?;
        let scheduler_path = path.join("scheduler/scheduler_config.json");
        let scheduler = SchedulerConfig::parse(&read_text(&scheduler_path)?)
            .map_err(|error| LoadError::unsupported(&scheduler_path, error))?;
        let tokenizer = Tokenizer::open(&path.join("tokenizer"), clip.tokens)?;
        let shape = ModelShape {
            latent_channels: vae.latent_channels as u32,
            factor: 1 << (vae.channels.len() - 1),
            native_cells: unet.sample_size as u32,
            tokens: tokenizer.tokens() as u32,
            embedding_width: clip.width as u32,
        };
        let absolute = path.canonicalize().map_err(|source| LoadError::read(path, source))?;
        let name = absolute.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { path: path.to_owned(), name, id: identify(path)?, shape, scheduler, tokenizer })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
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

pub(crate) fn check_pipeline(folder: &Path) -> Result<(), LoadError> {
    let path = folder.join("model_index.json");
    let index = read_json(&path)?;
    let refuse = |reason: String| Err(LoadError::unsupported(&path, reason));
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
fn check_fit(folder: &Path, unet: &UnetConfig, vae: &VaeConfig, clip: &ClipConfig) -> Result<(), LoadError> {
    let path = folder.join("unet/config.json");
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

/// The files that decide what the model computes, relative to its folder, sorted.
fn used_files(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let named = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "unet/config.json",
        "vae/config.json",
    ];
    let mut files: Vec<PathBuf> = named.iter().map(|name| folder.join(name)).collect();
    files.extend(Tokenizer::files(&folder.join("tokenizer")));
    files.extend(weights::files(&folder.join("text_encoder"), "model")?);
    files.extend(weights::files(&folder.join("unet"), "diffusion_pytorch_model")?);
    files.extend(weights::files(&folder.join("vae"), "diffusion_pytorch_model")?);
    files.sort();
    Ok(files)
}

fn identify(folder: &Path) -> Result<ModelId, LoadError> {
    let mut whole = Sha256::new();
    for path in used_files(folder)? {
        let relative = path.strip_prefix(folder).expect("every used file lies in the folder");
        let relative: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
        let (hash, length) = hash_file(&path).map_err(|source| LoadError::read(&path, source))?;
        // A path has no zero byte, so no two lists of files give the same bytes.
        whole.update(relative.join("/").as_bytes());
        whole.update([0]);
        whole.update(hash);
        whole.update(length.to_le_bytes());
    }
    Ok(ModelId(Hash::from_bytes(whole.finalize().into())))
}

fn hash_file(path: &Path) -> std::io::Result<([u8; 32], u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut length = 0;
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok((hasher.finalize().into(), length));
        }
        hasher.update(&piece[..read]);
        length += read as u64;
    }
}
