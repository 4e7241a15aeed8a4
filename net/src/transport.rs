//! QUIC and TCP as nodes, relays and evil peers of tests use them, and listening without surprises.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, TransportError};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{Multiaddr, PeerId, Swarm, noise, quic, tcp, yamux};
use protocol::limits::HANDSHAKE_TIME_MAX;
use tokio::net::TcpSocket;

use crate::handle::NetError;
use crate::limits::{QUIC_KEEP_ALIVE, QUIC_SILENCE_MAX};
use crate::timed_close::TimedClose;

/// TCP (Noise, Yamux, no delay) and QUIC with short silences, so that a killed peer is soon noticed.
///
/// At most `streams_max` streams per connection. Every connection closes in bounded time.
pub fn native(keypair: &Keypair, streams_max: usize) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetError> {
    // Without a choice QUIC's first handshake would panic; a choice made before stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let noise = noise::Config::new(keypair).map_err(|error| NetError::Setup(error.to_string()))?;
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux_config(streams_max))
        .timeout(HANDSHAKE_TIME_MAX)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(TimedClose::new(StreamMuxerBox::new(muxer)))));
    let mut config = quic::Config::new(keypair);
    config.max_idle_timeout = u32::try_from(QUIC_SILENCE_MAX.as_millis()).expect("seconds fit");
    config.keep_alive_interval = QUIC_KEEP_ALIVE;
    config.max_concurrent_stream_limit = u32::try_from(streams_max).unwrap_or(u32::MAX);
    let quic = quic::tokio::Transport::new(config).map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    Ok(tcp.or_transport(quic).map(|either, _| either.into_inner()).boxed())
}

/// Yamux with a bounded number of streams.
pub(crate) fn yamux_config(streams_max: usize) -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(streams_max);
    config
}

/// Listens on `address`, or says what to do about it.
pub fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, address: &Multiaddr) -> Result<(), NetError> {
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
        Ok(_) => Ok(()),
        Err(TransportError::Other(error)) => Err(failed(&error)),
        Err(TransportError::MultiaddrNotSupported(_)) => {
            let reason = "not an address of QUIC or TCP, such as /ip4/0.0.0.0/udp/0/quic-v1".to_owned();
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
