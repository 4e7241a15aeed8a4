//! The twin of `attention.wgsl`: softmax attention in one pass over the keys.

use crate::kernel::{Fold, Kernel, fill, float, unsigned};

/// The WGSL template.
pub const ATTENTION: &str = include_str!("attention.wgsl");

/// Widest head: three slices of 64 values, as many as one invocation keeps.
pub const WIDTH_MAX: usize = 192;

/// Queries of one workgroup.
const QUERY_TILE: usize = 64;

/// Keys between two updates of the running maximum.
const KEY_TILE: usize = 32;

/// Stands for minus infinity.
const LOW: f32 = -3e38;

/// Attention of `query` to `key` and `value`, each `[batch, heads, tokens, width]` with any strides but a dense last
/// axis. The result is laid out `[batch, queries, heads, width]`, which is what follows wants to read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attention {
    /// Pictures.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Tokens of the query.
    pub queries: usize,
    /// Tokens of key and value.
    pub keys: usize,
    /// Values of a head, at most [`WIDTH_MAX`].
    pub width: usize,
    /// Values from one picture, head and token of the query to the next.
    pub query_strides: [usize; 3],
    /// The same of the key.
    pub key_strides: [usize; 3],
    /// The same of the value.
    pub value_strides: [usize; 3],
    /// Whether query `i` sees only keys up to `i + keys - queries`.
    pub causal: bool,
}

impl Attention {
    /// The strides of `[batch, heads, tokens, width]` without gaps.
    pub fn dense(heads: usize, tokens: usize, width: usize) -> [usize; 3] {
        [heads * tokens * width, tokens * width, width]
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    fn fold(&self) -> Fold {
        Fold::new(self.batch * self.heads)
    }
}

impl Kernel for Attention {
    const INVOCATIONS: [u32; 3] = [16, 16, 1];

    fn variant(&self) -> [usize; 3] {
        [self.width, usize::from(self.causal), 0]
    }

    fn source(&self) -> String {
        let values =
            [("WIDTH", unsigned(self.width)), ("CAUSAL", self.causal.to_string()), ("SCALE", float(self.scale()))];
        fill(ATTENTION, &values)
    }

    fn sizes(&self) -> Vec<usize> {
        let Self { batch, heads, queries, keys, .. } = *self;
        let strides = [self.query_strides, self.key_strides, self.value_strides];
        let scalars = [batch * heads, heads, queries, keys, self.fold().width];
        scalars.into_iter().chain(strides.into_iter().flatten()).collect()
    }

    fn grid(&self) -> [usize; 3] {
        let Fold { width, rows } = self.fold();
        [self.queries.div_ceil(QUERY_TILE), width, rows]
    }
}

/// `[batch, queries, heads, width]`.
pub fn attention(shape: &Attention, query: &[f32], key: &[f32], value: &[f32]) -> Vec<f32> {
    let Attention { batch, heads, queries, width, .. } = *shape;
    let mut out = Vec::with_capacity(batch * queries * heads * width);
    for (picture, token, head) in
        (0..batch * queries * heads).map(|at| (at / heads / queries, at / heads % queries, at % heads))
    {
        let first = |strides: [usize; 3]| picture * strides[0] + head * strides[1];
        let query = &query[first(shape.query_strides) + token * shape.query_strides[2]..][..width];
        let (key, value) = (&key[first(shape.key_strides)..], &value[first(shape.value_strides)..]);
        out.extend(attend(shape, token, query, key, value));
    }
    out
}

/// One query of one head.
fn attend(shape: &Attention, token: usize, query: &[f32], key: &[f32], value: &[f32]) -> Vec<f32> {
    let Attention { queries, keys, width, causal, .. } = *shape;
    let (mut top, mut sums, mut mixed) = (LOW, [0.0f32; KEY_TILE / 2], vec![0.0f32; width]);
    for first_key in (0..keys).step_by(KEY_TILE) {
        let mut scores = [LOW; KEY_TILE];
        for (score, other) in scores.iter_mut().zip(first_key..keys) {
            if !causal || other + queries <= token + keys {
                let key = &key[other * shape.key_strides[2]..][..width];
                *score = query.iter().zip(key).fold(0.0, |sum, (query, key)| sum + query * key) * shape.scale();
            }
        }
        let highest = scores.iter().fold(top, |top, &score| top.max(score));
        let fade = (top - highest).exp();
        let weights = scores.map(|score| if score > LOW { (score - highest).exp() } else { 0.0 });
        top = highest;
        for (sum, pair) in sums.iter_mut().zip(weights.chunks_exact(2)) {
            *sum = *sum * fade + (pair[0] + pair[1]);
        }
        mixed.iter_mut().for_each(|mixed| *mixed *= fade);
        for (weight, other) in weights.iter().zip(first_key..keys) {
            let value = &value[other * shape.value_strides[2]..][..width];
            mixed.iter_mut().zip(value).for_each(|(mixed, value)| *mixed += weight * value);
        }
    }
    // A query that sees no key at all becomes zero.
    let share = 1.0 / sums.iter().sum::<f32>().max(1e-30);
    mixed.iter().map(|mixed| mixed * share).collect()
}
