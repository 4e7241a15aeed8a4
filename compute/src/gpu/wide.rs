//! Attention with heads too wide for the one-pass kernel, such as an autoencoder's single head: a slice of the queries
//! at a time, so that scores never take more than a bounded buffer.

use burn::tensor::{Tensor, activation};

/// Scores that exist at once: 64 MiB of them, half of the smallest buffer that a WebGPU device may be limited to.
const SCORES_MAX: usize = 16 * 1024 * 1024;

/// As [`super::attention`], without a mask.
pub(crate) fn attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    let [batch, heads, queries, width] = query.dims();
    let [_, _, keys, _] = key.dims();
    let query = query.mul_scalar(1.0 / (width as f64).sqrt());
    let slice = (SCORES_MAX / keys).clamp(1, queries);
    let mut planes = Vec::with_capacity(batch * heads);
    for (picture, head) in (0..batch * heads).map(|plane| (plane / heads, plane % heads)) {
        let plane = |tensor: &Tensor<4>, tokens: usize| -> Tensor<2> {
            tensor.clone().slice([picture..picture + 1, head..head + 1]).reshape([tokens, width])
        };
        let (query, value) = (plane(&query, queries), plane(&value, keys));
        let key = plane(&key, keys).transpose();
        let mixed = (0..queries).step_by(slice).map(|first| {
            let query = query.clone().narrow(0, first, slice.min(queries - first));
            let shares = activation::softmax(super::linear(query, key.clone(), None), 1);
            super::linear(shares, value.clone(), None)
        });
        planes.push(Tensor::cat(mixed.collect(), 0));
    }
    Tensor::cat(planes, 0).reshape([batch, heads, queries, width])
}
