//! Takes whole pictures from a queue, over the contract that RunPod's workers speak, and paints them.
//!
//! ```text
//! Server    asks for jobs, says that it lives, hears which jobs to stop        GET job-take, ping, job-stop
//!   Errand  one job: claims it, has it painted, delivers the pictures          POST claim, PUT pictures
//!     Reporter  tells of the job, everything in order                          POST job-done
//!     Studio    paints, alone or with a room
//! ```

mod contract;
mod courier;
mod ending;
mod errand;
mod input;
pub mod limits;
mod output;
mod reporter;
mod server;
mod studio;

pub use self::contract::{Contract, Queue};
pub use self::errand::Ended;
pub use self::input::{Refusal, Request, read_input};
pub use self::reporter::Progress;
pub use self::server::{News, Server};
pub use self::studio::{Helpers, Studio};
