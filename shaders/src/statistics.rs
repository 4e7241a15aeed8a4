//! The twin of `statistics.wgsl`: mean and spread of the chunks of equal groups of values.

use crate::kernel::{Fold, Kernel};

/// The WGSL text.
pub const STATISTICS: &str = include_str!("statistics.wgsl");

/// Values that one workgroup looks at.
pub(crate) const CHUNK: usize = 16384;

/// Invocations of a workgroup, each with a sum of its own.
const LANES: usize = 256;

/// The first pass of a normalisation over `x [groups, size]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Statistics {
    /// Groups, over all pictures.
    pub groups: usize,
    /// Values of one group; at least 1.
    pub size: usize,
}

impl Statistics {
    /// Chunks of one group: the result is `[groups, chunks, 2]`.
    pub fn chunks(&self) -> usize {
        self.size.div_ceil(CHUNK)
    }

    /// Values of one chunk; the last one may be shorter.
    pub(crate) fn count(&self, chunk: usize) -> usize {
        CHUNK.min(self.size - chunk * CHUNK)
    }

    /// Workgroups for each chunk of each group, shared with the second pass.
    pub(crate) fn grid_of_chunks(&self) -> [usize; 3] {
        let Fold { width, rows } = self.fold();
        [self.chunks(), width, rows]
    }

    pub(crate) fn fold(&self) -> Fold {
        Fold::new(self.groups)
    }
}

impl Kernel for Statistics {
    const INVOCATIONS: [u32; 3] = [LANES as u32, 1, 1];

    fn variant(&self) -> [usize; 3] {
        [0; 3]
    }

    fn source(&self) -> String {
        STATISTICS.to_owned()
    }

    fn sizes(&self) -> Vec<usize> {
        vec![self.groups, self.size, self.chunks(), self.fold().width]
    }

    fn grid(&self) -> [usize; 3] {
        self.grid_of_chunks()
    }
}

/// `[groups, chunks, (mean, sum of squared deviations)]`.
pub fn statistics(shape: &Statistics, x: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(2 * shape.groups * shape.chunks());
    for (group, chunk) in (0..shape.groups * shape.chunks()).map(|at| (at / shape.chunks(), at % shape.chunks())) {
        let (first, count) = (group * shape.size + chunk * CHUNK, shape.count(chunk));
        let values = &x[first..first + count];
        let mean = total(values, |value| value) / count as f32;
        let spread = total(values, |value| (value - mean) * (value - mean));
        out.extend([mean, spread]);
    }
    out
}

fn total(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut partials = [0.0f32; LANES];
    for (i, &value) in values.iter().enumerate() {
        partials[i % LANES] += term(value);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            partials[lane] += partials[lane + half];
        }
        half /= 2;
    }
    partials[0]
}
