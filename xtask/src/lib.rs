//! What people, CI and the README all call, and the processes that the tests of the whole drive too.

pub mod bench;
pub mod browser;
pub mod build;
pub mod demo;
pub mod packages;
pub mod processes;
pub mod screenshots;
pub mod target;
pub mod test;
pub mod web;
