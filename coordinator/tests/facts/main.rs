//! Facts about plans, leases and lending, each told by driving the state machines by hand.

#![cfg(test)]

mod desk;
mod hostile;
mod leases;
mod lending;
mod planning;
mod refusals;
mod together;
mod toy;
mod verifying;
mod world;
