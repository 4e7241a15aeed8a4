//! A session: one participant in a page, told wishes and telling news.
//!
//! What decides is pure and tested natively; what fetches, posts and spawns is in `browser`.

pub mod board;
#[cfg(target_arch = "wasm32")]
mod browser;
pub mod eta;
pub mod lifecycle;
pub mod order;
pub mod status;

#[cfg(target_arch = "wasm32")]
pub use browser::{Session, new_room};
