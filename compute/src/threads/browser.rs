//! The one thread of a Worker.

use crate::weights::LoadError;

/// The present thread.
pub(crate) struct Threads;

impl Threads {
    /// There is one, whatever `_count` says.
    pub(crate) fn new(_count: usize) -> Result<Self, LoadError> {
        Ok(Self)
    }

    /// Runs `work`.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        work()
    }

    /// The results of `work` for each of `items`, computed one after the other.
    pub(crate) async fn each<I, T>(&self, items: &[I], work: impl AsyncFn(&I) -> T) -> Vec<T> {
        let mut results = Vec::new();
        for item in items {
            results.push(work(item).await);
        }
        results
    }
}

/// What `work` makes of each item, in their order.
pub(crate) fn map<I, T>(items: &[I], work: impl Fn(&I) -> T) -> Vec<T> {
    items.iter().map(work).collect()
}

/// Calls `work` with each whole chunk of `length` values and its index.
pub(crate) fn each_chunk(values: &mut [f32], length: usize, work: impl Fn(usize, &mut [f32])) {
    values.chunks_exact_mut(length).enumerate().for_each(|(index, chunk)| work(index, chunk));
}
