//! Carries protocol frames between peers over libp2p: finds a room's members, proves membership, and moves messages.
//!
//! [`start`] gives a [`Handle`] to speak with and [`Events`] to listen to. Everything that needs a runtime, sockets or a
//! page is in `native` or `browser`; the rest is driven by whoever polls it.

mod abilities;
mod assembly;
#[cfg(target_arch = "wasm32")]
mod backlog;
#[cfg(target_arch = "wasm32")]
mod browser;
mod data;
mod delay;
mod discovery;
mod event;
mod gate;
mod handle;
pub mod limits;
mod link;
mod meeting;
#[cfg(not(target_arch = "wasm32"))]
mod native;
mod opener;
mod presence;
mod probe;
#[cfg(not(target_arch = "wasm32"))]
pub mod raw;
mod room;
mod roster;
mod signalling;
#[cfg(not(target_arch = "wasm32"))]
mod timed_close;
#[cfg(not(target_arch = "wasm32"))]
pub mod transport;
mod upgrade;
mod webrtc;
#[cfg(target_arch = "wasm32")]
mod websocket;
#[cfg(not(target_arch = "wasm32"))]
mod webtransport;

#[cfg(target_arch = "wasm32")]
use browser as platform;
#[cfg(not(target_arch = "wasm32"))]
use native as platform;

pub use abilities::Abilities;
pub use data::PROTOCOL;
pub use delay::Delay;
pub use event::{DropReason, Event, Events, Path, Transport};
pub use handle::{Config, Handle, IceServer, NetError};
pub use libp2p::identity::Keypair;
pub use libp2p::multiaddr::Multiaddr;
pub use link::HandshakeError;
pub use platform::{abilities, start};
pub use probe::{Measured, Probe, ProbeError};
pub use roster::{SendError, Traffic};

/// The protocol's name of a libp2p peer.
pub fn peer_name(peer: &libp2p::PeerId) -> protocol::PeerId {
    protocol::PeerId::new(peer.to_base58()).expect("a base58 peer id is at most 64 letters and digits")
}
