//! The extension of burn's GPU backend by the kernels of `shaders`.

use burn::backend::{Backend, backend_extension, tensor::FloatTensor};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};
use shaders::{Attention, Conv, GroupNorm, Linear};

use super::launch::{dims, empty, launch, with_strides};

/// Callers have checked the shapes.
#[backend_extension(Cube)]
pub(crate) trait Kernels: Backend {
    /// See [`super::conv2d`].
    fn conv_wgsl(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: usize,
        before: usize,
        after: usize,
    ) -> FloatTensor<Self>;

    /// See [`super::linear`].
    fn linear_wgsl(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`super::linear`].
    fn linear_bias_wgsl(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`super::group_norm`].
    fn group_norm_wgsl(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        groups: usize,
        epsilon: f32,
        silu: bool,
    ) -> FloatTensor<Self>;

    /// See [`super::attention`].
    fn attention_wgsl(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        causal: bool,
    ) -> FloatTensor<Self>;
}

impl Kernels for CubeBackend {
    fn conv_wgsl(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        stride: usize,
        before: usize,
        after: usize,
    ) -> CubeTensor {
        let ([batch, inputs, rows, columns], [outputs, _, kernel, _]) = (dims(&x), dims(&weight));
        let padding = (before, after);
        let shape = Conv { batch, inputs, outputs, rows, columns, kernel, stride, padding };
        let out = empty(&x, [batch, outputs, shape.out_rows(), shape.out_columns()]);
        launch(shape, [into_contiguous(x), into_contiguous(weight), into_contiguous(bias)], &out, 3);
        out
    }

    fn linear_wgsl(x: CubeTensor, weight: CubeTensor) -> CubeTensor {
        let (shape, out) = linear(&x, &weight, false);
        launch(shape, [into_contiguous(x), into_contiguous(weight)], &out, 2);
        out
    }

    fn linear_bias_wgsl(x: CubeTensor, weight: CubeTensor, bias: CubeTensor) -> CubeTensor {
        let (shape, out) = linear(&x, &weight, true);
        launch(shape, [into_contiguous(x), into_contiguous(weight), into_contiguous(bias)], &out, 2);
        out
    }

    fn group_norm_wgsl(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        groups: usize,
        epsilon: f32,
        silu: bool,
    ) -> CubeTensor {
        let (x, weight, bias) = (into_contiguous(x), into_contiguous(weight), into_contiguous(bias));
        let [batch, channels, rows, columns] = dims(&x);
        let (channels, area, epsilon) = (channels / groups, rows * columns, epsilon.to_bits());
        let shape = GroupNorm { batch, groups, channels, area, epsilon, silu };
        let first = shape.statistics();
        let statistics = empty(&x, [first.groups, first.chunks(), 2]);
        launch(first, [x.clone()], &statistics, 1);
        let out = empty(&x, [batch, groups * channels, rows, columns]);
        launch(shape, [x, statistics, weight, bias], &out, 4);
        out
    }

    fn attention_wgsl(query: CubeTensor, key: CubeTensor, value: CubeTensor, causal: bool) -> CubeTensor {
        let [query, key, value] = [query, key, value].map(with_dense_width);
        let ([batch, heads, queries, width], [_, _, keys, _]) = (dims(&query), dims(&key));
        let [query_strides, key_strides, value_strides] = [&query, &key, &value].map(|tensor| {
            let strides = tensor.meta.strides();
            [strides[0], strides[1], strides[2]]
        });
        let shape = Attention { batch, heads, queries, keys, width, query_strides, key_strides, value_strides, causal };
        let out = empty(&query, [batch, queries, heads, width]);
        launch(shape, [query, key, value], &out, 3);
        with_strides(out, [batch, heads, queries, width], [queries * heads * width, width, heads * width, 1])
    }
}

/// The kernel, and room for its result: the shape of `x` with another last axis.
fn linear(x: &CubeTensor, weight: &CubeTensor, bias: bool) -> (Linear, CubeTensor) {
    let [inputs, outputs] = dims(weight);
    let rows = x.meta.shape().num_elements() / inputs;
    let mut shape = x.meta.shape().clone();
    let last = shape.num_dims() - 1;
    shape[last] = outputs;
    (Linear { rows, inputs, outputs, bias }, empty(x, shape))
}

/// The tensor itself where the values of a head are neighbours, else a copy without gaps.
fn with_dense_width(tensor: CubeTensor) -> CubeTensor {
    let dense = !tensor.meta.is_tiled() && tensor.meta.strides()[3] == 1;
    if dense { tensor } else { into_contiguous(tensor) }
}
