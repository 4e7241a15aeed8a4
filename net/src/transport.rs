//! The transports that nodes, relays and evil peers of tests use, and listening without surprises.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use libp2p::core::Transport as _;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox};
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, ListenerId, TransportError};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{Multiaddr, PeerId, Swarm, dns, noise, quic, tcp, websocket};
use protocol::limits::HANDSHAKE_TIME_MAX;
use tokio::net::TcpSocket;

use crate::assembly::yamux_config;
use crate::event::{Path, Transport};
use crate::handle::NetError;
use crate::limits::{QUIC_KEEP_ALIVE, QUIC_SILENCE_MAX, WEBSOCKET_MESSAGE_BYTES_MAX};
use crate::timed_close::TimedClose;
use crate::webtransport;

/// TCP and WebSocket (Noise, Yamux, no delay), QUIC and WebTransport with short silences, so that a killed peer is soon
/// noticed; and names in place of IP addresses for all of them.
///
/// At most `streams_max` streams per connection. Every connection closes in bounded time. Must be called within a tokio
/// runtime.
pub fn native(keypair: &Keypair, streams_max: usize) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetError> {
    // Without a choice QUIC's first handshake would panic; a choice made before stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let noise = noise::Config::new(keypair).map_err(setup)?;
    let tcp = || tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    // Names are resolved below WebSocket, which needs them for the certificates of wss.
    let mut websocket = websocket::Config::new(dns::tokio::Transport::system(tcp()).map_err(setup)?);
    websocket.set_max_data_size(WEBSOCKET_MESSAGE_BYTES_MAX);
    let websocket = websocket
        .upgrade(Version::V1Lazy)
        .authenticate(noise.clone())
        .multiplex(yamux_config(streams_max))
        .timeout(HANDSHAKE_TIME_MAX)
        .map(|(peer, muxer), _| (peer, timed(muxer)));
    let tcp = tcp()
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux_config(streams_max))
        .timeout(HANDSHAKE_TIME_MAX)
        .map(|(peer, muxer), _| (peer, timed(muxer)));
    let webtransport = webtransport::Transport::new(keypair.clone(), streams_max);
    let webtransport = TransportTimeout::new(webtransport, HANDSHAKE_TIME_MAX)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    let mut config = quic::Config::new(keypair);
    config.max_idle_timeout = u32::try_from(QUIC_SILENCE_MAX.as_millis()).expect("seconds fit");
    config.keep_alive_interval = QUIC_KEEP_ALIVE;
    config.max_concurrent_stream_limit = u32::try_from(streams_max).unwrap_or(u32::MAX);
    let quic = quic::tokio::Transport::new(config).map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    let plain = tcp.or_transport(quic).map(|either, _| either.into_inner());
    let plain = plain.or_transport(webtransport).map(|either, _| either.into_inner());
    let named = dns::tokio::Transport::system(plain.boxed()).map_err(setup)?;
    Ok(websocket.or_transport(named).map(|either, _| either.into_inner()).boxed())
}

/// Those of a node's addresses that are worth dialling: what is made for browsers only where there is nothing else.
pub(crate) fn worth_dialling(addresses: &[Multiaddr]) -> Vec<Multiaddr> {
    let is_native = |address: &&Multiaddr| match Path::of(address) {
        Path::Direct(Transport::Quic | Transport::Tcp) | Path::Relayed => true,
        Path::Direct(Transport::WebTransport | Transport::WebRtc | Transport::WebSocket | Transport::Other) => false,
    };
    let native: Vec<_> = addresses.iter().filter(is_native).cloned().collect();
    if native.is_empty() { addresses.to_vec() } else { native }
}

fn timed<M>(muxer: M) -> StreamMuxerBox
where
    M: StreamMuxer + Send + 'static,
    M::Substream: Send + 'static,
    M::Error: Send + Sync + 'static,
{
    StreamMuxerBox::new(TimedClose::new(StreamMuxerBox::new(muxer)))
}

fn setup(error: impl std::fmt::Display) -> NetError {
    NetError::Setup(error.to_string())
}

/// Listens on `address`, or says what to do about it.
pub fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, address: &Multiaddr) -> Result<ListenerId, NetError> {
    let failed = |error: &io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => NetError::AddressInUse { address: address.clone() },
        _ => NetError::Listen { address: address.clone(), reason: error.to_string() },
    };
    // Asked beforehand: libp2p lets two processes of one user share a TCP port, which would split the peers that dial
    // it between them, and hides what the system says about a UDP port.
    match socket(address) {
        Some((socket, Kind::Tcp)) => bind_tcp(socket).map_err(|error| failed(&error))?,
        Some((socket, Kind::Udp)) => drop(UdpSocket::bind(socket).map_err(|error| failed(&error))?),
        None => (),
    }
    match swarm.listen_on(address.clone()) {
        Ok(listener) => Ok(listener),
        Err(TransportError::Other(error)) => Err(failed(&error)),
        Err(TransportError::MultiaddrNotSupported(_)) => {
            let reason = "not an address to listen on, such as /ip4/0.0.0.0/udp/0/quic-v1, /ip4/0.0.0.0/tcp/0, \
                          /ip4/0.0.0.0/udp/0/quic-v1/webtransport or /ip4/0.0.0.0/tcp/0/ws"
                .to_owned();
            Err(NetError::Listen { address: address.clone(), reason })
        }
    }
}

/// Whether a TCP port is free. Binds without listening, so that nobody connects to it meanwhile.
fn bind_tcp(address: SocketAddr) -> io::Result<()> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

enum Kind {
    Tcp,
    Udp,
}

fn socket(address: &Multiaddr) -> Option<(SocketAddr, Kind)> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((SocketAddr::new(ip, port), Kind::Tcp)),
        Protocol::Udp(port) => Some((SocketAddr::new(ip, port), Kind::Udp)),
        _ => None,
    }
}
