//! WGSL sources, each with a CPU twin of the same name.
//!
//! A kernel is a plain struct of sizes. It knows its WGSL text ([`Kernel::source`]) and how many workgroups to start
//! ([`Kernel::grid`]). The function of the same name computes the same values on the CPU, step by step in the same
//! order, and is what the WGSL is tested against. Nothing here talks to a device: `compute` launches the kernels.
//!
//! All values are f32 and all sums are kept in f32. Every kernel checks its bounds, so any sizes are allowed, and needs
//! no more than WebGPU's default limits: 256 invocations and 16 KiB of workgroup memory, 65535 workgroups on each axis.

mod attention;
mod conv;
mod group_norm;
mod kernel;
mod linear;
mod pace;
mod statistics;

pub use attention::{ATTENTION, Attention, WIDTH_MAX, attention};
pub use conv::{CONV, Conv, conv};
pub use group_norm::{GROUP_NORM, GroupNorm, group_norm};
pub use kernel::{Kernel, WORKGROUPS_MAX};
pub use linear::{LINEAR, Linear, linear};
pub use pace::{Pace, SUBMISSION_MS_MAX};
pub use statistics::{STATISTICS, Statistics, statistics};
