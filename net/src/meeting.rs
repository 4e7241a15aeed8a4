//! Keeping in touch with one relay: connect, reserve a circuit, register, look for others, and again when it is lost.
//!
//! Pure: what happened comes in with the time, actions come out.

use libp2p::rendezvous::Cookie;
use libp2p::{Multiaddr, PeerId};
use protocol::Instant;

use crate::discovery::pause_after;
use crate::limits::{DISCOVER_EVERY, REGISTER_EVERY, RENDEZVOUS_ANSWER_MAX, RESERVE_PAUSE};
use crate::platform::worth_dialling;

/// Something the loop must do for a relay.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Connect to it.
    Dial(Vec<Multiaddr>),
    /// Listen on a circuit through it, at the address it was reached at.
    Reserve(Multiaddr),
    /// Register at its rendezvous.
    Register,
    /// Ask its rendezvous for members, those after the cookie.
    Discover(Option<Cookie>),
}

/// One relay.
#[derive(Debug)]
pub(crate) struct Meeting {
    pub relay: PeerId,
    addresses: Vec<Multiaddr>,
    dials: u32,
    dial_at: Instant,
    connected: Option<Connected>,
}

#[derive(Debug)]
struct Connected {
    address: Multiaddr,
    is_reserved: bool,
    reserve_at: Instant,
    register_at: Instant,
    discover_at: Instant,
    cookie: Option<Cookie>,
}

impl Meeting {
    pub fn new(relay: PeerId, addresses: Vec<Multiaddr>) -> Self {
        Self { relay, addresses, dials: 0, dial_at: Instant::ZERO, connected: None }
    }

    /// The relay was reached at `address`, by a new connection or a further one; whether it is the first.
    pub fn handle_connected(&mut self, address: Multiaddr, now: Instant) -> bool {
        self.dials = 0;
        let is_first = self.connected.is_none();
        self.connected.get_or_insert(Connected {
            address,
            is_reserved: false,
            reserve_at: now,
            register_at: now,
            discover_at: now,
            cookie: None,
        });
        is_first
    }

    /// The last connection closed; whether there was one.
    pub fn handle_lost(&mut self, now: Instant) -> bool {
        self.dial_at = now;
        self.connected.take().is_some()
    }

    /// The circuit is reserved, so there is a new address to register.
    pub fn handle_reserved(&mut self, now: Instant) {
        let Some(connected) = &mut self.connected else { return };
        connected.is_reserved = true;
        connected.register_at = now;
    }

    /// The circuit's listener closed.
    pub fn handle_reservation_lost(&mut self, now: Instant) {
        let Some(connected) = &mut self.connected else { return };
        connected.is_reserved = false;
        connected.reserve_at = now + RESERVE_PAUSE;
    }

    /// Registered.
    pub fn handle_registered(&mut self, now: Instant) {
        let Some(connected) = &mut self.connected else { return };
        connected.register_at = now + REGISTER_EVERY;
    }

    /// The rendezvous answered with members, `Some(cookie)`, or refused.
    pub fn handle_discovered(&mut self, cookie: Option<Cookie>, now: Instant) {
        let Some(connected) = &mut self.connected else { return };
        connected.cookie = cookie;
        connected.discover_at = now + DISCOVER_EVERY;
    }

    /// What is due.
    pub fn poll_actions(&mut self, now: Instant) -> Vec<Action> {
        let Some(connected) = &mut self.connected else {
            if now < self.dial_at {
                return Vec::new();
            }
            self.dials += 1;
            self.dial_at = now + pause_after(self.dials);
            return vec![Action::Dial(worth_dialling(&self.addresses))];
        };
        let mut actions = Vec::new();
        if !connected.is_reserved && now >= connected.reserve_at {
            connected.reserve_at = now + RENDEZVOUS_ANSWER_MAX;
            actions.push(Action::Reserve(connected.address.clone()));
        }
        if now >= connected.register_at {
            connected.register_at = now + RENDEZVOUS_ANSWER_MAX;
            actions.push(Action::Register);
        }
        if now >= connected.discover_at {
            connected.discover_at = now + RENDEZVOUS_ANSWER_MAX;
            actions.push(Action::Discover(connected.cookie.clone()));
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_lost_relay_is_dialled_at_once_and_then_less_often() {
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let mut meeting = Meeting::new(PeerId::random(), vec![address.clone()]);
        let at = |second| Instant::from_origin(Duration::from_secs(second));
        assert!(matches!(meeting.poll_actions(at(0))[..], [Action::Dial(_)]));
        assert!(meeting.handle_connected(address.clone(), at(0)));
        assert!(!meeting.handle_connected(address, at(0)));
        let actions = meeting.poll_actions(at(0));
        assert!(matches!(actions[..], [Action::Reserve(_), Action::Register, Action::Discover(None)]));
        assert!(meeting.poll_actions(at(1)).is_empty(), "answers are awaited");
        assert!(meeting.handle_lost(at(100)) && !meeting.handle_lost(at(100)));
        let dials = (100..160).filter(|second| !meeting.poll_actions(at(*second)).is_empty()).count();
        assert!((4..=8).contains(&dials), "{dials}");
    }
}
