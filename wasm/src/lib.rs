//! What a page shares with every node: the protocol's words and bytes, checked for wasm32.

pub use protocol;
