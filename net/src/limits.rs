//! Every limit of this crate beyond those of the protocol, each with its reason.
#![allow(dead_code, reason = "some limits are those of browsers, and some those of listeners")]

use std::time::Duration;

use protocol::limits::{BODY_BYTES_MAX, CHUNK_BYTES_MAX, CREDIT_BYTES, INBOX_MESSAGES_MAX, ROOM_PEERS_MAX};

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

/// Addresses known per peer: some interfaces, four transports, two relays.
pub const PEER_ADDRESSES_MAX: usize = 32;

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

/// A member that came through a relay is announced this late, if a direct connection is still being tried.
pub const UPGRADE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Introductions to a member are tried this often, the first at once.
pub const UPGRADES_MAX: u32 = 5;

/// Pause after the first failed one; it doubles each time.
pub const UPGRADE_PAUSE: Duration = Duration::from_secs(4);

/// The peer with the larger id leaves the first try to the other for this long.
pub const UPGRADE_YIELD: Duration = Duration::from_secs(4);

/// Two peers must have introduced themselves and be connected within this time.
pub const SIGNALLING_TIME_MAX: Duration = Duration::from_secs(10);

/// Introductions asked for by others at a time, one for each peer; a room of thirty browsers fills up in a few rounds.
pub const SIGNALLINGS_MAX: usize = 16;

/// Bytes of a message of an introduction: Chromium's longest description is 2 KiB.
pub const SIGNAL_BYTES_MAX: usize = 16 * 1024;

/// Sockets of a connection between a native node and whoever it was introduced to: one for each of some interfaces and two
/// address families.
pub(crate) const WEBRTC_SOCKETS_MAX: usize = 8;

/// Channels of such a connection, those included that are closing; a peer that lets none of them close is a flood.
pub(crate) const WEBRTC_CHANNELS_MAX: usize = 4 * STREAMS_MAX;

/// A channel whose stream is gone is left to the other side to close for so long by the side that opened it, and by the
/// other one for [`WEBRTC_UNCLOSED_MAX`]. Two farewells that cross spoil str0m's next channel of the same number, which
/// browsers use again at once; browsers say theirs first.
pub(crate) const WEBRTC_CLOSE_WAIT: Duration = Duration::from_millis(500);

/// See [`WEBRTC_CLOSE_WAIT`].
pub(crate) const WEBRTC_UNCLOSED_MAX: Duration = Duration::from_secs(5);

/// Bytes of a datagram of such a connection: they are made to fit 1500, and longer ones are cut, which spoils them.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 2048;

/// Such a connection that is being closed sends what it was given for at most so long.
pub(crate) const WEBRTC_FAREWELL_MAX: Duration = Duration::from_secs(1);

/// STUN servers are asked so many times before a node does without.
pub(crate) const STUN_TRIES: u32 = 3;

/// Pause between two questions to STUN servers: one that is further away helps nobody to be fast.
pub(crate) const STUN_PAUSE: Duration = Duration::from_millis(300);

/// Candidates taken from the other side: some interfaces, two address families, STUN and TURN.
pub const CANDIDATES_MAX: usize = 64;

/// Received bytes of one browser connection that wait to be read: neither WebSocket nor data channels can be held back,
/// and members keep within [`protocol::limits::CREDIT_BYTES`]; more closes the connection.
pub const BROWSER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes that a browser may hold for us before they are sent; beyond it writing waits.
pub const SEND_BYTES_MAX: u32 = 1024 * 1024;

/// Writing goes on when a browser holds fewer bytes than this.
pub const SEND_BYTES_LOW: u32 = 256 * 1024;

/// A browser's WebSocket does not tell when it has sent what it holds; it is looked at this often then.
pub(crate) const SEND_LOOK_EVERY: Duration = Duration::from_millis(5);

/// Bytes given to a browser at once on a WebSocket, so that what is behind them is not held up.
pub(crate) const PIECE_BYTES_MAX: usize = 64 * 1024;

/// WebTransport gets this head start over WebSocket, which would win on short ways and is slower afterwards.
pub const WEBSOCKET_DELAY: Duration = Duration::from_millis(500);

/// Silence after which a WebRTC connection is lost: each side pings the other every two seconds, and ICE alone
/// takes seven to notice a page that is gone.
pub const WEBRTC_SILENCE_MAX: Duration = Duration::from_millis(4500);

/// Bytes of a browser's error text that are kept.
pub(crate) const ERROR_BYTES_MAX: usize = 512;

/// Measurements that a node makes or serves at a time: they are for people who compare paths, not for programs.
pub const PROBES_MAX: usize = 2;

/// Bytes of one measurement, each way: a second on the fastest path that browsers have.
pub const PROBE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A measurement that takes longer is given up.
pub const PROBE_TIME_MAX: Duration = Duration::from_secs(30);

/// Measurements that one member may ask for; more are refused until it joins again.
pub const PROBES_PER_MEMBER_MAX: u32 = 64;

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

/// Streams a WebTransport connection has for itself: its session, and the one of the Noise handshake.
pub(crate) const WEBTRANSPORT_OWN_STREAMS: u32 = 2;

/// Unidirectional streams of a WebTransport connection: control, two for header compression, and some that HTTP/3 reserves
/// for exercise.
pub(crate) const WEBTRANSPORT_CONTROL_STREAMS_MAX: u32 = 8;

/// Datagrams that HTTP/3 makes us accept, and that nobody reads.
pub(crate) const WEBTRANSPORT_DATAGRAM_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a stream that its reader has not taken; libp2p's QUIC has the same.
pub(crate) const WEBTRANSPORT_STREAM_BYTES_MAX: u32 = 10_000_000;

/// Bytes of all streams of a connection together, so that one stream does not fill it; libp2p's QUIC has the same.
pub(crate) const WEBTRANSPORT_CONNECTION_BYTES_MAX: u32 = 15_000_000;

/// Connections of one WebTransport socket, handshakes included: as many as a relay serves. The swarm counts all transports'.
pub(crate) const WEBTRANSPORT_CONNECTIONS_MAX: usize = 4096;

/// Connections that have sent their first packet and are not taken yet; more are refused.
pub(crate) const WEBTRANSPORT_INCOMING_MAX: usize = 256;

/// Bytes kept of each of those: the first packets of a handshake.
pub(crate) const WEBTRANSPORT_INCOMING_BYTES_MAX: u64 = 64 * 1024;

/// Whether certificates are due to change is looked at this often: a machine that slept has missed the moment.
pub(crate) const CALENDAR_PAUSE_MAX: Duration = Duration::from_secs(10 * 60);

/// A message of WebSocket: browsers send what was written at once, at most a few Noise packets of 64 KiB.
pub const WEBSOCKET_MESSAGE_BYTES_MAX: usize = 1024 * 1024;

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

const _: () = assert!(BROWSER_BYTES_MAX >= 4 * CREDIT_BYTES as usize, "members that keep the rules never reach it");
const _: () = assert!(WEBRTC_SILENCE_MAX.as_millis() > 2 * PING_EVERY.as_millis(), "one late ping is no silence");
const _: () = assert!(INBOX_BYTES_MAX >= BODY_BYTES_MAX, "the largest body must fit the inbox");
const _: () = assert!(INBOX_MESSAGES_MAX <= PRESENCES_QUEUED_MAX);
