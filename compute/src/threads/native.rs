//! Native threads: a pool of its own for each engine.

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::pace::finish;
use crate::weights::LoadError;

/// A pool of threads.
pub(crate) struct Threads(ThreadPool);

impl Threads {
    /// `count` threads; 0: one for each processor.
    pub(crate) fn new(count: usize) -> Result<Self, LoadError> {
        let pool = ThreadPoolBuilder::new().num_threads(count).thread_name(|index| format!("compute-{index}")).build();
        pool.map(Self).map_err(|error| LoadError::Threads(error.to_string()))
    }

    /// Runs `work` on the pool, with all that [`map`] and [`each_chunk`] do in it.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.install(work)
    }

    /// The results of `work` for each of `items`, computed beside each other. Nothing in it may wait.
    pub(crate) async fn each<I: Sync, T: Send>(&self, items: &[I], work: impl AsyncFn(&I) -> T + Sync) -> Vec<T> {
        self.run(|| map(items, |item| finish(work(item))))
    }
}

/// What `work` makes of each item, in their order.
pub(crate) fn map<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync + Send) -> Vec<T> {
    items.par_iter().map(work).collect()
}

/// Calls `work` with each whole chunk of `length` values and its index.
pub(crate) fn each_chunk(values: &mut [f32], length: usize, work: impl Fn(usize, &mut [f32]) + Sync + Send) {
    values.par_chunks_exact_mut(length).enumerate().for_each(|(index, chunk)| work(index, chunk));
}
