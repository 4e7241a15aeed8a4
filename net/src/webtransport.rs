//! WebTransport as libp2p speaks it, so that browsers reach a node without a certificate of any authority.
//!
//! Listens on `/ip4/…/udp/PORT/quic-v1/webtransport`. What is announced ends in the hashes of two certificates, the one
//! in use and the next ([`certificate`]); both ends then prove their peer ids with Noise on the first stream. Nodes
//! dial it too, but prefer QUIC.

mod certificate;
mod connection;
mod listener;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::BoxFuture;
use libp2p::core::multihash::Multihash;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint as Role, Transport as Libp2pTransport};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, noise};
use tokio_util::compat::TokioAsyncReadCompatExt;
use wtransport::endpoint::IncomingSession;
use wtransport::stream::BiStream;
use wtransport::tls::Sha256Digest;
use wtransport::{ClientConfig, Endpoint};

pub(crate) use self::connection::Connection;
use self::listener::Listener;
use crate::limits::{
    QUIC_KEEP_ALIVE, QUIC_SILENCE_MAX, WEBTRANSPORT_CONNECTION_BYTES_MAX, WEBTRANSPORT_CONTROL_STREAMS_MAX,
    WEBTRANSPORT_DATAGRAM_BYTES_MAX, WEBTRANSPORT_OWN_STREAMS, WEBTRANSPORT_STREAM_BYTES_MAX,
};

/// Where libp2p is found on a WebTransport server.
const PATH: &str = "/.well-known/libp2p-webtransport";

/// How the peer ids are proved; there is no other way so far.
const QUERY: &str = "type=noise";

/// The code of the multihash SHA2-256.
const SHA2_256: u64 = 0x12;

/// The hash of a certificate, as addresses carry it.
pub(crate) type Certhash = Multihash<64>;

/// The time since the Unix epoch; certificates depend on the date.
pub(crate) type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

type Upgrade = BoxFuture<'static, io::Result<(PeerId, Connection)>>;

/// The transport of one node.
pub(crate) struct Transport {
    keypair: Keypair,
    streams_max: usize,
    clock: Clock,
    listeners: Vec<Listener>,
    waker: Option<Waker>,
}

impl Transport {
    /// At most `streams_max` streams per connection.
    pub fn new(keypair: Keypair, streams_max: usize) -> Self {
        // A clock before 1970 is as wrong as can be: no browser would accept any certificate then.
        let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::with_clock(keypair, streams_max, Arc::new(clock))
    }

