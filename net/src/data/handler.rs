//! The data protocol on one connection: negotiate, shake hands, then poll the link until it ends.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use libp2p::Stream;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, DialUpgradeError, FullyNegotiatedInbound,
    FullyNegotiatedOutbound, SubstreamProtocol,
};
use libp2p::swarm::{ConnectionId, StreamProtocol, StreamUpgradeError};
use protocol::PeerId;
use protocol::limits::HANDSHAKE_TIME_MAX;
use protocol::membership::Role;

use super::{PROTOCOL, Room};
use crate::delay::Delay;
use crate::link::{self, HandshakeError, Identity, LinkEnd, shake_hands};
use crate::roster::Rank;

/// What a connection's handler tells the behaviour.
#[derive(Debug)]
pub(crate) enum Report {
    /// The peer has proved membership; the link is on the roster.
    Admitted,
    /// The peer is no member, and why.
    Stranger(Stranger),
    /// The link has ended.
    Ended,
}

/// Why the peer of a connection is no member.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stranger {
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("it speaks no data protocol")]
    Unsupported,
    #[error("it proved nothing in time")]
    Late,
    #[error("the room is full")]
    RoomFull,
}

pub(crate) struct Handler {
    room: Arc<Room>,
    remote: PeerId,
    connection: ConnectionId,
    role: Role,
    rank: Rank,
    state: State,
    /// When the peer must have proved membership.
    deadline: Delay,
}

enum State {
    /// No stream yet; the dialer has to ask for one.
    Waiting {
        is_asked: bool,
    },
    Handshaking(BoxFuture<'static, Result<Stream, HandshakeError>>),
    Failed(Option<Stranger>),
    Linked(BoxFuture<'static, LinkEnd>),
    Ended,
}

impl Handler {
    pub fn new(room: Arc<Room>, remote: PeerId, connection: ConnectionId, role: Role, rank: Rank) -> Self {
        let state = State::Waiting { is_asked: false };
        Self { room, remote, connection, role, rank, state, deadline: Delay::new(HANDSHAKE_TIME_MAX) }
    }

    fn handle_stream(&mut self, mut stream: Stream) {
        let State::Waiting { .. } = self.state else { return };
        let (room, remote, role) = (Arc::clone(&self.room), self.remote.clone(), self.role);
        let handshake = async move {
            let identity = Identity { keys: &room.keys, local: &room.local, remote: &remote, role };
            shake_hands(&mut stream, identity).await.map(|()| stream)
        };
        self.state = State::Handshaking(handshake.boxed());
    }

    fn handle_handshake(&mut self, result: Result<Stream, HandshakeError>) -> Option<Report> {
        let admitted = result.map_err(Stranger::from).and_then(|stream| {
            let membership = self.room.roster.admit(self.remote.clone(), self.connection, self.rank);
            Ok((stream, membership.ok_or(Stranger::RoomFull)?))
        });
        match admitted {
            Ok((stream, membership)) => {
                self.state = State::Linked(link::run(stream, membership).boxed());
                Some(Report::Admitted)
            }
            Err(stranger) => {
                self.state = State::Ended;
                Some(Report::Stranger(stranger))
            }
        }
    }

    fn poll_report(&mut self, context: &mut Context<'_>) -> Poll<Report> {
        loop {
            let report = match &mut self.state {
                State::Waiting { .. } => None,
                State::Handshaking(handshake) => match handshake.as_mut().poll(context) {
                    Poll::Ready(result) => self.handle_handshake(result),
                    Poll::Pending => None,
                },
                State::Failed(stranger) => {
                    let report = stranger.take().map(Report::Stranger);
                    self.state = State::Ended;
                    report
                }
                State::Linked(link) => {
                    let Poll::Ready(LinkEnd::Closed | LinkEnd::Dropped(_)) = link.as_mut().poll(context) else {
                        return Poll::Pending;
                    };
                    self.state = State::Ended;
                    Some(Report::Ended)
                }
                State::Ended => return Poll::Pending,
            };
            if let Some(report) = report {
                return Poll::Ready(report);
            }
            match Pin::new(&mut self.deadline).poll(context) {
                Poll::Ready(()) => self.state = State::Failed(Some(Stranger::Late)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Report;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        if let (Role::Dialer, State::Waiting { is_asked: is_asked @ false }) = (self.role, &mut self.state) {
            *is_asked = true;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ()).with_timeout(HANDSHAKE_TIME_MAX);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.poll_report(context).map(ConnectionHandlerEvent::NotifyBehaviour)
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Option<Self::ToBehaviour>> {
        // The link ends here, not when the connection has finished closing: a peer that does not read may delay that.
        self.state = State::Ended;
        Poll::Ready(None)
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, .. }) => {
                self.handle_stream(stream);
            }
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. })
                if self.role == Role::Listener =>
            {
                self.handle_stream(stream);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                self.state = State::Failed(Some(match error {
                    StreamUpgradeError::Timeout => Stranger::Late,
                    StreamUpgradeError::NegotiationFailed => Stranger::Unsupported,
                    StreamUpgradeError::Io(error) => HandshakeError::Closed(error).into(),
                    StreamUpgradeError::Apply(never) => match never {},
                }));
            }
            // Streams towards the dialer, who alone opens links, and the connection's own affairs.
            _ => (),
        }
    }
}
