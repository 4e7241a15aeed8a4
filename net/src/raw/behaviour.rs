//! Opens the data protocol on every connection it dials, accepts it on every other, and hands the streams over.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound,
    SubstreamProtocol,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, StreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream};
use protocol::membership::Role;
use tokio::sync::mpsc;

use crate::data::PROTOCOL;

/// A stream, and who is at its other end.
#[derive(Debug)]
pub(super) struct Opened {
    pub remote: PeerId,
    pub role: Role,
    pub stream: Stream,
}

pub(super) struct Behaviour {
    opened: mpsc::Sender<Opened>,
}

impl Behaviour {
    pub fn new(opened: mpsc::Sender<Opened>) -> Self {
        Self { opened }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        remote: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(remote, Role::Listener, self.opened.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        remote: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(remote, Role::Dialer, self.opened.clone()))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

pub(super) struct Handler {
    remote: PeerId,
    role: Role,
    requests: VecDeque<SubstreamProtocol<ReadyUpgrade<StreamProtocol>>>,
    opened: mpsc::Sender<Opened>,
}

impl Handler {
    fn new(remote: PeerId, role: Role, opened: mpsc::Sender<Opened>) -> Self {
        let request = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ());
        let requests = (role == Role::Dialer).then_some(request).into_iter().collect();
        Self { remote, role, requests, opened }
    }

    fn hand_over(&self, stream: Stream) {
        let _ = self.opened.try_send(Opened { remote: self.remote, role: self.role, stream });
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        match self.requests.pop_front() {
            Some(protocol) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol }),
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. })
            | ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, .. }) => {
                self.hand_over(stream);
            }
            _ => (),
        }
    }
}
