//! Whom to dial, where and when: every peer of the room that is known and not yet connected, directly first.
//!
//! Pure: addresses and connections come in with the time, dials come out.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use protocol::Instant;

use crate::event::Path;
use crate::limits::{
    CIRCUIT_DELAY, DIAL_PAUSE_MAX, DIAL_PAUSE_MIN, DIAL_YIELD, DIALS_PER_TURN_MAX, KNOWN_PEERS_MAX, KNOWN_TIME_MAX,
    PEER_ADDRESSES_MAX, REFUSED_TIME, UPGRADE_EVERY,
};
use crate::platform::worth_dialling;

/// A dial to be made at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dial {
    pub peer: PeerId,
    pub addresses: Vec<Multiaddr>,
}

/// Whom this node can reach, and who can reach it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// Members are dialled only through a relay.
    pub relayed_only: bool,
    /// Members may dial this node directly.
    pub is_listening: bool,
    /// Whether this platform has a transport for a direct address.
    pub can_dial: fn(&Multiaddr) -> bool,
}

/// The peers that are known and how well they are connected.
#[derive(Debug)]
pub(crate) struct Discovery {
    local: PeerId,
    reach: Reach,
    known: BTreeMap<PeerId, Known>,
}

#[derive(Debug)]
struct Known {
    direct: Vec<Multiaddr>,
    circuits: Vec<Multiaddr>,
    /// Named by the room link: never forgotten.
    is_pinned: bool,
    seen: Instant,
    connected: Option<Path>,
    dials: u32,
    direct_at: Instant,
    circuit_at: Instant,
}

/// The pause after the `dials`-th dial without success.
pub(crate) fn pause_after(dials: u32) -> Duration {
    DIAL_PAUSE_MIN.saturating_mul(1 << dials.saturating_sub(1).min(8)).min(DIAL_PAUSE_MAX)
}

impl Discovery {
    pub fn new(local: PeerId, reach: Reach) -> Self {
        Self { local, reach, known: BTreeMap::new() }
    }

    /// Addresses of a peer, from rendezvous, mDNS or (`is_pinned`) the room link.
    pub fn handle_found(&mut self, peer: PeerId, addresses: &[Multiaddr], is_pinned: bool, now: Instant) {
        if peer == self.local || (self.known.len() >= KNOWN_PEERS_MAX && !self.known.contains_key(&peer)) {
            return;
        }
        let yields = !is_pinned && peer < self.local;
        let known = self.known.entry(peer).or_insert_with(|| Known {
            direct: Vec::new(),
            circuits: Vec::new(),
            is_pinned,
            seen: now,
            connected: None,
            dials: 0,
            direct_at: now,
            circuit_at: now,
        });
        known.seen = now;
        known.is_pinned |= is_pinned;
        let is_new = known.add(addresses, &self.reach);
        if is_new && !known.connected.is_some_and(Path::may_improve) {
            known.dials = 0;
            known.schedule(now, yields, &self.reach);
        } else if is_new {
            known.direct_at = now;
        }
    }

    /// The best connection to `peer` changed; `None` when the last one closed.
    pub fn handle_connected(&mut self, peer: &PeerId, best: Option<Path>, now: Instant) {
        let yields = *peer < self.local;
        let Some(known) = self.known.get_mut(peer) else { return };
        let was_connected = known.connected.is_some();
        known.connected = best;
        match best {
            // It was faster through the relay than we were directly: that is still to be tried.
            Some(Path::Relayed) if !was_connected && known.dials == 0 => known.direct_at = now,
            Some(_) => known.direct_at = now + UPGRADE_EVERY,
            None if was_connected => {
                let pause = if known.dials == 0 { Duration::ZERO } else { pause_after(known.dials) };
                known.schedule(now + pause, yields, &self.reach);
            }
            None => (),
        }
    }

    /// `peer` has proved membership: should it get lost, it is dialled again without delay.
    pub fn handle_joined(&mut self, peer: &PeerId) {
        if let Some(known) = self.known.get_mut(peer) {
            known.dials = 0;
        }
    }

    /// `peer` is refused for a while, so do not dial it either.
    pub fn handle_refused(&mut self, peer: &PeerId, now: Instant) {
        if let Some(known) = self.known.get_mut(peer) {
            known.schedule(now + REFUSED_TIME, false, &self.reach);
        }
    }

