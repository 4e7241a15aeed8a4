//! Asks STUN servers under which addresses this node's sockets are seen from outside, behind a NAT.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;

use super::sockets::Sockets;
use crate::handle::IceServer;
use crate::limits::{DATAGRAM_BYTES_MAX, STUN_PAUSE, STUN_TRIES};

/// In every message of STUN.
const COOKIE: [u8; 4] = 0x2112_a442_u32.to_be_bytes();

const REQUEST: u16 = 0x0001;
const ANSWER: u16 = 0x0101;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// Type, length, cookie and id.
const HEADER_BYTES: usize = 20;

const PORT: u16 = 3478;

type Id = [u8; 12];

/// `host:port` of the STUN servers among these; natives use no others.
pub fn servers(given: &[IceServer]) -> Vec<String> {
    let named = given.iter().flat_map(|server| &server.urls).filter_map(|url| url.strip_prefix("stun:"));
    let with_port = |host: &str| {
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(host, port)| port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')));
        if has_port { host.to_owned() } else { format!("{host}:{PORT}") }
    };
    named.map(with_port).collect()
}

/// The address under which each socket is seen, where a server answers in time.
pub async fn seen_from_outside(sockets: &mut Sockets, servers: &[String]) -> BTreeMap<SocketAddr, SocketAddr> {
    let mut found = BTreeMap::new();
    let servers = resolve(servers).await;
    let has_server = |own: &SocketAddr| servers.iter().any(|server| server.is_ipv4() == own.is_ipv4());
    let asking: Vec<_> = sockets.addresses().filter(has_server).collect();
    let id = rand::random();
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    for _ in 0..STUN_TRIES {
        for own in asking.iter().filter(|own| !found.contains_key(*own)) {
            for server in servers.iter().filter(|server| server.is_ipv4() == own.is_ipv4()) {
                sockets.send(*own, *server, &request(id)).await;
            }
        }
        let mut pause = pin!(tokio::time::sleep(STUN_PAUSE));
        while found.len() < asking.len() {
            let arrival = tokio::select! {
                arrival = sockets.receive(&mut buffer) => arrival,
                () = &mut pause => break,
            };
            let answered = answer(&buffer[..arrival.bytes], id).filter(|_| servers.contains(&arrival.source));
            if let Some(seen) = answered {
                found.entry(arrival.destination).or_insert(seen);
            }
        }
    }
    found
}

async fn resolve(servers: &[String]) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for server in servers {
        let found = tokio::time::timeout(STUN_PAUSE, tokio::net::lookup_host(server)).await;
        if let Ok(Ok(found)) = found {
            addresses.extend(found);
        }
    }
    addresses
}

fn request(id: Id) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..2].copy_from_slice(&REQUEST.to_be_bytes());
    bytes[4..8].copy_from_slice(&COOKIE);
    bytes[8..].copy_from_slice(&id);
    bytes
}

/// The address in the answer to the request with this id.
fn answer(bytes: &[u8], id: Id) -> Option<SocketAddr> {
    let (header, mut rest) = bytes.split_at_checked(HEADER_BYTES)?;
    if header[..2] != ANSWER.to_be_bytes() || header[4..8] != COOKIE || header[8..] != id {
        return None;
    }
    loop {
        let (head, after) = rest.split_at_checked(4)?;
        let (kind, length) = (u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[2], head[3]]).into());
        let value = after.get(..length)?;
        if kind == XOR_MAPPED_ADDRESS {
            return address(value, id);
        }
        // Values are padded to four bytes.
        rest = after.get(usize::next_multiple_of(length, 4)..)?;
    }
}

fn address(value: &[u8], id: Id) -> Option<SocketAddr> {
    let (&[_, family, high, low], ip) = value.split_first_chunk()?;
    let port = u16::from_be_bytes([high ^ COOKIE[0], low ^ COOKIE[1]]);
    let mask: Vec<u8> = COOKIE.into_iter().chain(id).collect();
    let plain: Vec<u8> = ip.iter().zip(&mask).map(|(byte, mask)| byte ^ mask).collect();
    let ip = match family {
        1 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(plain).ok()?)),
        2 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(plain).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers of RFC 5769, without their signatures.
    const ID: Id = *b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae";

    fn answer_with(attributes: &[u8]) -> Vec<u8> {
        let mut bytes = request(ID).to_vec();
        bytes[..2].copy_from_slice(&ANSWER.to_be_bytes());
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn the_answers_of_the_specification_are_read() {
        let software = b"\x80\x22\x00\x0btest vector\x20";
        let v4 = b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43";
        let v6 = b"\x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9";
        let seen = |attribute: &[u8]| answer(&answer_with(&[software, attribute].concat()), ID);
        assert_eq!(seen(v4), Some("192.0.2.1:32853".parse().unwrap()));
        assert_eq!(seen(v6), Some("[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap()));
    }

    #[test]
    fn nonsense_and_answers_to_others_are_none() {
        let whole = answer_with(b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43");
        assert!(answer(&whole, ID).is_some() && answer(&whole, [0; 12]).is_none());
        for length in 0..whole.len() {
            assert_eq!(answer(&whole[..length], ID), None, "{length} bytes");
        }
        assert_eq!(answer(&answer_with(b"\x00\x20\xff\xff\x00\x01"), ID), None);
        assert_eq!(answer(&answer_with(b"\x00\x20\x00\x08\x00\x03\xa1\x47\xe1\x12\xa6\x43"), ID), None);
        assert_eq!(answer(&request(ID), ID), None);
    }

    #[test]
    fn only_stun_servers_are_asked_and_a_missing_port_is_the_usual_one() {
        let urls = ["stun:a.example", "stun:b.example:19302", "turn:c.example", "stun:[2001:db8::1]", "stun:[::1]:7"];
        let given = [IceServer { urls: urls.map(str::to_owned).to_vec(), ..IceServer::default() }];
        let expected = ["a.example:3478", "b.example:19302", "[2001:db8::1]:3478", "[::1]:7"];
        assert_eq!(servers(&given), expected);
    }

    #[tokio::test]
    async fn a_server_that_answers_is_believed_and_one_that_does_not_costs_little() {
        let server = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let names = [&silent, &server].map(|socket| socket.local_addr().unwrap().to_string());
        let serving = tokio::spawn(async move {
            let mut buffer = [0; 64];
            let (bytes, from) = server.recv_from(&mut buffer).await.unwrap();
            assert_eq!(bytes, HEADER_BYTES);
            let mut bytes = buffer[..HEADER_BYTES].to_vec();
            bytes[..2].copy_from_slice(&ANSWER.to_be_bytes());
            bytes.extend(b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43");
            server.send_to(&bytes, from).await.unwrap();
        });
        let mut sockets = Sockets::bind(&["127.0.0.1".parse().unwrap()].into()).await.unwrap();
        let own = sockets.addresses().next().unwrap();
        let found = seen_from_outside(&mut sockets, &names).await;
        assert_eq!(found, BTreeMap::from([(own, "192.0.2.1:32853".parse().unwrap())]));
        serving.await.unwrap();
        assert!(seen_from_outside(&mut sockets, &names[..1]).await.is_empty());
    }
}
