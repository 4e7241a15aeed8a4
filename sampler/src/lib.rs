//! Latent arithmetic that gives the same bits everywhere: noise, schedules, guidance, canvas merging, and the painter that
//! joins them.
//!
//! Pure: no IO, no clock, no threads. Every number is plain f32, f64 or integer Rust without fused multiply-add; square
//! roots are IEEE-exact everywhere; `log`, `exp`, `pow` and `cos` come only from `libm`, never from the platform.

pub mod canvas;
pub mod guidance;
pub mod noise;
pub mod painter;
pub mod schedule;
pub mod wire;

pub use painter::{PaintError, Painter, PainterError, Run, Snapshot, SnapshotError, Stage, paint};
pub use schedule::{Schedule, ScheduleError, SchedulerConfig};
