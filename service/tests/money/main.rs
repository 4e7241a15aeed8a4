//! Overflow spends no more than it may, whatever an endpoint does.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod audit;
mod chaos;
mod misbehaviours;
mod operators;
mod restarts;
mod stage;
