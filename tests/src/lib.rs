//! Everything together: what the tests of whole processes share.

pub mod page;
pub mod programs;
pub mod site;
pub mod tidy;
