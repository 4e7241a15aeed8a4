//! Numbers an operator may look at: how many, never who.

use std::collections::HashSet;

use libp2p::PeerId;
use serde::{Deserialize, Serialize};
use service::api::QueueStats;

/// What `GET /api/stats` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Open connections.
    pub connections: u32,
    /// Peers that can be reached through this relay.
    pub reservations: usize,
    /// Pairs of peers connected through this relay.
    pub circuits: usize,
    /// Registrations at the rendezvous: peers times rooms.
    pub registrations: usize,
    /// Bytes read from streams, after decryption.
    pub bytes_in: u64,
    /// Bytes written to streams, before encryption.
    pub bytes_out: u64,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// The queue, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueStats>,
}

/// Keeps count of what libp2p reports as coming and going.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    reserved: HashSet<PeerId>,
    pub circuits: usize,
}

impl Ledger {
    pub fn handle_reserved(&mut self, peer: PeerId) {
        self.reserved.insert(peer);
    }

    pub fn handle_unreserved(&mut self, peer: &PeerId) {
        self.reserved.remove(peer);
    }

    pub fn reservations(&self) -> usize {
        self.reserved.len()
    }
}
