//! The `/webrtc` transport between two pages: introduced over a circuit, then data channels without anyone in between.

mod channel;
mod connection;
mod introduction;

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use js_sys::Array;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use send_wrapper::SendWrapper;
use tokio::sync::oneshot;
use wasm_bindgen::JsValue;
use web_sys::{RtcConfiguration, RtcIceServer, RtcPeerConnection};

use self::connection::Connection;
use self::introduction::{Role, introduce};
use crate::browser::{Sockets, words};
use crate::handle::IceServer;
use crate::limits::SIGNALLINGS_MAX;
use crate::signalling::{Port, Request};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no circuit to the peer, or it does not answer on it.
    #[error("there is nobody to introduce the peer")]
    Unintroduced,
    /// Signalling broke.
    #[error("the introduction broke: {0}")]
    Signalling(#[from] std::io::Error),
    /// The other side says what is not its turn.
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
    /// The browser refuses.
    #[error("the browser refuses: {0}")]
    Browser(String),
}

impl From<JsValue> for Error {
    fn from(error: JsValue) -> Self {
        Self::Browser(words(&error))
    }
}

/// The browser's settings for these servers, tried out; a server that cannot be used is named in the error.
pub(crate) fn configuration(servers: &[IceServer]) -> Result<RtcConfiguration, String> {
    let configuration = RtcConfiguration::new();
    let list = Array::new();
    for server in servers {
        let entry = RtcIceServer::new();
        entry.set_urls(&server.urls.iter().map(|url| JsValue::from_str(url)).collect::<Array>());
        if !server.username.is_empty() {
            entry.set_username(&server.username);
            entry.set_credential(&server.credential);
        }
        list.push(&entry);
    }
    configuration.set_ice_servers(&list);
    let connection = RtcPeerConnection::new_with_configuration(&configuration).map_err(|error| words(&error))?;
    connection.close();
    Ok(configuration)
}

/// The transport.
pub(crate) struct Transport {
    inner: SendWrapper<Inner>,
}

struct Inner {
    port: Port,
    servers: RtcConfiguration,
    sockets: Sockets,
    listener: Option<ListenerId>,
    events: VecDeque<TransportEvent<Dial, Error>>,
    /// Peers whose offers are being answered, one of each.
    answering: Answering,
}

type Answering = Rc<RefCell<BTreeSet<PeerId>>>;
type Dial = Pin<Box<dyn Future<Output = Result<(PeerId, Connection), Error>> + Send>>;

/// An answer under way.
struct Answer {
    answering: Answering,
    peer: PeerId,
}

impl Transport {
    pub fn new(port: Port, servers: RtcConfiguration, sockets: Sockets) -> Self {
        let (events, answering) = (VecDeque::new(), Answering::default());
        Self { inner: SendWrapper::new(Inner { port, servers, sockets, listener: None, events, answering }) }
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
        self.inner.listener = Some(id);
        self.inner.events.push_back(TransportEvent::NewAddress { listener_id: id, listen_addr: address });
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.listener.take_if(|listener| *listener == id).is_some()
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
        let _ = self.inner.port.requests.try_send(Request { peer, reply });
        let (servers, sockets) = (self.inner.servers.clone(), self.inner.sockets.clone());
        Ok(Box::pin(SendWrapper::new(async move {
            let stream = stream.await.map_err(|_| Error::Unintroduced)?;
            Ok((peer, introduce(stream, Role::Offerer, &servers, &sockets).await?))
        })))
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<TransportEvent<Dial, Error>> {
        let inner = &mut *self.inner;
        if let Some(event) = inner.events.pop_front() {
            return Poll::Ready(event);
        }
        while let Poll::Ready(Some(offer)) = inner.port.offers.poll_recv(context) {
            let Some(listener_id) = inner.listener else { continue };
            let Some(answer) = Answer::begin(&inner.answering, offer.peer) else { continue };
            let (servers, sockets) = (inner.servers.clone(), inner.sockets.clone());
            let upgrade = Box::pin(SendWrapper::new(async move {
                let peer = answer.peer;
                Ok((peer, introduce(offer.stream, Role::Answerer, &servers, &sockets).await?))
            }));
            let local_addr = Multiaddr::from(Protocol::WebRTC);
            let send_back_addr = local_addr.clone().with(Protocol::P2p(offer.peer));
            return Poll::Ready(TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr });
        }
        Poll::Pending
    }
}

impl Answer {
    fn begin(answering: &Answering, peer: PeerId) -> Option<Self> {
        let mut peers = answering.borrow_mut();
        let may_begin = peers.len() < SIGNALLINGS_MAX && peers.insert(peer);
        may_begin.then(|| Self { answering: Rc::clone(answering), peer })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.answering.borrow_mut().remove(&self.peer);
    }
}
