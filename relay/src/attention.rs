//! Who asks the rendezvous too much: counts every peer's requests and says when it must be blocked.
//!
//! A registration has a signature that must be checked, and a short question may have a long answer: both cost the relay
//! more than the peer that asks, so requests are counted.

use std::collections::HashMap;
use std::time::Instant;

use libp2p::PeerId;

use crate::limits::{BLOCK_TIME, RENDEZVOUS_REQUESTS, WATCHED_PEERS_MAX};

/// The requests of every peer.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    buckets: HashMap<PeerId, Bucket>,
    blocked: HashMap<PeerId, Instant>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Attention {
    /// Counts a request of `peer`; false when it has made too many.
    pub fn handle_request(&mut self, peer: PeerId, now: Instant) -> bool {
        let (burst, every) = RENDEZVOUS_REQUESTS;
        if self.buckets.len() >= WATCHED_PEERS_MAX && !self.buckets.contains_key(&peer) {
            let oldest = self.buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(peer, _)| *peer);
            oldest.and_then(|oldest| self.buckets.remove(&oldest));
        }
        let bucket = self.buckets.entry(peer).or_insert(Bucket { left: f64::from(burst), at: now });
        let refill = now.saturating_duration_since(bucket.at).as_secs_f64() / every.as_secs_f64();
        bucket.left = (bucket.left + refill).min(f64::from(burst)) - 1.0;
        bucket.at = now;
        bucket.left >= 0.0
    }

    /// Remembers that `peer` was blocked.
    pub fn handle_blocked(&mut self, peer: PeerId, now: Instant) {
        self.buckets.remove(&peer);
        self.blocked.insert(peer, now + BLOCK_TIME);
    }

    /// Peers whose time is over, or which are too many to remember: the soonest free first.
    pub fn poll_unblocked(&mut self, now: Instant) -> Option<PeerId> {
        let (peer, until) =
            self.blocked.iter().min_by_key(|(_, until)| **until).map(|(peer, until)| (*peer, *until))?;
        if until > now && self.blocked.len() <= WATCHED_PEERS_MAX {
            return None;
        }
        self.blocked.remove(&peer);
        Some(peer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_member_is_never_blocked_and_a_flooder_soon() {
        let (mut attention, start) = (Attention::default(), Instant::now());
        let (member, flooder) = (PeerId::random(), PeerId::random());
        for second in 0..10_000 {
            assert!(attention.handle_request(member, start + Duration::from_secs(second)));
        }
        let allowed = (0..10_000).filter(|_| attention.handle_request(flooder, start)).count();
        assert_eq!(allowed, RENDEZVOUS_REQUESTS.0 as usize);
        attention.handle_blocked(flooder, start);
        assert_eq!(attention.poll_unblocked(start), None);
        assert_eq!(attention.poll_unblocked(start + BLOCK_TIME), Some(flooder));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut attention, start) = (Attention::default(), Instant::now());
        for _ in 0..2 * WATCHED_PEERS_MAX {
            attention.handle_request(PeerId::random(), start);
        }
        assert_eq!(attention.buckets.len(), WATCHED_PEERS_MAX);
    }
}
