//! The twins against plain f64 loops that know nothing of tiles, slices or chunks.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use shaders::{Attention, Conv, GroupNorm, Kernel, Linear, attention, conv, group_norm, linear, statistics};

/// f32 sums of up to a few hundred products of values around 1, in any order, agree to this.
const TOLERANCE: f64 = 2e-5;

/// Values between -1 and 1 from a fixed linear congruence.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn assert_close(found: &[f32], expected: &[f64], what: &dyn std::fmt::Debug) {
    assert_eq!(found.len(), expected.len(), "{what:?}");
    let apart = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs());
    let worst = apart.fold(0.0, |worst: f64, apart| if apart > worst || apart.is_nan() { apart } else { worst });
    assert!(worst <= TOLERANCE, "{what:?}: {worst:e}");
}

#[test]
fn a_convolution_is_the_sum_under_its_window() {
    for (kernel, stride, padding) in [(1, 1, (0, 0)), (3, 1, (1, 1)), (3, 2, (1, 1)), (3, 2, (0, 1)), (5, 3, (2, 1))] {
        let shape = Conv { batch: 2, inputs: 3, outputs: 5, rows: 7, columns: 9, kernel, stride, padding };
        let (x, weight, bias) = (values(2 * 3 * 63, 1), values(15 * kernel * kernel, 2), values(5, 3));
        let mut expected = Vec::new();
        for (picture, output) in (0..10).map(|plane| (plane / 5, plane % 5)) {
            for (row, column) in (0..shape.out_rows()).flat_map(|row| (0..shape.out_columns()).map(move |c| (row, c))) {
                let mut sum = f64::from(bias[output]);
                for (input, down, right) in
                    (0..3 * kernel * kernel).map(|at| (at / kernel / kernel, at / kernel % kernel, at % kernel))
                {
                    let (y, x_at) = (row * stride + down, column * stride + right);
                    if (padding.0..7 + padding.0).contains(&y) && (padding.0..9 + padding.0).contains(&x_at) {
                        let value = x[((picture * 3 + input) * 7 + y - padding.0) * 9 + x_at - padding.0];
                        let factor = weight[((output * 3 + input) * kernel + down) * kernel + right];
                        sum += f64::from(value) * f64::from(factor);
                    }
                }
                expected.push(sum);
            }
        }
        assert_close(&conv(&shape, &x, &weight, &bias), &expected, &shape);
    }
}

#[test]
fn a_linear_layer_is_a_matrix_product_and_a_bias() {
    for (rows, inputs, outputs, bias) in [(1, 1, 1, true), (3, 17, 5, false), (65, 40, 66, true)] {
        let shape = Linear { rows, inputs, outputs, bias };
        let (x, weight, bias) = (values(rows * inputs, 1), values(inputs * outputs, 2), values(outputs, 3));
        let bias = shape.bias.then_some(bias.as_slice());
        let cell = |at: usize| {
            let (row, column) = (at / outputs, at % outputs);
            let product = |input| f64::from(x[row * inputs + input]) * f64::from(weight[input * outputs + column]);
            (0..inputs).map(product).sum::<f64>() + bias.map_or(0.0, |bias| f64::from(bias[column]))
        };
        let expected: Vec<f64> = (0..rows * outputs).map(cell).collect();
        assert_close(&linear(&shape, &x, &weight, bias), &expected, &shape);
    }
}

#[test]
fn a_group_norm_has_mean_zero_and_variance_one_before_its_weights() {
    // Less than a chunk, exactly one, and a short second one; far from zero, where a difference of squares fails.
    for (channels, area, silu) in [(1, 1, false), (3, 35, true), (2, 8192, false), (3, 12_345, true)] {
        let shape = GroupNorm { batch: 2, groups: 2, channels, area, epsilon: 1e-5f32.to_bits(), silu };
        let size = channels * area;
        let x: Vec<f32> = values(4 * size, 5).iter().map(|value| 30.0 + value).collect();
        let (weight, bias) = (values(2 * channels, 6), values(2 * channels, 7));
        let mut expected = Vec::new();
        for (index, group) in x.chunks_exact(size).enumerate() {
            let mean = group.iter().map(|&value| f64::from(value)).sum::<f64>() / size as f64;
            let variance = group.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / size as f64;
            for (i, &value) in group.iter().enumerate() {
                let channel = index % 2 * channels + i / area;
                let normal = (f64::from(value) - mean) / (variance + 1e-5).sqrt();
                let value = normal * f64::from(weight[channel]) + f64::from(bias[channel]);
                expected.push(if silu { value / (1.0 + (-value).exp()) } else { value });
            }
        }
        let sums = statistics(&shape.statistics(), &x);
        assert_close(&group_norm(&shape, &x, &sums, &weight, &bias), &expected, &shape);
    }
}

