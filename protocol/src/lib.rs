//! The words every process agrees on, and their bytes: ids, jobs, units, messages, frames and room keys.
//!
//! Pure: no IO, no clock, no randomness of its own; nonces and time are arguments.

pub mod frame;
pub mod ids;
pub mod job;
pub mod limits;
pub mod membership;
pub mod message;
pub mod policy;
pub mod queue_key;
pub mod room;
pub mod tensor;
pub mod time;
pub mod unit;

pub use ids::{Hash, JobId, LeaseId, ModelId, PeerId};
pub use job::{
    JobRequest, JobSpec, Layout, ModelShape, Part, PlanChoice, PlanKind, Size, SpecError, Tiles, Tiling, Wire,
};
pub use message::{Activity, Capabilities, Message, Pilot, Presence, RefuseReason, ToRequester, ToWorker};
pub use policy::Policy;
pub use queue_key::{QueueKey, QueueProof};
pub use room::{RoomId, RoomKeys, RoomLink, RoomSecret};
pub use time::Instant;
pub use unit::{Branches, Footprint, Steps, Unit, UnitId, Work};
