//! What the node holds: the settings it starts the network with, and the handle it speaks through.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use protocol::frame::encode_header;
use protocol::{Message, PeerId, Presence, RoomKeys};
use tokio::sync::{oneshot, watch};

use crate::event::{DropReason, Path};
use crate::limits::{PROBES_MAX, VIA_MAX};
use crate::platform::Sockets;
use crate::probe::{self, Measured, Probe, ProbeError};
use crate::roster::{Outgoing, Roster, SendError, Traffic};

/// How to join a room.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's identity; `None` for a fresh one.
    pub keypair: Option<Keypair>,
    /// Addresses to listen on, for example `/ip4/0.0.0.0/udp/0/quic-v1`.
    pub listen: Vec<Multiaddr>,
    /// Relays to meet at, each ending in `/p2p/` and the relay's peer id; several addresses of one relay may be given.
    pub relays: Vec<Multiaddr>,
    /// Members to dial directly, from the room link; without `/p2p/` whoever answers is asked for its proof.
    pub via: Vec<Multiaddr>,
    /// The room.
    pub room: RoomKeys,
    /// Look for members on the local network.
    pub mdns: bool,
    /// Neither listen nor dial directly: every connection to a member goes through a relay.
    pub relayed_only: bool,
    /// STUN and TURN servers for introduced connections; none are asked unless given. Native nodes use STUN alone.
    pub ice_servers: Vec<IceServer>,
}

/// A server that helps two peers to find a path to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IceServer {
    /// `stun:host:port` or `turn:host:port` URLs.
    pub urls: Vec<String>,
    /// User name at a TURN server; empty if it needs none.
    pub username: String,
    /// Password there.
    pub credential: String,
}

impl IceServer {
    /// The STUN server at `host`, or `host:port`; what stands before it in its URL may be there.
    pub fn stun(host: &str) -> Self {
        let host = host.strip_prefix("stun:").unwrap_or(host);
        Self { urls: vec![format!("stun:{host}")], ..Self::default() }
    }
}

impl Config {
    /// Joins `room` with a fresh identity, listening on free ports of the addresses `ips`: QUIC, TCP, WebTransport and
    /// WebSocket. Browsers listen nowhere.
    pub fn new(room: RoomKeys, ips: &[IpAddr]) -> Self {
        let listen = ips.iter().flat_map(|ip| {
            let base = Multiaddr::from(*ip);
            let with = |text: &str| {
                let rest: Multiaddr = text.parse().expect("a constant multiaddress parses");
                rest.iter().fold(base.clone(), Multiaddr::with)
            };
            ["/udp/0/quic-v1", "/tcp/0", "/udp/0/quic-v1/webtransport", "/tcp/0/ws"].map(with)
        });
        Self {
            keypair: None,
            listen: listen.collect(),
            relays: Vec::new(),
            via: Vec::new(),
            room,
            mdns: false,
            relayed_only: false,
            ice_servers: Vec::new(),
        }
    }
}

/// Why the network could not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Someone else listens there.
    #[error("{address} is in use; stop the program that uses it, or choose another port (0 picks a free one)")]
    AddressInUse {
        /// The address.
        address: Multiaddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What the system says.
        reason: String,
    },
    /// A relay's address lacks the relay's peer id.
    #[error(
        "the relay address {address} must end in /p2p/ and the relay's peer id; take it from the relay's /addrs page"
    )]
    RelayAddress {
        /// The address.
        address: Multiaddr,
    },
    /// Every relay listens only where a browser cannot connect.
    #[error(
        "the relay listens neither on WebTransport nor on a WebSocket that this page may use; its operator must add one"
    )]
    RelayOutOfReach,
    /// A STUN or TURN server's address or password cannot be used.
    #[error("the STUN or TURN servers cannot be used: {0}")]
    IceServers(String),
    /// This page can open no connection at all.
    #[error("this browser offers neither WebTransport nor WebSocket, so it reaches nobody; use another browser")]
    Unable,
    /// The transports could not be set up.
    #[error("the network could not be set up: {0}")]
    Setup(String),
}

/// What the handles and the loop share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub roster: Arc<Roster>,
    orders: Mutex<Orders>,
    sockets: Sockets,
}

/// What the node wants of the loop.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// The newest presence to tell the room, until the loop takes it.
    pub presence: Option<Presence>,
    /// Members to dial.
    pub via: Vec<Multiaddr>,
    /// Streams to measure with.
    pub probes: Vec<probe::Order>,
    pub is_shutdown: bool,
}

impl Shared {
    pub fn new(roster: Arc<Roster>, sockets: Sockets) -> Self {
        Self { roster, orders: Mutex::default(), sockets }
    }

