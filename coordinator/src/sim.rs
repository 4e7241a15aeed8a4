//! A simulator: whole rooms of the machines that the node runs, in virtual time, with everything that can go wrong.
//!
//! A seed and a [`Scenario`] give a [`Setup`], a world as plain data; [`run`] plays it with the real [`Requester`], [`Worker`]
//! and [`plan`](crate::plan()) and a toy model, checks the invariants after every event, and hashes all that was said. No
//! clock, no IO, no unordered map: the same seed gives the same trace on every machine.
//!
//! [`Requester`]: crate::Requester
//! [`Worker`]: crate::Worker

mod audit;
mod clock;
mod desk;
mod links;
mod makespan;
mod rng;
mod scenario;
mod seat;
mod setup;
mod shrink;
mod temper;
mod toy;
mod trace;
mod words;
mod world;

pub use audit::Broken;
pub use makespan::{Makespan, makespan};
pub use scenario::{Scenario, ScenarioError};
pub use setup::Setup;
pub use shrink::shrink;
pub use world::{Outcome, Tally, run};