    /// The same with a clock of the caller's.
    pub fn with_clock(keypair: Keypair, streams_max: usize, clock: Clock) -> Self {
        Self { keypair, streams_max, clock, listeners: Vec::new(), waker: None }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Libp2pTransport for Transport {
    type Output = (PeerId, Connection);
    type Error = io::Error;
    type ListenerUpgrade = Upgrade;
    type Dial = Upgrade;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        let Some((socket, certhashes)) = parse(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        if !certhashes.is_empty() {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        let listener = Listener::bind(id, socket, &self.keypair, self.streams_max, Arc::clone(&self.clock))
            .map_err(TransportError::Other)?;
        self.listeners.push(listener);
        self.wake();
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let Some(listener) = self.listeners.iter_mut().find(|listener| listener.id() == id) else { return false };
        listener.close();
        self.wake();
        true
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Upgrade, TransportError<io::Error>> {
        let Some((socket, certhashes)) = parse(&address).filter(|_| options.role == Role::Dialer) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let expected = address.iter().find_map(|part| match part {
            Protocol::P2p(peer) => Some(peer),
            _ => None,
        });
        Ok(dial(socket, certhashes, expected, self.keypair.clone(), self.streams_max).boxed())
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<TransportEvent<Upgrade, io::Error>> {
        let ready = self.listeners.iter_mut().find_map(|listener| match listener.poll(context) {
            Poll::Ready(event) => Some(event),
            Poll::Pending => None,
        });
        match ready {
            Some(event) => {
                if let TransportEvent::ListenerClosed { listener_id, .. } = &event {
                    self.listeners.retain(|listener| listener.id() != *listener_id);
                }
                Poll::Ready(event)
            }
            None => {
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Accepts a browser: the QUIC handshake, the session at libp2p's path, and the proofs of the peer ids.
async fn accept(
    session: IncomingSession,
    keypair: Keypair,
    certhashes: HashSet<Certhash>,
) -> io::Result<(PeerId, Connection)> {
    let request = session.await.map_err(io::Error::other)?;
    if !is_for_libp2p(request.path()) {
        let reason = format!("asked for {:?}", request.path());
        request.not_found().await;
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    let connection = request.accept().await.map_err(io::Error::other)?;
    let stream = BiStream::join(connection.accept_bi().await.map_err(io::Error::other)?).compat();
    let noise = noise(&keypair)?.with_webtransport_certhashes(certhashes);
    let (peer, _) = noise.upgrade_inbound(stream, protocol()).await.map_err(io::Error::other)?;
    Ok((peer, Connection::new(connection)))
}

/// Dials a node whose certificate has one of the hashes of its address.
async fn dial(
    socket: SocketAddr,
    certhashes: HashSet<Certhash>,
    expected: Option<PeerId>,
    keypair: Keypair,
    streams_max: usize,
) -> io::Result<(PeerId, Connection)> {
    let any = match socket.ip() {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let digests = certhashes.iter().filter_map(|hash| Some(Sha256Digest::new(hash.digest().try_into().ok()?)));
    let mut config = ClientConfig::builder()
        .with_bind_address(SocketAddr::new(any, 0))
        .with_server_certificate_hashes(digests)
        .build();
    config.quic_config_mut().transport_config(Arc::new(quic(streams_max)));
    let url = format!("https://{socket}{PATH}?{QUERY}");
    let connection = Endpoint::client(config)?.connect(url).await.map_err(io::Error::other)?;
    let opening = connection.open_bi().await.map_err(io::Error::other)?;
    let stream = BiStream::join(opening.await.map_err(io::Error::other)?).compat();
    let noise = noise(&keypair)?.with_webtransport_certhashes(certhashes);
    let (peer, _) = noise.upgrade_outbound(stream, protocol()).await.map_err(io::Error::other)?;
    match expected {
        Some(expected) if expected != peer => Err(io::Error::other(format!("{peer} answers in place of {expected}"))),
        _ => Ok((peer, Connection::new(connection))),
    }
}

fn noise(keypair: &Keypair) -> io::Result<noise::Config> {
    noise::Config::new(keypair).map_err(io::Error::other)
}

/// Noise's name, which is not spoken here: the query has agreed on it already.
fn protocol() -> <noise::Config as UpgradeInfo>::Info {
    "/noise"
}

/// What QUIC allows a connection: like the QUIC of nodes, and what HTTP/3 needs for itself.
fn quic(streams_max: usize) -> wtransport::quinn::TransportConfig {
    let streams = u32::try_from(streams_max).unwrap_or(u32::MAX).saturating_add(WEBTRANSPORT_OWN_STREAMS);
    let mut config = wtransport::quinn::TransportConfig::default();
    config
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(WEBTRANSPORT_CONTROL_STREAMS_MAX.into())
        .datagram_receive_buffer_size(Some(WEBTRANSPORT_DATAGRAM_BYTES_MAX))
        .stream_receive_window(WEBTRANSPORT_STREAM_BYTES_MAX.into())
        .receive_window(WEBTRANSPORT_CONNECTION_BYTES_MAX.into())
        .keep_alive_interval(Some(QUIC_KEEP_ALIVE))
        .max_idle_timeout(Some(QUIC_SILENCE_MAX.try_into().expect("seconds fit")))
        .allow_spin(false);
    config
}

fn is_for_libp2p(path: &str) -> bool {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    path == PATH && query.split('&').any(|parameter| parameter == QUERY)
}

/// The socket and the certhashes of a WebTransport address with an IP; a peer id may follow.
fn parse(address: &Multiaddr) -> Option<(SocketAddr, HashSet<Certhash>)> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::from(ip),
        Protocol::Ip6(ip) => IpAddr::from(ip),
        _ => return None,
    };
    let Protocol::Udp(port) = parts.next()? else { return None };
    let (Protocol::QuicV1, Protocol::WebTransport) = (parts.next()?, parts.next()?) else { return None };
    let mut certhashes = HashSet::new();
    let mut rest = parts.peekable();
    while let Some(Protocol::Certhash(hash)) = rest.peek() {
        certhashes.insert(*hash);
        rest.next();
    }
    match (rest.next(), rest.next()) {
        (None | Some(Protocol::P2p(_)), None) => Some((SocketAddr::new(ip, port), certhashes)),
        _ => None,
    }
}

/// The address of a socket, without certhashes.
fn multiaddr(socket: SocketAddr) -> Multiaddr {
    Multiaddr::from(socket.ip()).with(Protocol::Udp(socket.port())).with(Protocol::QuicV1).with(Protocol::WebTransport)
}