    /// Takes what is to be done once; the shutdown stays ordered.
    pub fn take_orders(&self) -> Orders {
        let mut orders = self.orders();
        let (via, probes) = (std::mem::take(&mut orders.via), std::mem::take(&mut orders.probes));
        Orders { presence: orders.presence.take(), via, probes, is_shutdown: orders.is_shutdown }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().expect("no code panics while it holds the orders")
    }
}

/// Speaks to the room. Clones speak to the same one; when the last is dropped the network shuts down.
#[derive(Clone, Debug)]
pub struct Handle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    local: PeerId,
    shared: Arc<Shared>,
    /// Becomes true when the loop has ended.
    ended: watch::Receiver<bool>,
}

impl Handle {
    pub(crate) fn new(local: PeerId, shared: Arc<Shared>, ended: watch::Receiver<bool>) -> Self {
        Self { inner: Arc::new(Inner { local, shared, ended }) }
    }

    /// Closes all links cleanly, so that members see this node leave at once, and waits until that is done. Messages
    /// already sent are delivered first, within [`crate::limits::FAREWELL_TIME_MAX`].
    pub async fn shutdown(self) {
        self.inner.order_shutdown();
        let mut ended = self.inner.ended.clone();
        // An error means that the loop is gone, which is what we wait for.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Closes all connections at once, for a page that is about to be gone; what is under way is lost. In a browser the
    /// sockets are closed when this returns; a native node does the same as in [`Handle::shutdown`], without waiting.
    pub fn farewell(&self) {
        self.inner.order_shutdown();
        self.inner.shared.sockets.close_all();
    }

    /// This node's peer id.
    pub fn local_peer(&self) -> PeerId {
        self.inner.local.clone()
    }

    /// Sends `message`, and `body` unless it is empty, on the best link of the member `to`.
    ///
    /// Never waits. Messages with a body keep their order among themselves, and so do those without one, but the latter
    /// overtake the former. A taken message may still be lost when the member's links break; then its `Left` follows.
    pub fn send(&self, to: &PeerId, message: &Message, body: Arc<[u8]>) -> Result<(), SendError> {
        let header = encode_header(message, body.len()).map_err(|_| SendError::TooLong)?;
        self.inner.shared.roster.send(to, Outgoing { header, body })
    }

    /// Tells the room about this node, now and to members who join later; only the newest presence counts.
    ///
    /// Its sequence must grow, also over restarts with the same identity: use the time.
    pub fn publish(&self, presence: Presence) {
        self.inner.shared.orders().presence = Some(presence);
        self.inner.shared.roster.wake.notify_one();
    }

    /// Dials another member, as [`Config::via`] does; false when too many such orders wait.
    pub fn dial(&self, address: Multiaddr) -> bool {
        let mut orders = self.inner.shared.orders();
        let fits = orders.via.len() < VIA_MAX;
        if fits {
            orders.via.push(address);
            self.inner.shared.roster.wake.notify_one();
        }
        fits
    }

    /// Measures the path to a member. For benchmarks: it competes with everything else on that path.
    pub async fn probe(&self, peer: &PeerId, probe: Probe) -> Result<Measured, ProbeError> {
        let (reply, stream) = oneshot::channel();
        {
            let mut orders = self.inner.shared.orders();
            if orders.probes.len() >= PROBES_MAX {
                return Err(ProbeError::Busy);
            }
            orders.probes.push(probe::Order { peer: peer.clone(), reply });
        }
        self.inner.shared.roster.wake.notify_one();
        let (path, stream) = stream.await.map_err(|_| ProbeError::Absent)?;
        let stream = stream.await.map_err(|_| ProbeError::Refused)?;
        probe::measure(stream, path, probe).await
    }

    /// Disconnects a member and refuses it for [`crate::limits::REFUSED_TIME`].
    pub fn disconnect(&self, peer: &PeerId) {
        self.inner.shared.roster.drop_peer(peer, DropReason::Asked);
    }

    /// The members, each with the path that carries what is sent to it.
    pub fn members(&self) -> BTreeMap<PeerId, Path> {
        self.inner.shared.roster.members()
    }

    /// Where a peer was reached directly last: at the other end of what was measured, not as it says of itself. `None` for
    /// those known only through a relay, and between browsers, where nobody tells.
    pub fn origin(&self, peer: &PeerId) -> Option<IpAddr> {
        self.inner.shared.roster.origin(peer)
    }

    /// How long the last ping of each member took, there and back on the path that carries what is sent.
    pub fn round_trips(&self) -> BTreeMap<PeerId, Duration> {
        self.inner.shared.roster.round_trips()
    }

    /// Bytes exchanged with every peer that is or was a member, without encryption's and transport's own.
    pub fn traffic(&self) -> BTreeMap<PeerId, Traffic> {
        self.inner.shared.roster.traffic()
    }
}

impl Inner {
    fn order_shutdown(&self) {
        self.shared.orders().is_shutdown = true;
        self.shared.roster.wake.notify_one();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.order_shutdown();
    }
}
