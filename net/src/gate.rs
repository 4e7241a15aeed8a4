//! Lets a gossip behaviour see members only: to everyone else this node has no topics and hears nothing.
//!
//! Gossipsub greets every new connection with the names of its topics and keeps state for whoever answers. Behind the
//! gate it learns of a connection only once its peer has proved membership.

use std::collections::{BTreeSet, HashMap};
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use crate::limits::GOSSIP_HELD_MAX;

/// A behaviour that sees members only.
pub(crate) struct Gate<B: NetworkBehaviour> {
    pub inner: B,
    members: BTreeSet<PeerId>,
    waiting: HashMap<ConnectionId, Waiting<B>>,
}

/// A connection whose peer has not proved membership.
struct Waiting<B: NetworkBehaviour> {
    peer: PeerId,
    endpoint: ConnectedPoint,
    /// A member may hear of its admission before we know of it and speak at once.
    held: Vec<THandlerOutEvent<B>>,
}

impl<B: NetworkBehaviour> Gate<B> {
    pub fn new(inner: B) -> Self {
        Self { inner, members: BTreeSet::new(), waiting: HashMap::new() }
    }

    /// Opens the gate for a connected peer that has proved membership.
    pub fn admit(&mut self, peer: PeerId) {
        let is_connected = self.waiting.values().any(|waiting| waiting.peer == peer);
        if !is_connected {
            return;
        }
        let mut established = usize::from(!self.members.insert(peer));
        let mut connections: Vec<_> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.peer == peer)
            .map(|(connection, _)| *connection)
            .collect();
        connections.sort();
        for connection_id in connections {
            let Some(waiting) = self.waiting.remove(&connection_id) else { continue };
            self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id: peer,
                connection_id,
                endpoint: &waiting.endpoint,
                failed_addresses: &[],
                other_established: established,
            }));
            established += 1;
            for event in waiting.held {
                self.inner.on_connection_handler_event(peer, connection_id, event);
            }
        }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Gate<B> {
    type ConnectionHandler = B::ConnectionHandler;
    type ToSwarm = B::ToSwarm;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local_address: &Multiaddr,
        remote_address: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local_address, remote_address)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) if !self.members.contains(&established.peer_id) => {
                let (peer, endpoint) = (established.peer_id, established.endpoint.clone());
                self.waiting.insert(established.connection_id, Waiting { peer, endpoint, held: Vec::new() });
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.waiting.remove(&closed.connection_id);
                if closed.remaining_established == 0 {
                    self.members.remove(&closed.peer_id);
                }
                self.inner.on_swarm_event(event);
            }
            event => self.inner.on_swarm_event(event),
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        match self.waiting.get_mut(&connection) {
            None => self.inner.on_connection_handler_event(peer, connection, event),
            Some(waiting) if waiting.held.len() < GOSSIP_HELD_MAX => waiting.held.push(event),
            Some(_) => (),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(context)
    }
}
