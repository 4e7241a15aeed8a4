//! The meeting place: libp2p relay, rendezvous and HTTP API; and the queue.
//!
//! [`Relay::bind`] opens every socket, [`Relay::run`] serves until it is told to stop. The relay carries circuits it
//! cannot read, and it joins no room.

mod attention;
pub mod command;
mod http;
mod identity;
pub mod limits;
mod listener;
mod numbers;
mod queue;
mod rendezvous;
mod server;
pub mod settings;
mod site;
mod stats;
mod swarm;
mod tap;

pub use server::{Relay, RelayError};
pub use settings::Settings;
pub use site::SiteError;
pub use stats::Stats;
pub use tap::Tap;
