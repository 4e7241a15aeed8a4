//! Attention as two matrix products around a softmax over slices of the queries, for browsers.

use burn::tensor::{Tensor, TensorData};

use crate::activation::exp;

/// Scores held at once, about: 4 MiB.
const SCORES_MAX: usize = 1024 * 1024;

/// Independent partial results of a row, which the compiler may keep in one vector register.
const LANES: usize = 4;

/// Softmax attention of `query` to `key` and `value`, all `[batch, heads, tokens, width]`.
pub(super) fn attend(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    let [batch, heads, tokens, width] = query.dims();
    let others = key.dims()[2];
    let (key, scale) = (key.swap_dims(2, 3), 1.0 / (width as f32).sqrt());
    let slice = (SCORES_MAX / (batch * heads * others)).clamp(1, tokens);
    let mixed = (0..tokens).step_by(slice).map(|first| {
        let count = slice.min(tokens - first);
        let scores = query.clone().narrow(2, first, count).matmul(key.clone());
        let (shape, device) = (scores.dims(), scores.device());
        let mut scores = scores.into_data().try_into_vec::<f32>().expect("every tensor here is f32");
        scores.chunks_exact_mut(others).for_each(|row| softmax(row, scale));
        Tensor::<4>::from_data(TensorData::new(scores, shape), &device).matmul(value.clone())
    });
    let mixed: Vec<Tensor<4>> = mixed.collect();
    if mixed.len() == 1 { mixed.into_iter().next().expect("there is one") } else { Tensor::cat(mixed, 2) }
}

/// Replaces `row` by the softmax of `scale * row`.
fn softmax(row: &mut [f32], scale: f32) {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    chunks.iter().for_each(|chunk| lanes.iter_mut().zip(chunk).for_each(|(lane, &value)| *lane = lane.max(value)));
    let largest = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |largest, &value| largest.max(value));
    row.iter_mut().for_each(|value| *value = exp((*value - largest) * scale));
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    chunks.iter().for_each(|chunk| lanes.iter_mut().zip(chunk).for_each(|(lane, &value)| *lane += value));
    let sum: f32 = lanes.iter().chain(rest).sum();
    row.iter_mut().for_each(|value| *value /= sum);
}

#[cfg(test)]
mod tests {
    use burn::tensor::ops::AttentionModuleOptions;
    use burn::tensor::{Device, module};

    use super::*;

    #[test]
    fn attention_in_slices_is_burns_attention() {
        let wave = |shape: [usize; 4], speed: f32| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|at| (at as f32 * speed).sin() * 2.0).collect();
            Tensor::<4>::from_data(TensorData::new(values, shape), &Device::flex())
        };
        for (tokens, others, heads, width) in [(64, 32, 4, 24), (1, 1, 1, 7), (7, 13, 2, 5), (1500, 1030, 2, 8)] {
            let query = wave([1, heads, tokens, width], 0.9);
            let (key, value) = (wave([1, heads, others, width], 1.3), wave([1, heads, others, width], 0.7));
            let given = attend(query.clone(), key.clone(), value.clone());
            let known = module::attention(query, key, value, None, None, AttentionModuleOptions::default());
            let largest = (given - known).abs().max().into_scalar::<f32>();
            assert!(largest < 3e-6, "{tokens} x {others}: {largest:e}");
        }
    }
}
