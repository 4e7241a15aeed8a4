//! From a room link to a network: asks the relay where it listens, and sets the node up to meet the room there.

#[cfg(not(target_arch = "wasm32"))]
mod native;

use std::time::Duration;

use protocol::RoomLink;
use serde::Deserialize;

#[cfg(not(target_arch = "wasm32"))]
pub use native::configure;

/// What `GET /addrs` of a relay answers.
#[derive(Debug, Deserialize)]
struct Addresses {
    addrs: Vec<String>,
}

/// A relay that does not answer within this time is taken for absent.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// More than any relay has to say about its addresses.
pub const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Most relay addresses that are tried: four transports of some interfaces.
const ADDRESSES_MAX: usize = 32;

/// Where a node listens unless it is told, on free ports of every interface: QUIC and TCP for programs, WebTransport and
/// WebSocket for browsers. Pages cannot listen.
#[cfg(not(target_arch = "wasm32"))]
const LISTEN: [&str; 4] = [
    "/ip4/0.0.0.0/udp/0/quic-v1",
    "/ip4/0.0.0.0/tcp/0",
    "/ip4/0.0.0.0/udp/0/quic-v1/webtransport",
    "/ip4/0.0.0.0/tcp/0/ws",
];
#[cfg(target_arch = "wasm32")]
const LISTEN: [&str; 0] = [];

/// How this node takes part in a room's network.
#[derive(Clone, Debug, Default)]
pub struct Means {
    /// Listen here instead of on any port of every interface.
    pub listen: Vec<String>,
    /// Listen nowhere and dial only through the relay.
    pub relayed_only: bool,
    /// STUN and TURN servers for introduced connections.
    pub ice_servers: Vec<net::IceServer>,
}

/// The network's settings for the room of `link`, whose relay listens at the addresses `relays`.
pub fn configure_with(link: &RoomLink, relays: &[String], means: &Means) -> Result<net::Config, String> {
    let listen = match means.listen.as_slice() {
        [] if means.relayed_only => Vec::new(),
        [] => LISTEN.map(str::to_owned).to_vec(),
        given => given.to_vec(),
    };
    let relays = relays.get(..ADDRESSES_MAX).unwrap_or(relays);
    Ok(net::Config {
        listen: parse_all(&listen, "--listen")?,
        relays: parse_all(relays, "the relay's /addrs")?,
        via: parse_all(&link.via, "the room link")?,
        // Without a relay the local network is where a room can meet.
        mdns: link.relay.is_none() && !means.relayed_only,
        relayed_only: means.relayed_only,
        ice_servers: means.ice_servers.clone(),
        ..net::Config::new(link.secret.keys(), &[])
    })
}

/// Reads what `GET /addrs` of the relay `url` answered.
pub fn read_addresses(url: &str, answer: &[u8]) -> Result<Vec<String>, String> {
    let answer: Addresses = serde_json::from_slice(answer)
        .map_err(|error| format!("the relay {url} answers what is not understood ({error}); check the room link"))?;
    if answer.addrs.is_empty() {
        return Err(format!("the relay {url} listens nowhere; its operator must give it a reachable address"));
    }
    Ok(answer.addrs)
}

fn parse_all(texts: &[String], source: &str) -> Result<Vec<net::Multiaddr>, String> {
    let parse = |text: &String| text.parse().map_err(|_| format!("{source} names no valid multiaddress: {text:?}"));
    texts.iter().map(parse).collect()
}