    /// The dials that are due, at most [`DIALS_PER_TURN_MAX`].
    pub fn poll_dials(&mut self, now: Instant) -> Vec<Dial> {
        self.known
            .retain(|_, known| known.is_pinned || known.connected.is_some() || now.since(known.seen) < KNOWN_TIME_MAX);
        let mut dials = Vec::new();
        for (peer, known) in &mut self.known {
            if dials.len() >= DIALS_PER_TURN_MAX {
                break;
            }
            if let Some(addresses) = known.take_due(now) {
                dials.push(Dial { peer: *peer, addresses });
            }
        }
        dials
    }
}

impl Known {
    /// Whether any of `addresses` was unknown.
    fn add(&mut self, addresses: &[Multiaddr], reach: &Reach) -> bool {
        let mut is_new = false;
        for address in addresses {
            let list = match Path::of(address) {
                Path::Relayed => &mut self.circuits,
                Path::Direct(_) if reach.relayed_only || !(reach.can_dial)(address) => continue,
                Path::Direct(_) => &mut self.direct,
            };
            if list.contains(address) {
                continue;
            }
            // The oldest address is the likeliest to be out of date.
            if list.len() >= PEER_ADDRESSES_MAX {
                list.remove(0);
            }
            list.push(address.clone());
            is_new = true;
        }
        is_new
    }

    /// Dials from `at` on, a little later if the other side is to dial first.
    fn schedule(&mut self, at: Instant, yields: bool, reach: &Reach) {
        let later = if yields { at + DIAL_YIELD } else { at };
        // Nobody dials directly who listens nowhere, so there is nobody to leave that to.
        self.direct_at = if reach.is_listening { later } else { at };
        let has_direct_way = !self.direct.is_empty() || reach.is_listening;
        self.circuit_at = if has_direct_way { later + CIRCUIT_DELAY } else { later };
    }

