//! Every limit of this crate beyond those of the protocol, each with its reason.

use std::time::Duration;

use protocol::limits::{BODY_BYTES_MAX, CHUNK_BYTES_MAX, INBOX_MESSAGES_MAX, ROOM_PEERS_MAX};

/// Bytes of a handshake message: a [`protocol::membership::Hello`] encodes to 63.
pub const HANDSHAKE_BYTES_MAX: usize = 128;

/// A half-received frame or body, and a write, must make [`PROGRESS_BYTES_MIN`] of progress within this time.
pub const PROGRESS_TIME_MAX: Duration = Duration::from_secs(10);

/// Progress that counts: a twentieth of what a link of 256 kbit/s carries in [`PROGRESS_TIME_MAX`].
pub const PROGRESS_BYTES_MIN: usize = 16 * 1024;

/// A link that is being closed may take this long to deliver what was already given to it.
pub const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);

/// Closing a connection may take this long before its sockets are dropped as they are.
pub const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// Bytes of received bodies that may wait for the node's loop, over all links: a handful of the largest.
pub const INBOX_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Unit in which [`INBOX_BYTES_MAX`] is counted.
pub(crate) const INBOX_PAGE_BYTES: usize = 1024;

/// Bytes asked from a stream at once.
pub(crate) const READ_BYTES: usize = CHUNK_BYTES_MAX;

/// A gossip message: a sealed presence (4 KiB) with its author's key, signature and topic.
pub const GOSSIP_BYTES_MAX: usize = 8 * 1024;

/// Gossip events of a connection kept until its peer has proved membership; a member sends two (its extensions and its
/// subscriptions) before it hears that we accepted it.
pub(crate) const GOSSIP_HELD_MAX: usize = 8;

/// Presences waiting for the node's loop; more are dropped, because newer ones follow.
pub const PRESENCES_QUEUED_MAX: usize = 256;

/// Authors whose last sequence is remembered: every member, and as many that came and went.
pub const AUTHORS_MAX: usize = 4 * ROOM_PEERS_MAX;

/// Peers whose traffic is remembered after they left.
pub const TRAFFIC_PEERS_MAX: usize = 4 * ROOM_PEERS_MAX;

/// A peer that broke the protocol, failed the handshake or was too slow is refused for this long.
pub const REFUSED_TIME: Duration = Duration::from_secs(30);

/// Refused peers remembered; beyond it the one with the least time left is forgotten.
pub const REFUSED_PEERS_MAX: usize = 1024;

/// Peers known from rendezvous, mDNS and the room link.
pub const KNOWN_PEERS_MAX: usize = 2 * ROOM_PEERS_MAX;

/// Addresses tried per peer: some interfaces, two transports, two relays.
pub const PEER_ADDRESSES_MAX: usize = 16;

/// A peer that rendezvous has not named for this long is forgotten; its registration is refreshed six times meanwhile.
pub const KNOWN_TIME_MAX: Duration = Duration::from_secs(60);

/// Members named by address: those of a room link, and some that people add by hand.
pub const VIA_MAX: usize = 32;

/// Relays that members name in their addresses, beyond our own.
pub const FOREIGN_RELAYS_MAX: usize = 64;

/// Dials started in one turn of the loop, so that a room of 256 does not open 256 sockets at once.
pub const DIALS_PER_TURN_MAX: usize = 16;

/// The peer with the larger id leaves the first dial to the other for this long.
pub const DIAL_YIELD: Duration = Duration::from_millis(1500);

/// A direct dial gets this head start before the way through the relay is tried.
pub const CIRCUIT_DELAY: Duration = Duration::from_millis(1500);

/// First and longest pause between dials of one peer or relay; it doubles in between.
pub const DIAL_PAUSE_MIN: Duration = Duration::from_secs(1);
/// See [`DIAL_PAUSE_MIN`].
pub const DIAL_PAUSE_MAX: Duration = Duration::from_secs(15);

/// Members that are only connected through a relay are dialled directly this often.
pub const UPGRADE_EVERY: Duration = Duration::from_secs(20);

/// A better link must have stood this long before lesser ones are closed, so that both ends have accepted it.
pub const SETTLE_TIME: Duration = Duration::from_secs(1);

/// How long a rendezvous registration lives, so that peers that vanish are soon forgotten.
pub const REGISTRATION_TIME: Duration = Duration::from_secs(30);

/// A registration is refreshed this often.
pub const REGISTER_EVERY: Duration = Duration::from_secs(10);

/// New members are looked for this often.
pub const DISCOVER_EVERY: Duration = Duration::from_secs(1);

/// An unanswered rendezvous request is repeated after this time.
pub const RENDEZVOUS_ANSWER_MAX: Duration = Duration::from_secs(5);

/// A lost circuit reservation is asked for again after this time.
pub const RESERVE_PAUSE: Duration = Duration::from_secs(3);

/// The loop looks at its clocks this often.
pub(crate) const TURN_EVERY: Duration = Duration::from_millis(200);

/// Silence after which a QUIC connection is lost; a killed peer is noticed within this time.
pub const QUIC_SILENCE_MAX: Duration = Duration::from_secs(4);

/// QUIC says that it is alive this often.
pub const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Peers are pinged this often: notices lost TCP connections and lost peers behind circuits.
pub const PING_EVERY: Duration = Duration::from_secs(2);

/// A ping without an answer for this long loses the connection; an overloaded machine may take seconds.
pub const PING_TIME_MAX: Duration = Duration::from_secs(8);

/// Connections without any stream are closed after this time.
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// Connections: one to every member, as many in passing, and the relays.
pub const CONNECTIONS_MAX: u32 = 2 * ROOM_PEERS_MAX as u32 + 16;

/// Connections to one peer: both sides may dial, directly and through a relay.
pub const CONNECTIONS_PER_PEER_MAX: u32 = 4;

/// Connections whose encryption is still being set up.
pub const CONNECTIONS_PENDING_MAX: u32 = 64;

/// Inbound streams of one connection whose protocol is still being agreed on.
pub const STREAMS_NEGOTIATING_MAX: usize = 16;

/// Streams of one connection: the data link, ping, identify, gossip both ways, rendezvous, and circuits of eight peers.
pub const STREAMS_MAX: usize = 64;

const _: () = assert!(INBOX_BYTES_MAX >= BODY_BYTES_MAX, "the largest body must fit the inbox");
const _: () = assert!(INBOX_MESSAGES_MAX <= PRESENCES_QUEUED_MAX);
