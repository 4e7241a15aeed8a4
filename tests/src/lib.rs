//! Everything together: what the tests of whole processes share.

pub mod programs;
pub mod tidy;
