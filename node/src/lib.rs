//! A participant in a room: joins net, coordinator, sampler and an engine.
//!
//! The participant itself runs natively and in a page; files, models and the command line are native only.

#[cfg(not(target_arch = "wasm32"))]
pub mod backoff;
pub mod card;
#[cfg(not(target_arch = "wasm32"))]
pub mod checkpoint;
mod domain;
#[cfg(not(target_arch = "wasm32"))]
pub mod files;
pub mod job;
pub mod lane;
pub mod meeting;
#[cfg(not(target_arch = "wasm32"))]
pub mod memory;
#[cfg(not(target_arch = "wasm32"))]
pub mod models;
pub mod participant;
pub mod picture;
pub mod preview;
pub mod report;
#[cfg(not(target_arch = "wasm32"))]
pub mod serving;
#[cfg(not(target_arch = "wasm32"))]
pub mod supervision;

pub use card::ModelCard;
pub use job::{Order, Painted};
#[cfg(not(target_arch = "wasm32"))]
pub use lane::EngineMaker;
pub use participant::{Command, Notice, Participant, Setup};
