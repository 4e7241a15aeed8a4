//! Our WGSL kernels as operations on burn's tensors, for devices that are GPUs.
//!
//! Each is enqueued and returns at once; nothing here reads a value back. All tensors are f32. A result that does not
//! fit into one buffer of the device, or a kernel that the driver refuses, becomes an error where the values are read.

mod kernels;
mod launch;
mod wide;

use burn::backend::{Dispatch, DispatchDevice};
use burn::tensor::{Device, Tensor, module, ops::AttentionModuleOptions};

use self::kernels::Kernels;

/// Whether the operations of this module can run on tensors of `device`; on others they panic.
pub fn is_gpu(device: &Device) -> bool {
    matches!(device.as_dispatch(), DispatchDevice::Cube(_))
}

/// `x [batch, inputs, rows, columns]`, `weight [outputs, inputs, kernel, kernel]` and `bias [outputs]` to
/// `[batch, outputs, out_rows, out_columns]`; `padding` zeros before and after both axes.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, stride: usize, padding: (usize, usize)) -> Tensor<4> {
    let ([_, inputs, ..], [outputs, depth, kernel, across]) = (x.dims(), weight.dims());
    assert_eq!((inputs, kernel, [outputs]), (depth, across, bias.dims()), "shapes of a convolution");
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Kernels>::conv_wgsl(x, weight, bias, stride, padding.0, padding.1))
}

/// `x [..., inputs]`, `weight [inputs, outputs]` and `bias [outputs]` to `[..., outputs]`.
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let [inputs, outputs] = weight.dims();
    assert_eq!(x.dims()[D - 1], inputs, "shapes of a linear layer");
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => {
            assert_eq!(bias.dims(), [outputs], "the bias of a linear layer");
            <Dispatch as Kernels>::linear_bias_wgsl(x, weight, bias.into_dispatch())
        }
        None => <Dispatch as Kernels>::linear_wgsl(x, weight),
    })
}

/// Normalises `groups` groups of neighbouring channels of `x [batch, channels, rows, columns]`, then multiplies by
/// `weight [channels]` and adds `bias [channels]`; with `silu`, `y * sigmoid(y)` of that.
pub fn group_norm(
    x: Tensor<4>,
    groups: usize,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
    silu: bool,
) -> Tensor<4> {
    let [_, channels, ..] = x.dims();
    assert_eq!(([channels], [channels]), (weight.dims(), bias.dims()), "shapes of a group norm");
    assert_eq!(channels % groups, 0, "groups of a group norm");
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as Kernels>::group_norm_wgsl(x, weight, bias, groups, epsilon as f32, silu))
}

/// Softmax attention of `query` to `key` and `value`, all `[batch, heads, tokens, width]`; if `causal`, the last query
/// sees all keys and each one before it one key less.
///
/// The result is laid out so that `swap_dims(1, 2)` and a reshape to `[batch, tokens, heads * width]` copy nothing, and
/// the operands may be laid out so, too.
pub fn attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>, causal: bool) -> Tensor<4> {
    let [batch, heads, _, width] = query.dims();
    let [_, _, keys, _] = key.dims();
    assert_eq!((key.dims(), value.dims()), ([batch, heads, keys, width], [batch, heads, keys, width]), "attention");
    if width <= shaders::WIDTH_MAX {
        let (query, key, value) = (query.into_dispatch(), key.into_dispatch(), value.into_dispatch());
        Tensor::from_dispatch(<Dispatch as Kernels>::attention_wgsl(query, key, value, causal))
    } else if causal {
        // No network that we know of has such heads; burn's own is slow, but right.
        let options = AttentionModuleOptions { is_causal: true, ..Default::default() };
        module::attention(query, key, value, None, None, options)
    } else {
        wide::attention(query, key, value)
    }
}
