//! The same participant inside a page: JavaScript API and user interface.

#[cfg(target_arch = "wasm32")]
pub mod api;
#[cfg(target_arch = "wasm32")]
mod fetch;
pub mod page;
pub mod queue;
pub mod session;
pub mod words;

pub use protocol;
