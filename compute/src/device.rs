//! Which kind of device tensors live on, and with it which kernels compute.

use burn::tensor::Device;

/// Whether `device` is the processor, whose tensors can be read and written in place; a GPU's cannot.
#[cfg(feature = "gpu")]
pub(crate) fn is_processor(device: &Device) -> bool {
    !crate::gpu::is_gpu(device)
}

/// In a build without GPUs every device is the processor.
#[cfg(not(feature = "gpu"))]
pub(crate) fn is_processor(_device: &Device) -> bool {
    true
}
