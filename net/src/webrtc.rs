//! The `/webrtc` transport: introduced over a circuit, then data channels without anyone in between.
//!
//! A page lets its browser do the protocols, a native node has str0m. What both do alike is here.

#[cfg(target_arch = "wasm32")]
mod browser;
#[cfg(not(target_arch = "wasm32"))]
mod native;

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Stream};
use tokio::sync::oneshot;

#[cfg(target_arch = "wasm32")]
use browser as platform;
#[cfg(not(target_arch = "wasm32"))]
use native as platform;

#[cfg(target_arch = "wasm32")]
pub(crate) use browser::configuration;
pub(crate) use platform::{Connection, Introducer};

use crate::limits::SIGNALLINGS_MAX;
use crate::signalling::{Port, Request};

/// Name of the channel that only makes an offer one for data; it carries nothing.
const FIRST_CHANNEL: &str = "init";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no circuit to the peer, or it does not answer on it.
    #[error("there is nobody to introduce the peer")]
    Unintroduced,
    /// Signalling broke.
    #[error("the introduction broke: {0}")]
    Signalling(#[from] std::io::Error),
    /// The other side says what is not its turn, or what nobody understands.
    #[error("the introduction went wrong")]
    Malformed,
    /// Too slow.
    #[error("the introduction took too long")]
    Late,
    /// No way was found, or it was lost.
    #[error("there is no direct way to the peer")]
    NoWay,
    /// The other side sends more, or opens more channels, than it may.
    #[error("the peer sends more than it may")]
    Flooded,
    /// Whoever does the protocols for us refuses.
    #[error("refused on this side: {0}")]
    Refused(String),
}

/// Which side of an introduction this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Offerer,
    Answerer,
}

/// A stream for an introduction, once it is open.
type Opening = BoxFuture<'static, Result<Stream, Error>>;

type Dial = BoxFuture<'static, Result<(PeerId, Connection), Error>>;

/// The transport.
pub(crate) struct Transport {
    port: Port,
    introducer: Introducer,
    listener: Option<ListenerId>,
    events: VecDeque<TransportEvent<Dial, Error>>,
    /// Peers whose offers are being answered, one of each.
    answering: Answering,
}

#[derive(Clone, Default)]
struct Answering {
    peers: Arc<Mutex<BTreeSet<PeerId>>>,
}

/// An answer under way.
struct Answer {
    answering: Answering,
    peer: PeerId,
}

impl Transport {
    pub fn new(port: Port, introducer: Introducer) -> Self {
        Self { port, introducer, listener: None, events: VecDeque::new(), answering: Answering::default() }
    }
}

impl libp2p::Transport for Transport {
    type Output = (PeerId, Connection);
    type Error = Error;
    type ListenerUpgrade = Dial;
    type Dial = Dial;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Error>> {
        if address != Multiaddr::from(Protocol::WebRTC) {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        self.listener = Some(id);
        self.events.push_back(TransportEvent::NewAddress { listener_id: id, listen_addr: address });
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listener.take_if(|listener| *listener == id).is_some()
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Dial, TransportError<Error>> {
        let parts: Vec<_> = address.iter().collect();
        let [Protocol::WebRTC, Protocol::P2p(peer)] = parts[..] else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        if options.role.is_listener() {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        let (reply, stream) = oneshot::channel();
        // A full queue drops the request, which is what the dialer then hears.
        let _ = self.port.requests.try_send(Request { peer, reply });
        let stream = stream.map(|stream| stream.map_err(|_| Error::Unintroduced));
        let introduced = self.introducer.introduce(Role::Offerer, stream.boxed());
        Ok(introduced.map(move |connection| Ok((peer, connection?))).boxed())
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<TransportEvent<Dial, Error>> {
        let this = &mut *self;
        if let Some(event) = this.events.pop_front() {
            return Poll::Ready(event);
        }
        this.introducer.poll(context);
        while let Poll::Ready(Some(offer)) = this.port.offers.poll_recv(context) {
            let Some(listener_id) = this.listener else { continue };
            let Some(answer) = this.answering.begin(offer.peer) else { continue };
            let introduced = this.introducer.introduce(Role::Answerer, ready(Ok(offer.stream)).boxed());
            // The answer is under way until this future is done or dropped.
            let upgrade = introduced.map(move |connection| Ok((answer.peer, connection?))).boxed();
            let local_addr = Multiaddr::from(Protocol::WebRTC);
            let send_back_addr = local_addr.clone().with(Protocol::P2p(offer.peer));
            return Poll::Ready(TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr });
        }
        Poll::Pending
    }
}

impl Answering {
    fn begin(&self, peer: PeerId) -> Option<Answer> {
        let mut peers = self.peers();
        let may_begin = peers.len() < SIGNALLINGS_MAX && peers.insert(peer);
        drop(peers);
        may_begin.then(|| Answer { answering: self.clone(), peer })
    }

    fn peers(&self) -> MutexGuard<'_, BTreeSet<PeerId>> {
        self.peers.lock().expect("no code panics while it holds the set")
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.answering.peers().remove(&self.peer);
    }
}
