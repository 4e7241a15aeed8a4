//! The queue's API over HTTP, as clients, workers and strangers see it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../support/support.rs"]
mod support;

mod api;
mod files;
mod following;
mod matrix;
mod members;
mod origins;
mod rates;
