//! Real relays on loopback: members meet there, talk through it unread, and go on without it.
#![allow(missing_docs, clippy::unwrap_used)]

mod meeting;
mod place;
mod privacy;
mod process;
mod rendezvous;
mod site;
#[allow(dead_code, reason = "shared with net's tests, which use more of it")]
#[path = "../../../net/tests/net/world.rs"]
mod world;
