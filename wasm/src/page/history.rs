//! Recent pictures: how many are kept, and, in a browser, the database that keeps them.

#[cfg(target_arch = "wasm32")]
mod database;

use super::state::Picture;

#[cfg(target_arch = "wasm32")]
pub use database::{Database, StoreError};

/// Pictures kept: a strip that one still looks through.
pub const PICTURES_MAX: usize = 60;

/// Bytes kept: below what browsers give an origin even where storage is scarce.
pub const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The ids of the oldest pictures beyond [`PICTURES_MAX`] and [`BYTES_MAX`]; `pictures` are newest first. The newest one is
/// always kept.
pub fn surplus(pictures: &[Picture]) -> Vec<String> {
    let mut bytes = 0;
    let mut kept = 0;
    for picture in pictures.iter().take(PICTURES_MAX) {
        bytes += picture.bytes;
        if kept > 0 && bytes > BYTES_MAX {
            break;
        }
        kept += 1;
    }
    pictures[kept..].iter().map(|picture| picture.id.clone()).collect()
}
