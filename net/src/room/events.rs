//! What the swarm reports, one kind of event after the other, and what the loop makes of it.

use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{Multiaddr, PeerId, gossipsub, identify, ping, relay, rendezvous};
use tracing::{debug, info, trace};

use super::{BehaviourEvent, Room};
use crate::data::{self, Report};
use crate::event::{Event, Path, Transport};
use crate::presence::Verdict;
use crate::{peer_name, platform, signalling};

impl Room {
    /// Something happened in the swarm.
    pub(super) fn handle_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.handle_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.handle_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                debug!(peer = %peer_id, ?cause, "connection closed");
                self.handle_closed(peer_id, connection_id);
            }
            SwarmEvent::NewListenAddr { address, .. } => self.handle_listening(address),
            SwarmEvent::ExpiredListenAddr { address, .. } => self.swarm.remove_external_address(&address),
            SwarmEvent::ListenerClosed { listener_id, .. } => {
                let relay = self.circuits.remove(&listener_id);
                let now = self.now();
                if let Some(meeting) = relay.and_then(|relay| self.meeting(&relay)) {
                    meeting.handle_reservation_lost(now);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error, .. } => {
                debug!(?peer_id, %error, "dial failed");
                let now = self.now();
                if let Some(peer) = self.upgrading.remove(&connection_id) {
                    self.upgrades.handle_failed(&peer, now);
                }
            }
            event => trace!(?event, "swarm"),
        }
    }

    fn handle_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Data(data::Event { peer, report }) => self.handle_report(peer, report),
            BehaviourEvent::Gossip(event) => self.handle_gossip(event),
            BehaviourEvent::Ping(ping::Event { peer, connection, result: Err(ping::Failure::Timeout) }) => {
                debug!(%peer, "no answer to pings");
                self.swarm.close_connection(connection);
            }
            BehaviourEvent::Ping(ping::Event { peer, connection, result: Ok(round_trip) }) => {
                // What is sent takes the best path; how long a worse one takes says nothing of it.
                let path = self.connections.get(&peer).and_then(|connections| connections.get(&connection));
                if path.is_some() && path.copied() == self.best_path(&peer) {
                    self.shared.roster.note_round_trip(&peer_name(&peer), round_trip);
                }
            }
            BehaviourEvent::Relay(relay::client::Event::ReservationReqAccepted { relay_peer_id, .. }) => {
                let now = self.now();
                if let Some(meeting) = self.meeting(&relay_peer_id) {
                    meeting.handle_reserved(now);
                }
            }
            BehaviourEvent::Rendezvous(event) => self.handle_rendezvous(event),
            BehaviourEvent::Nearby(event) => {
                let now = self.now();
                for (peer, address) in platform::found(event) {
                    self.discovery.handle_found(peer, &[address], false, now);
                }
            }
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                let is_able = info.protocols.contains(&signalling::PROTOCOL);
                if self.connections.contains_key(&peer_id) {
                    self.able.insert(peer_id, is_able);
                    self.upgrades.handle_able(&peer_id, is_able);
                }
            }
            BehaviourEvent::Ping(_) | BehaviourEvent::Relay(_) | BehaviourEvent::Identify(_) => (),
            BehaviourEvent::Limits(never) | BehaviourEvent::Signalling(never) | BehaviourEvent::Probe(never) => {
                match never {}
            }
        }
    }

    fn handle_report(&mut self, peer: PeerId, report: Report) {
        let now = self.now();
        match report {
            Report::Admitted => {
                info!(%peer, path = ?self.best_path(&peer), "member joined");
                self.discovery.handle_joined(&peer);
                self.swarm.behaviour_mut().gossip.admit(peer);
                self.swarm.behaviour_mut().probe.admit(peer);
                if let Some(signalling) = self.swarm.behaviour_mut().signalling.as_mut() {
                    signalling.admit(peer);
                    let is_direct = self.best_path(&peer) != Some(Path::Relayed);
                    self.upgrades.handle_member(peer, self.able.get(&peer).copied(), now);
                    self.upgrades.handle_direct(&peer, is_direct, now);
                }
            }
            Report::Stranger(reason) => {
                debug!(%peer, %reason, "not a member");
                self.discovery.handle_refused(&peer, now);
            }
            Report::Ended => debug!(%peer, "link ended"),
        }
    }

    fn handle_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let verdict = self.presences.handle_gossip(&message, &self.keys);
                let acceptance = match &verdict {
                    Verdict::News(..) => gossipsub::MessageAcceptance::Accept,
                    Verdict::Old => gossipsub::MessageAcceptance::Ignore,
                    Verdict::Forged => gossipsub::MessageAcceptance::Reject,
                };
                let gossip = &mut self.swarm.behaviour_mut().gossip.inner;
                gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
                if let Verdict::News(from, presence) = verdict {
                    self.shared.roster.outlet.push_presence(from, presence);
                }
            }
            gossipsub::Event::Subscribed { .. } => self.is_presence_due = true,
            gossipsub::Event::Unsubscribed { .. }
            | gossipsub::Event::GossipsubNotSupported { .. }
            | gossipsub::Event::SlowPeer { .. } => (),
        }
    }

    fn handle_rendezvous(&mut self, event: rendezvous::client::Event) {
        let now = self.now();
        match event {
            rendezvous::client::Event::Discovered { rendezvous_node, registrations, cookie } => {
                for registration in registrations {
                    let (peer, addresses) = (registration.record.peer_id(), registration.record.addresses());
                    self.discovery.handle_found(peer, addresses, false, now);
                }
                if let Some(meeting) = self.meeting(&rendezvous_node) {
                    meeting.handle_discovered(Some(cookie), now);
                }
            }
            rendezvous::client::Event::DiscoverFailed { rendezvous_node, error, .. } => {
                debug!(relay = %rendezvous_node, ?error, "discovery failed");
                if let Some(meeting) = self.meeting(&rendezvous_node) {
                    meeting.handle_discovered(None, now);
                }
            }
            rendezvous::client::Event::Registered { rendezvous_node, .. } => {
                if let Some(meeting) = self.meeting(&rendezvous_node) {
                    meeting.handle_registered(now);
                }
            }
            rendezvous::client::Event::RegisterFailed { rendezvous_node, error, .. } => {
                debug!(relay = %rendezvous_node, ?error, "registration failed");
            }
            rendezvous::client::Event::Expired { .. } => (),
        }
    }

    fn handle_connected(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let now = self.now();
        let (address, is_dialer) = match endpoint {
            ConnectedPoint::Dialer { address, .. } => (address, true),
            ConnectedPoint::Listener { local_addr, .. } => (local_addr, false),
        };
        debug!(%peer, %address, is_dialer, "connected");
        self.connections.entry(peer).or_default().insert(connection, Path::of(address));
        if is_dialer && let Some(index) = self.via.iter().position(|via| via.address == *address) {
            let via = self.via.swap_remove(index);
            self.discovery.handle_found(peer, &[via.address], true, now);
        }
        self.upgrading.remove(&connection);
        let best = self.best_path(&peer);
        self.upgrades.handle_direct(&peer, best != Some(Path::Relayed), now);
        self.discovery.handle_connected(&peer, best, now);
        if is_dialer
            && let Some(meeting) = self.meeting(&peer)
            && meeting.handle_connected(address.clone(), now)
        {
            info!(relay = %peer, "relay connected");
            self.shared.roster.outlet.push(Event::RelayConnected);
        }
    }

    fn handle_closed(&mut self, peer: PeerId, connection: ConnectionId) {
        let now = self.now();
        if let Some(connections) = self.connections.get_mut(&peer) {
            connections.remove(&connection);
            if connections.is_empty() {
                self.connections.remove(&peer);
            }
        }
        let best = self.best_path(&peer);
        if best.is_none() {
            self.able.remove(&peer);
            self.upgrades.handle_gone(&peer);
        } else {
            self.upgrades.handle_direct(&peer, best != Some(Path::Relayed), now);
        }
        self.discovery.handle_connected(&peer, best, now);
        if best.is_none()
            && let Some(meeting) = self.meeting(&peer)
            && meeting.handle_lost(now)
        {
            info!(relay = %peer, "relay lost");
            self.shared.roster.outlet.push(Event::RelayLost);
        }
    }

    fn handle_listening(&mut self, address: Multiaddr) {
        if Path::of(&address) == Path::Direct(Transport::WebRtc) {
            return; // Nobody can dial it who has not met us over a circuit.
        }
        if Path::of(&address) != Path::Relayed {
            self.swarm.add_external_address(address.clone());
        }
        let full = match address.iter().last() {
            Some(Protocol::P2p(_)) => address,
            _ => address.with(Protocol::P2p(*self.swarm.local_peer_id())),
        };
        self.shared.roster.outlet.push(Event::Listening { address: full });
    }
}
