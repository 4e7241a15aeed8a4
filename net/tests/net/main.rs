//! Real nodes on loopback: they find each other, prove membership, exchange messages, and survive evil ones.
#![allow(missing_docs, clippy::unwrap_used)]

mod evil;
mod joining;
mod messages;
mod presence;
mod world;
