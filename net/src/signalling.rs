//! Introduces two peers to each other over a circuit: streams of libp2p's `/webrtc-signaling`, for members only.
//!
//! The behaviour hands streams to and from the `/webrtc` transport through a [`Port`]; what is said on them is in
//! [`words`].

pub(crate) mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, StreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream};
use tokio::sync::mpsc;

use crate::event::Path;
use crate::limits::SIGNALLINGS_MAX;
use crate::opener::{Handler, Reply};

/// The name of the signalling protocol.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/webrtc-signaling/0.0.1");

/// A dialer's wish for a stream to this peer.
#[derive(Debug)]
pub(crate) struct Request {
    pub peer: PeerId,
    pub reply: Reply,
}

/// A stream on which a member offers a connection.
#[derive(Debug)]
pub(crate) struct Offer {
    pub peer: PeerId,
    pub stream: Stream,
}

/// The transport's end.
#[derive(Debug)]
pub(crate) struct Port {
    pub requests: mpsc::Sender<Request>,
    pub offers: mpsc::Receiver<Offer>,
}

/// The behaviour.
#[derive(Debug)]
pub(crate) struct Behaviour {
    requests: mpsc::Receiver<Request>,
    offers: mpsc::Sender<Offer>,
    circuits: BTreeMap<PeerId, BTreeSet<ConnectionId>>,
    members: BTreeSet<PeerId>,
    /// Offers of peers that proved membership to us a moment ago, which the loop has not heard of; one of each.
    early: BTreeMap<PeerId, Stream>,
    queue: VecDeque<ToSwarm<Infallible, Reply>>,
}

/// Makes both ends.
pub(crate) fn new() -> (Behaviour, Port) {
    let (request_sender, requests) = mpsc::channel(SIGNALLINGS_MAX);
    let (offers, offer_receiver) = mpsc::channel(SIGNALLINGS_MAX);
    let behaviour = Behaviour {
        requests,
        offers,
        circuits: BTreeMap::new(),
        members: BTreeSet::new(),
        early: BTreeMap::new(),
        queue: VecDeque::new(),
    };
    (behaviour, Port { requests: request_sender, offers: offer_receiver })
}

impl Behaviour {
    /// `peer` has proved membership: its offers are heard.
    pub fn admit(&mut self, peer: PeerId) {
        if !self.circuits.contains_key(&peer) {
            return;
        }
        self.members.insert(peer);
        if let Some(stream) = self.early.remove(&peer) {
            self.hand_over(peer, stream);
        }
    }

    fn hand_over(&self, peer: PeerId, stream: Stream) {
        // When too many wait the stream is dropped, which tells the other side to try again later.
        let _ = self.offers.try_send(Offer { peer, stream });
    }

    fn handle_request(&mut self, request: Request) {
        let Some(connection) = self.circuits.get(&request.peer).and_then(BTreeSet::last) else { return };
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id: request.peer,
            handler: NotifyHandler::One(*connection),
            event: request.reply,
        });
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        local_address: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(PROTOCOL, Path::of(local_address) == Path::Relayed))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(PROTOCOL, Path::of(address) == Path::Relayed))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                let address = match established.endpoint {
                    ConnectedPoint::Dialer { address, .. } => address,
                    ConnectedPoint::Listener { local_addr, .. } => local_addr,
                };
                if Path::of(address) == Path::Relayed {
                    self.circuits.entry(established.peer_id).or_default().insert(established.connection_id);
                }
            }
            FromSwarm::ConnectionClosed(closed) => {
                let Some(circuits) = self.circuits.get_mut(&closed.peer_id) else { return };
                circuits.remove(&closed.connection_id);
                if circuits.is_empty() {
                    self.circuits.remove(&closed.peer_id);
                    self.members.remove(&closed.peer_id);
                    self.early.remove(&closed.peer_id);
                }
            }
            _ => (),
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, stream: THandlerOutEvent<Self>) {
        if self.members.contains(&peer) {
            self.hand_over(peer, stream);
        } else if self.early.len() < SIGNALLINGS_MAX {
            self.early.entry(peer).or_insert(stream);
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(action) = self.queue.pop_front() {
                return Poll::Ready(action);
            }
            match self.requests.poll_recv(context) {
                Poll::Ready(Some(request)) => self.handle_request(request),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}