#[test]
fn silu_of_large_numbers_stays_finite() {
    let shape = GroupNorm { batch: 1, groups: 1, channels: 2, area: 1, epsilon: 0, silu: true };
    let y = group_norm(&shape, &[-1.0, 1.0], &[0.0, 2.0], &[1e4, 1e4], &[0.0, 0.0]);
    assert!(y[0] <= 0.0 && y[0] > -1e-20, "{y:?}");
    assert_eq!(y[1], 1e4);
}

#[test]
fn attention_is_the_softmax_of_scores_times_values() {
    for (queries, keys, width, causal) in
        [(1, 1, 1, false), (33, 70, 40, false), (65, 65, 8, true), (5, 37, 80, true), (40, 33, 160, true)]
    {
        let (batch, heads) = (2, 3);
        let shape = Attention {
            batch,
            heads,
            queries,
            keys,
            width,
            // Tokens before heads, as a projection leaves them, for the query; dense for the others.
            query_strides: [queries * heads * width, width, heads * width],
            key_strides: Attention::dense(heads, keys, width),
            value_strides: Attention::dense(heads, keys, width),
            causal,
        };
        let [query, key, value] = [(queries, 1), (keys, 2), (keys, 3)].map(|(tokens, seed)| {
            values(batch * heads * tokens * width, seed).iter().map(|v| 3.0 * v).collect::<Vec<_>>()
        });
        let mut expected = Vec::new();
        for at in 0..batch * queries * heads {
            let (picture, token, head) = (at / heads / queries, at / heads % queries, at % heads);
            let query = &query[((picture * queries + token) * heads + head) * width..][..width];
            let row = |all: &[f32], other: usize| -> Vec<f64> {
                let first = ((picture * heads + head) * keys + other) * width;
                all[first..first + width].iter().map(|&value| f64::from(value)).collect()
            };
            let seen: Vec<usize> = (0..keys).filter(|other| !causal || other + queries <= token + keys).collect();
            let score = |&other: &usize| {
                let products = query.iter().zip(row(&key, other)).map(|(query, key)| f64::from(*query) * key);
                products.sum::<f64>() / (width as f64).sqrt()
            };
            let scores: Vec<f64> = seen.iter().map(score).collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|score| (score - top).exp()).sum();
            let mut mixed = vec![0.0; width];
            for (score, &other) in scores.iter().zip(&seen) {
                let share = (score - top).exp() / total;
                mixed.iter_mut().zip(row(&value, other)).for_each(|(mixed, value)| *mixed += share * value);
            }
            expected.extend(mixed);
        }
        assert_close(&attention(&shape, &query, &key, &value), &expected, &shape);
    }
}

#[test]
fn no_grid_is_larger_than_a_device_allows() {
    let grids = [
        Conv { batch: 2, inputs: 4, outputs: 3, rows: 4096, columns: 4096, kernel: 3, stride: 1, padding: (1, 1) }
            .grid(),
        Linear { rows: 20_000_000, inputs: 4, outputs: 4, bias: false }.grid(),
        GroupNorm { batch: 70_000, groups: 32, channels: 1, area: 1, epsilon: 0, silu: false }.grid(),
    ];
    assert_eq!(grids[0][0] * grids[0][2], 2 * 65535 * 5, "4096 x 4096 cells are 262144 tiles, so 5 rows of 65535");
    for grid in grids {
        assert!(grid.iter().all(|&side| (1..=shaders::WORKGROUPS_MAX).contains(&side)), "{grid:?}");
    }
}
