//! Our client against the emulated endpoint: what it may believe, and what it does when the endpoint misbehaves.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod behaviours;
mod chaos;
mod operations;
mod platform;
mod stage;
mod wire;
