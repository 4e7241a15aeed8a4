//! The loop: turns what the swarm reports and what the clock says into dials, registrations and events.
//!
//! Messages do not pass here: links carry them from and to the roster by themselves.

mod events;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::rendezvous::Namespace;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, NetworkBehaviour};
use libp2p::{Multiaddr, PeerId, Swarm, connection_limits, gossipsub, identify, ping, relay, rendezvous};
use protocol::{Instant, Presence, RoomKeys};
use tracing::{debug, trace};
use web_time::Instant as Clock;

use crate::data;
use crate::discovery::{Discovery, Reach, pause_after};
use crate::event::Path;
use crate::gate::Gate;
use crate::handle::Shared;
use crate::limits::{FAREWELL_TIME_MAX, REGISTRATION_TIME, SETTLE_TIME, TURN_EVERY, VIA_MAX};
use crate::meeting::{Action, Meeting};
use crate::platform::Nearby;
use crate::presence::Presences;
use crate::roster::pause;
use crate::upgrade::{Step, Upgrades};
use crate::{peer_name, probe, signalling};

/// Everything a node speaks. Those that turn connections away come first, so that no other keeps state for them.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub limits: connection_limits::Behaviour,
    pub data: data::Behaviour,
    pub gossip: Gate<gossipsub::Behaviour>,
    pub identify: identify::Behaviour,
    pub ping: ping::Behaviour,
    pub relay: relay::client::Behaviour,
    pub rendezvous: rendezvous::client::Behaviour,
    pub signalling: Toggle<signalling::Behaviour>,
    pub probe: probe::Behaviour,
    pub nearby: Nearby,
}

/// A member named by address only, dialled until someone answers.
struct Via {
    address: Multiaddr,
    dials: u32,
    dial_at: Instant,
}

/// The loop's state.
pub(crate) struct Room {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    keys: RoomKeys,
    namespace: Namespace,
    topic: gossipsub::IdentTopic,
    reach: Reach,
    origin: Clock,
    discovery: Discovery,
    upgrades: Upgrades,
    /// Dials of introduced peers that are under way.
    upgrading: HashMap<ConnectionId, PeerId>,
    /// Connected peers that have said what they speak: whether they can be introduced.
    able: HashMap<PeerId, bool>,
    meetings: Vec<Meeting>,
    via: Vec<Via>,
    /// Open connections of every peer.
    connections: HashMap<PeerId, BTreeMap<ConnectionId, Path>>,
    circuits: HashMap<ListenerId, PeerId>,
    presences: Presences,
    presence: Option<Presence>,
    /// When the presence should be told again, because someone came who has not heard it.
    is_presence_due: bool,
    presence_at: Instant,
}

impl Room {
    pub fn new(swarm: Swarm<Behaviour>, shared: Arc<Shared>, keys: RoomKeys, reach: Reach) -> Self {
        let namespace = Namespace::new(keys.rendezvous().to_owned()).expect("a derived name is far below 255 bytes");
        let topic = gossipsub::IdentTopic::new(keys.topic());
        let discovery = Discovery::new(*swarm.local_peer_id(), reach);
        let upgrades = Upgrades::new(*swarm.local_peer_id());
        Self {
            swarm,
            shared,
            keys,
            namespace,
            topic,
            reach,
            origin: Clock::now(),
            discovery,
            upgrades,
            upgrading: HashMap::new(),
            able: HashMap::new(),
            meetings: Vec::new(),
            via: Vec::new(),
            connections: HashMap::new(),
            circuits: HashMap::new(),
            presences: Presences::default(),
            presence: None,
            is_presence_due: false,
            presence_at: Instant::ZERO,
        }
    }

    /// A relay to meet at.
    pub fn add_relay(&mut self, relay: PeerId, addresses: Vec<Multiaddr>) {
        self.meetings.push(Meeting::new(relay, addresses));
    }

