//! From a room link to a network: asks the relay where it listens, and sets the node up to meet the room there.

use std::time::Duration;

use protocol::RoomLink;
use serde::Deserialize;

/// What `GET /addrs` of a relay answers.
#[derive(Debug, Deserialize)]
struct Addresses {
    addrs: Vec<String>,
}

/// A relay that does not answer within this time is taken for absent.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// More than any relay has to say about its addresses.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Most relay addresses that are tried.
const ADDRESSES_MAX: usize = 16;

/// How this node takes part in a room's network.
#[derive(Clone, Debug, Default)]
pub struct Means {
    /// Listen here instead of on any port of every interface.
    pub listen: Vec<String>,
    /// Listen nowhere and dial only through the relay.
    pub relayed_only: bool,
}

/// The network's settings for the room of `link`.
pub async fn configure(link: &RoomLink, means: &Means) -> Result<net::Config, String> {
    let relays = match &link.relay {
        Some(url) => relay_addresses(url.clone()).await?,
        None => Vec::new(),
    };
    let listen = match means.listen.as_slice() {
        [] if means.relayed_only => Vec::new(),
        [] => vec!["/ip4/0.0.0.0/udp/0/quic-v1".to_owned(), "/ip4/0.0.0.0/tcp/0".to_owned()],
        given => given.to_vec(),
    };
    Ok(net::Config {
        keypair: None,
        listen: parse_all(&listen, "--listen")?,
        relays: parse_all(&relays, "the relay's /addrs")?,
        via: parse_all(&link.via, "the room link")?,
        room: link.secret.keys(),
        // Without a relay the local network is where a room can meet.
        mdns: link.relay.is_none() && !means.relayed_only,
        relayed_only: means.relayed_only,
    })
}

fn parse_all(texts: &[String], source: &str) -> Result<Vec<libp2p::Multiaddr>, String> {
    let parse = |text: &String| text.parse().map_err(|_| format!("{source} names no valid multiaddress: {text:?}"));
    texts.iter().map(parse).collect()
}

async fn relay_addresses(url: String) -> Result<Vec<String>, String> {
    let address = format!("{url}/addrs");
    let ask = move || {
        let config = ureq::Agent::config_builder().timeout_global(Some(ANSWER_TIME_MAX)).build();
        let mut answer = config.new_agent().get(&address).call().map_err(|error| error.to_string())?;
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        serde_json::from_str::<Addresses>(&body.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
    };
    let answer = tokio::task::spawn_blocking(ask).await.map_err(|error| error.to_string())?;
    let mut addresses = answer
        .map_err(|error| format!("the relay {url} does not answer ({error}); check the room link, or start the relay"))?
        .addrs;
    if addresses.is_empty() {
        return Err(format!("the relay {url} listens nowhere; its operator must give it a reachable address"));
    }
    addresses.truncate(ADDRESSES_MAX);
    Ok(addresses)
}
