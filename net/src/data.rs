//! The data protocol as a libp2p behaviour: one long-lived stream on every connection, opened by its dialer.
//!
//! The behaviour decides who may connect at all; the handler of each connection shakes hands and polls the link.

mod handler;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, StreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use protocol::membership::Role;
use protocol::{Instant, RoomKeys};

pub(crate) use handler::{Handler, Report, Stranger};

use crate::event::Path;
use crate::limits::{FOREIGN_RELAYS_MAX, REFUSED_PEERS_MAX, REFUSED_TIME};
use crate::link::HandshakeError;
use crate::peer_name;
use crate::roster::{Rank, Roster};

/// The name of the data protocol.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/manyhands/data/2");

/// What every handler needs to know.
#[derive(Debug)]
pub(crate) struct Room {
    pub keys: RoomKeys,
    pub local: protocol::PeerId,
    pub roster: Arc<Roster>,
}

/// What the loop hears about a connection.
#[derive(Debug)]
pub(crate) struct Event {
    pub peer: PeerId,
    pub report: Report,
}

/// This peer was dropped lately.
#[derive(Debug, thiserror::Error)]
#[error("the peer is refused for a while")]
struct Refused;

/// The behaviour.
pub(crate) struct Behaviour {
    room: Arc<Room>,
    local: PeerId,
    /// Relays speak no data protocol and stay connected nevertheless.
    relays: BTreeSet<PeerId>,
    refused: BTreeMap<PeerId, Instant>,
    now: Instant,
    queue: VecDeque<ToSwarm<Event, Infallible>>,
    waker: Option<Waker>,
}

impl Behaviour {
    pub fn new(room: Arc<Room>, local: PeerId, relays: BTreeSet<PeerId>) -> Self {
        let (refused, queue) = (BTreeMap::new(), VecDeque::new());
        Self { room, local, relays, refused, now: Instant::ZERO, queue, waker: None }
    }

    /// Tells the time; peers whose refusal is over may come back.
    pub fn handle_time(&mut self, now: Instant) {
        self.now = now;
        self.refused.retain(|_, until| *until > now);
    }

    /// `relay` is on the way to a member.
    pub fn add_relay(&mut self, relay: PeerId) {
        if self.relays.len() < FOREIGN_RELAYS_MAX {
            self.relays.insert(relay);
        }
    }

    /// Closes all connections to `peer` and refuses it for [`REFUSED_TIME`].
    pub fn refuse(&mut self, peer: PeerId) {
        if self.refused.len() >= REFUSED_PEERS_MAX {
            let soonest = self.refused.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer);
            soonest.and_then(|soonest| self.refused.remove(&soonest));
        }
        self.refused.insert(peer, self.now + REFUSED_TIME);
        self.push(ToSwarm::CloseConnection { peer_id: peer, connection: CloseConnection::All });
    }

    fn push(&mut self, action: ToSwarm<Event, Infallible>) {
        self.queue.push_back(action);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn handler(
        &self,
        connection: ConnectionId,
        peer: PeerId,
        role: Role,
        address: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        if self.refused.contains_key(&peer) {
            return Err(ConnectionDenied::new(Refused));
        }
        let dialled_by_smaller = match role {
            Role::Dialer => self.local < peer,
            Role::Listener => peer < self.local,
        };
        let rank = Rank { path: Path::of(address), dialled_by_smaller };
        let name = peer_name(&peer);
        if rank.path != Path::Relayed
            && let Some(origin) = ip_of(remote)
        {
            self.room.roster.note_origin(&name, origin);
        }
        Ok(Handler::new(Arc::clone(&self.room), name, connection, role, rank))
    }
}

/// The internet address in a multiaddress, if it has one.
fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local_address: &Multiaddr,
        remote_address: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(connection, peer, Role::Listener, local_address, remote_address)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(connection, peer, Role::Dialer, address, address)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, report: THandlerOutEvent<Self>) {
        let is_relay = self.relays.contains(&peer);
        match &report {
            Report::Admitted => (),
            Report::Stranger(_) if is_relay => (),
            // A stream that breaks during the handshake is no crime: both may have dialled, and one connection went.
            Report::Ended | Report::Stranger(Stranger::Handshake(HandshakeError::Closed(_))) => {
                let connection = CloseConnection::One(connection);
                self.push(ToSwarm::CloseConnection { peer_id: peer, connection });
            }
            Report::Stranger(_) => self.refuse(peer),
        }
        self.push(ToSwarm::GenerateEvent(Event { peer, report }));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(action) = self.queue.pop_front() {
            return Poll::Ready(action);
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
