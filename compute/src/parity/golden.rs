//! A golden file: recorded tensors by name, and what ours differ from them by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

use super::report::{Bound, TensorReport};
use crate::weights::LoadError;

/// Largest golden file read.
const GOLDEN_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The tensors of one golden file.
pub(super) struct Golden {
    path: PathBuf,
    tensors: BTreeMap<String, Recorded>,
}

/// A recorded tensor; integers (token ids, timesteps) are small enough to be exact in f32.
pub(super) struct Recorded {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Golden {
    /// Reads the file at `path`; tensors of other dtypes than F32 and I64 are left out.
    pub(super) fn open(path: &Path) -> Result<Self, LoadError> {
        let fail = |source| LoadError::read(path, source);
        if std::fs::metadata(path).map_err(fail)?.len() > GOLDEN_BYTES_MAX {
            return Err(LoadError::malformed(path, format!("larger than {GOLDEN_BYTES_MAX} bytes")));
        }
        let bytes = std::fs::read(path).map_err(fail)?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| LoadError::malformed(path, error))?;
        let read = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
            let values = match view.dtype() {
                Dtype::F32 => words(view.data()).map(f32::from_le_bytes).collect(),
                Dtype::I64 => words(view.data()).map(|word| i64::from_le_bytes(word) as f32).collect(),
                _ => return None,
            };
            Some((name.to_owned(), Recorded { shape: view.shape().to_vec(), values }))
        };
        Ok(Self { path: path.to_owned(), tensors: file.iter().filter_map(read).collect() })
    }

    /// All names, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor `name`.
    pub(super) fn tensor(&self, name: &str) -> Option<&Recorded> {
        self.tensors.get(name)
    }

    /// A picture or latent `[batch, channels, rows, columns]` that every golden of a pipeline has.
    pub(super) fn picture(&self, name: &str) -> Result<([usize; 4], Vec<f32>), LoadError> {
        let recorded = self.tensor(name).ok_or_else(|| self.malformed(&format!("there is no tensor {name}")))?;
        let shape = recorded.shape.as_slice().try_into();
        let shape = shape.map_err(|_| self.malformed(&format!("{name} has not four axes")))?;
        Ok((shape, recorded.values.clone()))
    }

    /// Compares our `values` of `shape` with the tensor `name`; `None` if it was not recorded.
    pub(super) fn compare(&self, name: &str, shape: &[usize], values: &[f32], bound: Bound) -> Option<TensorReport> {
        let recorded = self.tensor(name)?;
        if recorded.shape != shape {
            return Some(TensorReport::different_shape(name, bound));
        }
        Some(TensorReport::new(name, values, &recorded.values, bound))
    }

    /// Compares our `tensor` with the tensor `name`; `None` if it was not recorded.
    pub(super) fn compare_tensor<const D: usize>(
        &self,
        name: &str,
        tensor: Tensor<D>,
        bound: Bound,
    ) -> Option<TensorReport> {
        let shape = tensor.dims();
        let data: TensorData = tensor.into_data();
        self.compare(name, &shape, &data.try_into_vec::<f32>().expect("every tensor here is f32"), bound)
    }

    pub(super) fn malformed(&self, reason: &str) -> LoadError {
        LoadError::malformed(&self.path, reason)
    }
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.chunks_exact(N).map(|word| word.try_into().expect("every chunk has N bytes"))
}
