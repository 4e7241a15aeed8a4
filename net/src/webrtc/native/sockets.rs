//! The UDP sockets of one connection: one for each address of this machine, so that every datagram's own end is known.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::Poll;

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use crate::limits::WEBRTC_SOCKETS_MAX;

/// A datagram that came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub bytes: usize,
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// Bound sockets.
#[derive(Debug)]
pub struct Sockets {
    bound: Vec<(SocketAddr, UdpSocket)>,
    /// Asked first next time, so that none is starved.
    turn: usize,
}

impl Sockets {
    /// Binds a free port of every address that others may reach.
    pub async fn bind(ips: &BTreeSet<IpAddr>) -> io::Result<Self> {
        for group in worth_telling(ips) {
            let mut bound = Vec::new();
            for ip in group {
                // An address may have gone since it was told, or not be ready yet.
                let Ok(socket) = UdpSocket::bind((ip, 0)).await else { continue };
                bound.push((socket.local_addr()?, socket));
            }
            if !bound.is_empty() {
                return Ok(Self { bound, turn: 0 });
            }
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }

    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.bound.iter().map(|(address, _)| *address)
    }

    /// The next datagram.
    pub async fn receive(&mut self, buffer: &mut [u8]) -> Arrival {
        poll_fn(|context| {
            for offset in 0..self.bound.len() {
                let index = (self.turn + offset) % self.bound.len();
                let (destination, socket) = &self.bound[index];
                let mut buffer = ReadBuf::new(buffer);
                // What is reported is the fate of something sent, such as a port that is closed: others may be open.
                while let Poll::Ready(received) = socket.poll_recv_from(context, &mut buffer) {
                    let Ok(source) = received else { continue };
                    let arrival = Arrival { bytes: buffer.filled().len(), source, destination: *destination };
                    self.turn = index + 1;
                    return Poll::Ready(arrival);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Sends a datagram; one that cannot be sent is lost, as datagrams are.
    pub async fn send(&self, source: SocketAddr, destination: SocketAddr, datagram: &[u8]) {
        if let Some((_, socket)) = self.bound.iter().find(|(address, _)| *address == source) {
            let _ = socket.send_to(datagram, destination).await;
        }
    }
}

/// Addresses that mean something to others, and this machine's own loopback, for where there is nothing else.
fn worth_telling(ips: &BTreeSet<IpAddr>) -> [Vec<IpAddr>; 2] {
    let is_routed = |ip: &&IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    let routed = ips.iter().filter(is_routed).copied().take(WEBRTC_SOCKETS_MAX);
    let loopback = ips.iter().filter(|ip| ip.is_loopback()).copied().take(WEBRTC_SOCKETS_MAX);
    [routed.collect(), loopback.collect()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn loopback_comes_last_and_link_local_addresses_never() {
        let told = worth_telling(&ips(&["127.0.0.1", "::1", "192.0.2.1", "fe80::1", "2001:db8::1"]));
        let expected = [["192.0.2.1", "2001:db8::1"], ["127.0.0.1", "::1"]];
        assert_eq!(told, expected.map(|group| group.map(|text| text.parse::<IpAddr>().unwrap()).to_vec()));
    }

    #[tokio::test]
    async fn every_datagram_tells_which_of_our_addresses_it_came_to() {
        let mut sockets = Sockets::bind(&ips(&["127.0.0.1", "203.0.113.77"])).await.unwrap();
        let addresses: Vec<_> = sockets.addresses().collect();
        assert_eq!(addresses.len(), 1, "an address that is not ours is left out: {addresses:?}");
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        stranger.send_to(b"hello", addresses[0]).await.unwrap();
        let mut buffer = [0; 64];
        let arrival = sockets.receive(&mut buffer).await;
        assert_eq!((arrival.destination, arrival.source), (addresses[0], stranger.local_addr().unwrap()));
        assert_eq!(&buffer[..arrival.bytes], b"hello");
        sockets.send(arrival.destination, arrival.source, b"you too").await;
        let (bytes, from) = stranger.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..bytes], from), (&b"you too"[..], addresses[0]));
    }
}