    /// Addresses to dial now, if any.
    fn take_due(&mut self, now: Instant) -> Option<Vec<Multiaddr>> {
        match self.connected {
            Some(path) if path.may_improve() => {
                if self.direct.is_empty() || now < self.direct_at {
                    return None;
                }
                self.direct_at = now + UPGRADE_EVERY;
                Some(worth_dialling(&self.direct))
            }
            Some(_) => None,
            None if !self.direct.is_empty() && now >= self.direct_at => {
                self.dials += 1;
                self.direct_at = now + pause_after(self.dials);
                Some(worth_dialling(&self.direct))
            }
            None if !self.circuits.is_empty() && now >= self.circuit_at => {
                if self.direct.is_empty() {
                    self.dials += 1;
                }
                self.circuit_at = now + pause_after(self.dials).max(CIRCUIT_DELAY);
                Some(self.circuits.clone())
            }
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Transport;

    fn peers() -> (PeerId, PeerId) {
        let (a, b) = (PeerId::random(), PeerId::random());
        (a.min(b), a.max(b))
    }

    fn reach() -> Reach {
        Reach { relayed_only: false, is_listening: true, can_dial: |_| true }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(ms))
    }

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn direct() -> Multiaddr {
        address("/ip4/127.0.0.1/udp/1/quic-v1")
    }

    fn circuit() -> Multiaddr {
        address("/ip4/127.0.0.1/udp/2/quic-v1/p2p-circuit")
    }

    #[test]
    fn the_smaller_id_dials_first_and_the_larger_one_if_that_fails() {
        let (small, large) = peers();
        let mut first = Discovery::new(small, reach());
        first.handle_found(large, &[direct()], false, at(0));
        assert_eq!(first.poll_dials(at(0)), [Dial { peer: large, addresses: vec![direct()] }]);
        let mut second = Discovery::new(large, reach());
        second.handle_found(small, &[direct()], false, at(0));
        assert_eq!(second.poll_dials(at(0)), []);
        assert_eq!(second.poll_dials(at(1500)), [Dial { peer: small, addresses: vec![direct()] }]);
    }

    #[test]
    fn the_relay_is_the_fallback_and_an_upgrade_is_tried_later() {
        let (small, large) = peers();
        let mut discovery = Discovery::new(small, reach());
        discovery.handle_found(large, &[circuit(), direct()], false, at(0));
        assert_eq!(discovery.poll_dials(at(0))[0].addresses, [direct()]);
        assert_eq!(discovery.poll_dials(at(900)), []);
        assert_eq!(discovery.poll_dials(at(1000))[0].addresses, [direct()]);
        assert_eq!(discovery.poll_dials(at(1500))[0].addresses, [circuit()]);
        discovery.handle_connected(&large, Some(Path::Relayed), at(1600));
        assert_eq!(discovery.poll_dials(at(5000)), []);
        assert_eq!(discovery.poll_dials(at(30_000))[0].addresses, [direct()]);
        discovery.handle_connected(&large, Some(Path::Direct(Transport::WebRtc)), at(31_000));
        assert_eq!(discovery.poll_dials(at(60_000))[0].addresses, [direct()], "an introduction is no reason to stop");
        discovery.handle_connected(&large, Some(Path::Direct(Transport::Quic)), at(60_100));
        assert_eq!(discovery.poll_dials(at(90_000)), []);
    }

    #[test]
    fn who_cannot_be_dialled_dials_directly_at_once_even_after_the_other_came_through_the_relay() {
        let (small, large) = peers();
        let page = Reach { is_listening: false, can_dial: |address| address.to_string().contains("/ws"), ..reach() };
        let mut discovery = Discovery::new(large, page);
        let reachable = address("/ip4/127.0.0.1/tcp/1/ws");
        discovery.handle_found(small, &[direct(), reachable.clone(), circuit()], false, at(0));
        assert_eq!(discovery.poll_dials(at(0))[0].addresses, std::slice::from_ref(&reachable));
        let mut discovery = Discovery::new(large, page);
        discovery.handle_found(small, &[circuit()], false, at(0));
        discovery.handle_connected(&small, Some(Path::Relayed), at(100));
        discovery.handle_found(small, std::slice::from_ref(&reachable), false, at(200));
        assert_eq!(discovery.poll_dials(at(200))[0].addresses, [reachable]);
    }

    #[test]
    fn who_listens_waits_for_those_who_do_not_before_it_takes_the_circuit() {
        let (small, large) = peers();
        let mut discovery = Discovery::new(small, reach());
        discovery.handle_found(large, &[circuit()], false, at(0));
        assert_eq!(discovery.poll_dials(at(1400)), []);
        assert_eq!(discovery.poll_dials(at(1500))[0].addresses, [circuit()]);
        let mut discovery = Discovery::new(small, Reach { is_listening: false, ..reach() });
        discovery.handle_found(large, &[circuit()], false, at(0));
        assert_eq!(discovery.poll_dials(at(0))[0].addresses, [circuit()]);
    }

    #[test]
    fn relayed_only_never_dials_directly() {
        let (small, large) = peers();
        let mut discovery = Discovery::new(small, Reach { relayed_only: true, is_listening: false, ..reach() });
        discovery.handle_found(large, &[direct(), circuit()], false, at(0));
        for second in 0..40 {
            for dial in discovery.poll_dials(at(second * 1000)) {
                assert_eq!(dial.addresses, [circuit()]);
            }
        }
    }

    #[test]
    fn a_peer_that_never_proves_membership_is_dialled_less_and_less() {
        let (small, large) = peers();
        let mut discovery = Discovery::new(small, reach());
        discovery.handle_found(large, &[direct()], true, at(0));
        let mut dials = 0;
        for ms in (0..120_000).step_by(100) {
            if !discovery.poll_dials(at(ms)).is_empty() {
                dials += 1;
                discovery.handle_connected(&large, Some(Path::Direct(Transport::Quic)), at(ms));
                discovery.handle_connected(&large, None, at(ms));
            }
        }
        assert!((8..=13).contains(&dials), "{dials}");
    }

    #[test]
    fn what_rendezvous_names_is_bounded_and_forgotten() {
        let mut discovery = Discovery::new(PeerId::random(), reach());
        for _ in 0..2 * KNOWN_PEERS_MAX {
            let addresses: Vec<_> =
                (1..100).map(|port| address(&format!("/ip4/127.0.0.1/udp/{port}/quic-v1"))).collect();
            discovery.handle_found(PeerId::random(), &addresses, false, at(0));
        }
        assert_eq!(discovery.known.len(), KNOWN_PEERS_MAX);
        assert!(discovery.known.values().all(|known| known.direct.len() == PEER_ADDRESSES_MAX));
        assert!(discovery.poll_dials(at(2000)).len() <= DIALS_PER_TURN_MAX);
        assert_eq!(discovery.poll_dials(at(0) + KNOWN_TIME_MAX), []);
        assert!(discovery.known.is_empty());
    }
}
