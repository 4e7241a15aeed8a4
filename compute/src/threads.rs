//! The threads a processor's kernels run on. What is computed never depends on their number.

#[cfg(target_family = "wasm")]
mod browser;
#[cfg(not(target_family = "wasm"))]
mod native;

#[cfg(target_family = "wasm")]
pub(crate) use browser::{Threads, each_chunk, map};
#[cfg(not(target_family = "wasm"))]
pub(crate) use native::{Threads, each_chunk, map};
