//! Carries protocol frames between peers over libp2p: finds a room's members, proves membership, and moves messages.
//!
//! [`start`] gives a [`Handle`] to speak with and [`Events`] to listen to. Everything that needs a runtime or sockets is
//! in `native`; the rest is driven by whoever polls it.

mod data;
mod discovery;
mod event;
mod gate;
mod handle;
pub mod limits;
mod link;
mod meeting;
mod native;
mod presence;
pub mod raw;
mod room;
mod roster;
mod timed_close;
pub mod transport;

pub use data::PROTOCOL;
pub use event::{DropReason, Event, Events, Path, Transport};
pub use handle::{Config, Handle, NetError};
pub use libp2p::identity::Keypair;
pub use libp2p::multiaddr::Multiaddr;
pub use link::HandshakeError;
pub use native::start;
pub use roster::{SendError, Traffic};

/// The protocol's name of a libp2p peer.
pub fn peer_name(peer: &libp2p::PeerId) -> protocol::PeerId {
    protocol::PeerId::new(peer.to_base58()).expect("a base58 peer id is at most 64 letters and digits")
}
