//! From a circuit to a direct connection by introduction: who tries, when, and how long the room waits for it.
//!
//! Pure: what happened comes in with the time, steps come out.

use std::collections::BTreeMap;

use libp2p::PeerId;
use protocol::Instant;

use crate::limits::{UPGRADE_PAUSE, UPGRADE_WAIT_MAX, UPGRADE_YIELD, UPGRADES_MAX};

/// Something the loop must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Open a direct connection to this peer, introduced over the circuit.
    Dial(PeerId),
    /// Do not keep the node waiting for this member.
    Announce(PeerId),
}

/// The members, and which of them are connected through a relay only.
#[derive(Debug)]
pub(crate) struct Upgrades {
    local: PeerId,
    peers: BTreeMap<PeerId, Upgrade>,
}

#[derive(Debug)]
struct Upgrade {
    /// Whether it can be introduced, once it has said so.
    is_able: Option<bool>,
    is_direct: bool,
    dials: u32,
    dial_at: Instant,
    /// `None` once announced.
    announce_at: Option<Instant>,
}

impl Upgrades {
    pub fn new(local: PeerId) -> Self {
        Self { local, peers: BTreeMap::new() }
    }

    /// `peer` has proved membership, on a first or a further connection.
    pub fn handle_member(&mut self, peer: PeerId, is_able: Option<bool>, now: Instant) {
        let dial_at = if peer < self.local { now + UPGRADE_YIELD } else { now };
        let announce_at = Some(now + UPGRADE_WAIT_MAX);
        self.peers.entry(peer).or_insert(Upgrade { is_able, is_direct: false, dials: 0, dial_at, announce_at });
    }

    /// The best connection to `peer` changed.
    pub fn handle_direct(&mut self, peer: &PeerId, is_direct: bool, now: Instant) {
        let Some(upgrade) = self.peers.get_mut(peer) else { return };
        if upgrade.is_direct && !is_direct {
            upgrade.dials = upgrade.dials.min(1);
            upgrade.dial_at = now + UPGRADE_PAUSE;
        }
        upgrade.is_direct = is_direct;
    }

    /// `peer` says whether it can be introduced.
    pub fn handle_able(&mut self, peer: &PeerId, is_able: bool) {
        if let Some(upgrade) = self.peers.get_mut(peer) {
            upgrade.is_able = Some(is_able);
        }
    }

    /// The dial of `peer` failed.
    pub fn handle_failed(&mut self, peer: &PeerId, now: Instant) {
        if let Some(upgrade) = self.peers.get_mut(peer) {
            upgrade.dial_at = now + UPGRADE_PAUSE.saturating_mul(1 << upgrade.dials.saturating_sub(1).min(8));
            upgrade.announce_at = upgrade.announce_at.map(|_| now);
        }
    }

    /// The last connection to `peer` closed.
    pub fn handle_gone(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    /// What is due.
    pub fn poll_steps(&mut self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        for (peer, upgrade) in &mut self.peers {
            let may_dial = upgrade.is_able == Some(true) && !upgrade.is_direct && upgrade.dials < UPGRADES_MAX;
            if may_dial && now >= upgrade.dial_at {
                upgrade.dials += 1;
                // Moved by the dial's outcome.
                upgrade.dial_at = now + UPGRADE_PAUSE.saturating_mul(1 << upgrade.dials.min(8));
                steps.push(Step::Dial(*peer));
            }
            let is_hopeless = upgrade.is_able == Some(false);
            if upgrade.announce_at.take_if(|at| is_hopeless || now >= *at).is_some() {
                steps.push(Step::Announce(*peer));
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(second))
    }

    fn pair() -> (PeerId, PeerId) {
        let (a, b) = (PeerId::random(), PeerId::random());
        (a.min(b), a.max(b))
    }

    #[test]
    fn the_smaller_id_dials_at_once_and_the_larger_one_if_nothing_comes() {
        let (small, large) = pair();
        let mut first = Upgrades::new(small);
        first.handle_member(large, Some(true), at(0));
        assert_eq!(first.poll_steps(at(0)), [Step::Dial(large)]);
        let mut second = Upgrades::new(large);
        second.handle_member(small, Some(true), at(0));
        assert_eq!(second.poll_steps(at(1)), []);
        assert_eq!(second.poll_steps(at(4)), [Step::Dial(small)]);
        second.handle_direct(&small, true, at(5));
        assert_eq!(second.poll_steps(at(5)), [Step::Announce(small)], "which does nothing if it was announced");
        assert_eq!(second.poll_steps(at(100)), []);
        second.handle_direct(&small, false, at(100));
        assert_eq!(second.poll_steps(at(104)), [Step::Dial(small)]);
    }

    #[test]
    fn the_room_waits_until_a_peer_is_known_to_be_unable_a_try_has_failed_or_time_is_up() {
        let (small, large) = pair();
        let mut upgrades = Upgrades::new(small);
        upgrades.handle_member(large, None, at(0));
        assert_eq!(upgrades.poll_steps(at(0)), []);
        upgrades.handle_able(&large, false);
        assert_eq!(upgrades.poll_steps(at(1)), [Step::Announce(large)]);
        assert_eq!(upgrades.poll_steps(at(9)), [], "once");
        upgrades.handle_gone(&large);
        upgrades.handle_member(large, None, at(10));
        assert_eq!(upgrades.poll_steps(at(15)), [Step::Announce(large)]);
        upgrades.handle_gone(&large);
        upgrades.handle_member(large, Some(true), at(20));
        assert_eq!(upgrades.poll_steps(at(20)), [Step::Dial(large)]);
        upgrades.handle_failed(&large, at(21));
        assert_eq!(upgrades.poll_steps(at(21)), [Step::Announce(large)]);
    }

    #[test]
    fn a_path_that_never_opens_is_tried_a_few_times_only() {
        let (small, large) = pair();
        let mut upgrades = Upgrades::new(small);
        upgrades.handle_member(large, Some(true), at(0));
        let mut dials = Vec::new();
        for second in 0..1000 {
            if upgrades.poll_steps(at(second)).contains(&Step::Dial(large)) {
                dials.push(second);
                upgrades.handle_failed(&large, at(second));
            }
        }
        assert_eq!(dials, [0, 4, 12, 28, 60]);
    }
}
