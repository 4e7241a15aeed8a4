//! Reads a component's safetensors by name, checking file, dtype, shape and values before it believes any of them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::files::Files;

/// Longest safetensors header read: those of the largest diffusion models are below 1 MiB.
pub const HEADER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Most shards an index may name.
const SHARDS_MAX: usize = 256;

/// Bytes of the header's length, before the header.
const LENGTH_BYTES: u64 = 8;

/// Why a model cannot be loaded; what is wrong with a file names it.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is damaged or not what its name says.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tensor is missing, or has another dtype, shape or content than its network needs.
    #[error("{}: tensor {tensor} {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's full name.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// The file asks for something this engine does not compute.
    #[error("{}: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is asked for, and what is supported.
        reason: String,
    },
    /// The system would not give the engine its threads.
    #[error("cannot start the engine's threads: {0}")]
    Threads(String),
}

impl LoadError {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn malformed(path: &Path, reason: impl ToString) -> Self {
        Self::Malformed { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn unsupported(path: &Path, reason: impl ToString) -> Self {
        Self::Unsupported { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// The tensors of one component folder, or those below a prefix. Values are read when asked for and expanded to f32.
#[derive(Clone)]
pub struct Weights {
    component: Arc<Component>,
    prefix: String,
}

struct Component {
    device: Device,
    files: Files,
    /// The file that an error about a missing tensor names: the index of a sharded component, else its only file.
    path: PathBuf,
    shards: Vec<Shard>,
    /// Tensor name to index of its shard.
    names: BTreeMap<String, usize>,
}

struct Shard {
    name: String,
    header: Metadata,
    data_start: u64,
}

/// The weight files of the component in `files` whose names begin with `stem` (`diffusion_pytorch_model` or `model`): the
/// index if it is sharded, then each file. Full precision is preferred to the `fp16` variant.
pub fn names(files: &Files, stem: &str) -> Result<Vec<String>, LoadError> {
    for (single, index) in [
        (format!("{stem}.safetensors"), format!("{stem}.safetensors.index.json")),
        (format!("{stem}.fp16.safetensors"), format!("{stem}.safetensors.index.fp16.json")),
    ] {
        if files.has(&single) {
            return Ok(vec![single]);
        }
        if files.has(&index) {
            let shards = read_index(files, &index)?;
            return Ok([index].into_iter().chain(shards).collect());
        }
    }
    let missing = format!("neither {stem}.safetensors, its fp16 variant nor a shard index is there");
    let path = files.path(&format!("{stem}.safetensors"));
    Err(LoadError::read(&path, io::Error::new(io::ErrorKind::NotFound, missing)))
}

impl Weights {
    /// Reads the headers of the component's files; see [`names`].
    pub fn open(files: &Files, stem: &str, device: &Device) -> Result<Self, LoadError> {
        let list = names(files, stem)?;
        let path = files.path(&list[0]);
        let mut names = BTreeMap::new();
        let mut shards = Vec::new();
        for name in list.into_iter().filter(|name| name.ends_with(".safetensors")) {
            let shard = Shard::open(files, name)?;
            names.extend(shard.header.offset_keys().into_iter().map(|name| (name, shards.len())));
            shards.push(shard);
        }
        let component = Component { device: device.clone(), files: files.clone(), path, shards, names };
        Ok(Self { component: Arc::new(component), prefix: String::new() })
    }

    /// The tensors below `name`.
    pub fn at(&self, name: impl AsRef<str>) -> Self {
        Self { component: self.component.clone(), prefix: self.full(name.as_ref()) }
    }

    /// The device tensors are put on.
    pub fn device(&self) -> &Device {
        &self.component.device
    }

    /// Whether a tensor of this name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.component.names.contains_key(&self.full(name))
    }

    /// The tensor `name` as f32, of exactly `shape`.
    pub fn tensor<const D: usize>(&self, name: &str, shape: [usize; D]) -> Result<Tensor<D>, LoadError> {
        let values = self.values(name, &shape)?;
        Ok(Tensor::from_data(TensorData::new(values, shape), self.device()))
    }

    /// The values of the tensor `name` in row-major order; it must have exactly `shape`.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let full = self.full(name);
        let Some(&shard) = self.component.names.get(&full) else {
            let path = self.component.path.clone();
            return Err(LoadError::Tensor { path, tensor: full, reason: "is missing".into() });
        };
        self.component.shards[shard].values(&self.component.files, &full, shape)
    }

    /// A complaint that the network below this prefix cannot have this form.
    pub(crate) fn malformed(&self, reason: &str) -> LoadError {
        LoadError::malformed(&self.component.path, format!("{}: {reason}", self.prefix))
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}

impl Shard {
    fn open(files: &Files, name: String) -> Result<Self, LoadError> {
        let path = files.path(&name);
        let file_bytes = files.length(&name)?;
        if file_bytes < LENGTH_BYTES {
            return Err(LoadError::malformed(&path, format!("truncated: {file_bytes} bytes hold no header")));
        }
        let length = files.read(&name, 0, LENGTH_BYTES as usize)?;
        let length = length.try_into().expect("as many bytes were read as were asked for");
        let length = u64::from_le_bytes(length);
        if length > HEADER_BYTES_MAX {
            let reason = format!("the header claims {length} bytes and at most {HEADER_BYTES_MAX} are read");
            return Err(LoadError::malformed(&path, reason));
        }
        let data_start = LENGTH_BYTES + length;
        if data_start > file_bytes {
            let reason = format!("truncated: the header ends at byte {data_start} and the file at {file_bytes}");
            return Err(LoadError::malformed(&path, reason));
        }
        let header = files.read(&name, LENGTH_BYTES, length as usize)?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|error| LoadError::malformed(&path, format!("the header is corrupt: {error}")))?;
        let end = data_start + header.data_len() as u64;
        if end != file_bytes {
            let state = if end > file_bytes { "truncated" } else { "longer than its header says" };
            let reason = format!("{state}: the tensors end at byte {end} and the file at {file_bytes}");
            return Err(LoadError::malformed(&path, reason));
        }
        Ok(Self { name, header, data_start })
    }

    fn values(&self, files: &Files, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let refuse = |reason| LoadError::Tensor { path: files.path(&self.name), tensor: name.to_owned(), reason };
        let info = self.header.info(name).expect("the name comes from this header");
        if info.shape != shape {
            return Err(refuse(format!("has shape {:?} where {shape:?} is needed", info.shape)));
        }
        let expand: fn(&[u8]) -> Vec<f32> = match info.dtype {
            Dtype::F32 => expand_f32,
            Dtype::F16 => expand_f16,
            Dtype::BF16 => expand_bf16,
            other => return Err(refuse(format!("has dtype {other:?}; supported are F32, F16 and BF16"))),
        };
        let (start, end) = info.data_offsets;
        let bytes = files.read(&self.name, self.data_start + start as u64, end - start);
        let bytes = bytes.map_err(|error| refuse(format!("cannot be read: {error}")))?;
        let values = expand(&bytes);
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(refuse(format!("is not finite at index {index}"))),
            None => Ok(values),
        }
    }
}

fn expand_f32(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}

fn expand_f16(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|word| f16::from_le_bytes([word[0], word[1]]).to_f32()).collect()
}

fn expand_bf16(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|word| bf16::from_le_bytes([word[0], word[1]]).to_f32()).collect()
}

/// The shard files an index names, in order of their names. A shard is a plain file name beside the index.
fn read_index(files: &Files, name: &str) -> Result<Vec<String>, LoadError> {
    let malformed = |reason: String| LoadError::malformed(&files.path(name), reason);
    let index = files.read_json(name)?;
    let map = index
        .get("weight_map")
        .and_then(|map| map.as_object())
        .ok_or_else(|| malformed("the shard index has no weight_map".into()))?;
    let mut shards: Vec<&str> = map.values().filter_map(|shard| shard.as_str()).collect();
    if shards.len() != map.len() {
        return Err(malformed("the shard index names a shard that is not text".into()));
    }
    shards.sort_unstable();
    shards.dedup();
    if shards.len() > SHARDS_MAX {
        return Err(malformed(format!("the shard index names more than {SHARDS_MAX} shards")));
    }
    let beside = |shard: &&str| {
        let plain = !shard.contains(['/', '\\', ':']) && shard.ends_with(".safetensors");
        let outside = || format!("the shard index names {shard:?}, which is not a safetensors file beside it");
        if plain { Ok((*shard).to_owned()) } else { Err(malformed(outside())) }
    };
    shards.iter().map(beside).collect()
}
