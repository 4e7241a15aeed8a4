//! Everything together: what the tests of whole processes share.

pub mod engine;
pub mod page;
pub mod programs;
#[cfg(unix)]
pub mod rough;
pub mod site;
pub mod tidy;
