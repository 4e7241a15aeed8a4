//! Starts a kernel of `shaders` on the buffers of burn's tensors.

use burn::tensor::Shape;
use burn_cubecl::cubecl::ir::attributes::BufferIOAttr;
use burn_cubecl::cubecl::{
    CubeCount, CubeDim, prelude::KernelId, server::KernelArguments, server::MetadataBindingInfo,
};
use burn_cubecl::template::{KernelSource, SourceKernel, SourceTemplate};
use burn_cubecl::tensor::CubeTensor;
use shaders::Kernel;

/// Lets burn compile a kernel, and find the compiled one by its variant.
struct Source<K>(K);

impl<K: Kernel + Send + Sync> KernelSource for Source<K> {
    fn source(&self) -> SourceTemplate {
        SourceTemplate::new(self.0.source())
    }

    fn id(&self) -> KernelId {
        KernelId::new::<Self>().info(self.0.variant())
    }

    fn lang(&self) -> &'static str {
        "wgsl"
    }
}

/// Enqueues `kernel` with `inputs` bound in order and `out` bound at `out_at` among them.
pub(crate) fn launch<K: Kernel + Send + Sync, const N: usize>(
    kernel: K,
    inputs: [CubeTensor; N],
    out: &CubeTensor,
    out_at: usize,
) {
    let grid = kernel.grid();
    if out.meta.shape().num_elements() == 0 {
        return;
    }
    let client = out.client.clone();
    let inputs = apart(inputs);
    let mut arguments = KernelArguments::new();
    for (at, input) in inputs.iter().enumerate() {
        if at == out_at {
            arguments = arguments.with_buffer_io(out.handle.clone().binding(), BufferIOAttr::WriteOnly);
        }
        arguments = arguments.with_buffer_io(input.handle.clone().binding(), BufferIOAttr::ReadOnly);
    }
    if out_at == N {
        arguments = arguments.with_buffer_io(out.handle.clone().binding(), BufferIOAttr::WriteOnly);
    }
    arguments.info = MetadataBindingInfo::custom(words(&kernel.sizes()));
    let [x, y, z] = grid.map(|side| u32::try_from(side).expect("a grid's sides are at most 65535"));
    let [across, down, deep] = K::INVOCATIONS;
    let kernel = SourceKernel::new(Source(kernel), CubeDim::new_3d(across, down, deep));
    client.launch(Box::new(kernel), CubeCount::Static(x, y, z), arguments);
}

/// Sizes as 32-bit words, of which cubecl takes two at a time.
fn words(sizes: &[usize]) -> Vec<u64> {
    let word = |at: usize| sizes.get(at).map_or(0, |&size| u32::try_from(size).expect("sizes are below 2^32"));
    (0..sizes.len()).step_by(2).map(|at| u64::from(word(at)) | (u64::from(word(at + 1)) << 32)).collect()
}

/// A new tensor without gaps, its values undefined, where `like` is.
pub(crate) fn empty(like: &CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    let shape = shape.into();
    let buffer = like.client.empty(shape.num_elements() * like.dtype.size());
    CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), shape, buffer, like.dtype)
}

/// The same values seen as another shape.
pub(crate) fn with_strides<const D: usize>(tensor: CubeTensor, shape: [usize; D], strides: [usize; D]) -> CubeTensor {
    let meta = burn_cubecl::cubecl::zspace::metadata::Metadata::new(Shape::from(shape), strides);
    CubeTensor::new(tensor.client, tensor.handle, meta, tensor.device, tensor.dtype)
}

/// The sizes of a tensor whose rank the caller knows.
pub(crate) fn dims<const D: usize>(tensor: &CubeTensor) -> [usize; D] {
    tensor.meta.shape().dims()
}

/// Copies what shares memory with an input before it: WebGPU forbids to bind the same bytes twice where a kernel may
/// write, and all bindings are declared so because burn cuts many tensors from one buffer.
fn apart<const N: usize>(mut inputs: [CubeTensor; N]) -> [CubeTensor; N] {
    for at in 1..N {
        let memory = |tensor: &CubeTensor| std::ptr::from_ref(tensor.handle.memory.descriptor());
        if inputs[..at].iter().any(|other| memory(other) == memory(&inputs[at])) {
            inputs[at] = inputs[at].copy();
        }
    }
    inputs
}