    /// A member to dial, from the room link.
    pub fn add_via(&mut self, address: Multiaddr) {
        match address.iter().last() {
            Some(Protocol::P2p(peer)) => {
                let now = self.now();
                self.discovery.handle_found(peer, &[address], true, now);
            }
            _ if self.reach.relayed_only || self.via.len() >= VIA_MAX => (),
            _ => self.via.push(Via { address, dials: 0, dial_at: Instant::ZERO }),
        }
    }

    /// Runs until the node orders the shutdown.
    pub async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut turn_at = Clock::now();
        loop {
            let wait = turn_at.saturating_duration_since(Clock::now());
            tokio::select! {
                event = self.swarm.select_next_some() => self.handle_swarm(event),
                () = shared.roster.wake.notified() => (),
                () = pause(wait) => (),
            }
            let orders = shared.take_orders();
            if orders.is_shutdown {
                break;
            }
            if let Some(presence) = orders.presence {
                self.presence = Some(presence);
                self.tell_presence();
            }
            for address in orders.via {
                self.add_via(address);
            }
            for order in orders.probes {
                self.swarm.behaviour_mut().probe.open(order);
            }
            for peer in shared.roster.take_dropped() {
                self.drop_peer(&peer);
            }
            if Clock::now() >= turn_at {
                turn_at = Clock::now() + TURN_EVERY;
                self.turn();
            }
        }
        self.farewell().await;
    }

    /// Lets the links finish, unregisters, closes every connection.
    async fn farewell(mut self) {
        for meeting in &self.meetings {
            if self.connections.contains_key(&meeting.relay) {
                self.swarm.behaviour_mut().rendezvous.unregister(self.namespace.clone(), meeting.relay);
            }
        }
        self.shared.roster.retire_all();
        let shared = Arc::clone(&self.shared);
        let _ = self.swarm_until(FAREWELL_TIME_MAX, |_| shared.roster.is_empty()).await;
        for peer in self.connections.keys().copied().collect::<Vec<_>>() {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let _ = self.swarm_until(FAREWELL_TIME_MAX, |room| room.connections.is_empty()).await;
    }

    async fn swarm_until(&mut self, time: Duration, is_done: impl Fn(&Self) -> bool) {
        let end = Clock::now() + time;
        while !is_done(self) && Clock::now() < end {
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                event = self.swarm.select_next_some() => self.handle_swarm(event),
                () = shared.roster.wake.notified() => (),
                () = pause(TURN_EVERY) => (),
            }
        }
    }

    /// What the clock asks for.
    fn turn(&mut self) {
        let now = self.now();
        self.swarm.behaviour_mut().data.handle_time(now);
        self.shared.roster.retire_lesser(now);
        for dial in self.discovery.poll_dials(now) {
            self.dial(dial.peer, dial.addresses);
        }
        for step in self.upgrades.poll_steps(now) {
            match step {
                Step::Dial(peer) => self.upgrade(peer),
                Step::Announce(peer) => self.shared.roster.announce(&peer_name(&peer)),
            }
        }
        for index in 0..self.meetings.len() {
            let relay = self.meetings[index].relay;
            for action in self.meetings[index].poll_actions(now) {
                self.act(relay, action);
            }
        }
        for index in 0..self.via.len() {
            let via = &mut self.via[index];
            if now >= via.dial_at {
                via.dials += 1;
                via.dial_at = now + pause_after(via.dials);
                let options = DialOpts::unknown_peer_id().address(via.address.clone()).allocate_new_port().build();
                let _ = self.swarm.dial(options);
            }
        }
        if self.is_presence_due && now >= self.presence_at {
            self.tell_presence();
        }
    }

    fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        debug!(%peer, ?addresses, "dialling");
        for relay in addresses.iter().filter_map(relay_of) {
            self.swarm.behaviour_mut().data.add_relay(relay);
        }
        let condition = match self.best_path(&peer) {
            Some(path) if path.may_improve() => PeerCondition::Always,
            Some(_) | None => PeerCondition::Disconnected,
        };
        let options = DialOpts::peer_id(peer).addresses(addresses).condition(condition).allocate_new_port().build();
        if let Err(error) = self.swarm.dial(options) {
            debug!(%peer, %error, "not dialled");
        }
    }

    /// Opens a connection that is introduced over the circuit.
    fn upgrade(&mut self, peer: PeerId) {
        debug!(%peer, "upgrading");
        // With its peer id: the bare address is one that we listen on ourselves, which libp2p does not dial.
        let address = Multiaddr::from(Protocol::WebRTC).with(Protocol::P2p(peer));
        let options = DialOpts::peer_id(peer).addresses(vec![address]).condition(PeerCondition::Always).build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => drop(self.upgrading.insert(connection, peer)),
            Err(error) => {
                debug!(%peer, %error, "not dialled");
                let now = self.now();
                self.upgrades.handle_failed(&peer, now);
            }
        }
    }

    fn act(&mut self, relay: PeerId, action: Action) {
        trace!(%relay, ?action, "meeting");
        match action {
            Action::Dial(addresses) => self.dial(relay, addresses),
            Action::Reserve(address) => {
                let mut address = address;
                if !matches!(address.iter().last(), Some(Protocol::P2p(_))) {
                    address = address.with(Protocol::P2p(relay));
                }
                match self.swarm.listen_on(address.with(Protocol::P2pCircuit)) {
                    Ok(listener) => drop(self.circuits.insert(listener, relay)),
                    Err(error) => debug!(%relay, %error, "no circuit"),
                }
            }
            Action::Register => {
                let (namespace, ttl) = (self.namespace.clone(), Some(REGISTRATION_TIME.as_secs()));
                if let Err(error) = self.swarm.behaviour_mut().rendezvous.register(namespace, relay, ttl) {
                    debug!(%relay, %error, "not registered yet");
                }
            }
            Action::Discover(cookie) => {
                let namespace = Some(self.namespace.clone());
                self.swarm.behaviour_mut().rendezvous.discover(namespace, cookie, None, relay);
            }
        }
    }

    fn drop_peer(&mut self, peer: &protocol::PeerId) {
        let Some(peer) = self.connections.keys().find(|known| peer_name(known) == *peer).copied() else { return };
        self.swarm.behaviour_mut().data.refuse(peer);
        let now = self.now();
        self.discovery.handle_refused(&peer, now);
    }

    /// Seals the newest presence afresh and publishes it.
    fn tell_presence(&mut self) {
        let Some(presence) = &self.presence else { return };
        let sealed = self.keys.seal(&peer_name(self.swarm.local_peer_id()), presence, rand::random());
        self.is_presence_due = false;
        self.presence_at = self.now() + SETTLE_TIME;
        if let Err(error) = self.swarm.behaviour_mut().gossip.inner.publish(self.topic.clone(), sealed) {
            // Without listeners yet: told again as soon as someone subscribes.
            trace!(%error, "presence not told");
        }
    }

    fn meeting(&mut self, relay: &PeerId) -> Option<&mut Meeting> {
        self.meetings.iter_mut().find(|meeting| meeting.relay == *relay)
    }

    fn best_path(&self, peer: &PeerId) -> Option<Path> {
        self.connections.get(peer).and_then(|connections| connections.values().max().copied())
    }

    fn now(&self) -> Instant {
        Instant::from_origin(self.origin.elapsed())
    }
}

/// The relay that a circuit's address goes through.
fn relay_of(address: &Multiaddr) -> Option<PeerId> {
    let parts: Vec<_> = address.iter().collect();
    parts.windows(2).find_map(|pair| match pair {
        [Protocol::P2p(relay), Protocol::P2pCircuit] => Some(*relay),
        _ => None,
    })
}
