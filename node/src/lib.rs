//! A participant in a room: joins net, coordinator, sampler and an engine.

pub mod files;
pub mod job;
pub mod lane;
pub mod meeting;
pub mod models;
pub mod participant;
pub mod picture;
pub mod report;

pub use job::{Order, Painted};
pub use participant::{Command, EngineMaker, Notice, Participant, Setup};
