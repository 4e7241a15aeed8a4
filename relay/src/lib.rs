//! The meeting place: libp2p relay, rendezvous and HTTP API.
//!
//! [`Relay::bind`] opens every socket, [`Relay::run`] serves until it is told to stop. The relay carries circuits it
//! cannot read, and it joins no room.

mod attention;
mod http;
mod identity;
pub mod limits;
mod listener;
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
