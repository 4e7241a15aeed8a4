//! Streams of one small protocol on a connection: opened when told to, handed over when the peer opens them.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use libp2p::Stream;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::swarm::StreamProtocol;
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound,
    SubstreamProtocol,
};

use protocol::limits::HANDSHAKE_TIME_MAX;
use tokio::sync::oneshot;

/// Where a stream goes that was asked for; dropped if there is none.
pub(crate) type Reply = oneshot::Sender<Stream>;

#[derive(Debug)]
pub(crate) struct Handler {
    protocol: StreamProtocol,
    /// Whether the peer may open any on this connection.
    accepts: bool,
    wanted: VecDeque<Reply>,
    offered: Option<Stream>,
}

impl Handler {
    pub fn new(protocol: StreamProtocol, accepts: bool) -> Self {
        Self { protocol, accepts, wanted: VecDeque::new(), offered: None }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Reply;
    type ToBehaviour = Stream;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Reply, Self::ToBehaviour>> {
        if let Some(stream) = self.offered.take() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(stream));
        }
        match self.wanted.pop_front() {
            Some(reply) => {
                let protocol = SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), reply);
                let protocol = protocol.with_timeout(HANDSHAKE_TIME_MAX);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, reply: Reply) {
        self.wanted.push_back(reply);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Reply>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info: reply }) => {
                // A dialer that has given up takes nothing.
                let _ = reply.send(stream);
            }
            // A peer that offers more than one at a time replaces its own.
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. })
                if self.accepts =>
            {
                self.offered = Some(stream);
            }
            // A failed request drops its reply, which is the answer; streams that nobody may open are dropped.
            _ => (),
        }
    }
}
