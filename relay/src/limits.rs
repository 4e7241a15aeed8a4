//! Every limit of the relay, each with its reason. Strangers use it, so nothing is without one.

use std::num::NonZeroU32;
use std::time::Duration;

use protocol::limits::ROOM_PEERS_MAX;

/// Connections in all: two thousand peers with two connections each.
pub const CONNECTIONS_MAX: u32 = 4096;

/// Connections of one peer: one by QUIC and one by TCP, while they overlap.
pub const CONNECTIONS_PER_PEER_MAX: u32 = 2;

/// Connections whose encryption is still being set up.
pub const CONNECTIONS_PENDING_MAX: u32 = 64;

/// Streams of one connection: its circuits, and some for ping, identify and rendezvous.
pub const STREAMS_MAX: usize = 2 * CIRCUITS_PER_PEER_MAX + 32;

/// Streams of one connection whose protocol is still being agreed on.
pub const STREAMS_NEGOTIATING_MAX: usize = 32;

/// A connection without reservation, circuit or request is closed after this time; members ask every second.
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

/// Peers that may be reached through this relay at a time.
pub const RESERVATIONS_MAX: usize = 2048;

/// Reservations of one peer, one for each of its connections.
pub const RESERVATIONS_PER_PEER_MAX: usize = 2;

/// A reservation's life; clients renew it before it ends.
pub const RESERVATION_TIME: Duration = Duration::from_secs(60 * 60);

/// Circuits at a time: a room of 32 behind NAT needs 496.
pub const CIRCUITS_MAX: usize = 1024;

/// Circuits opened by one peer: it may be in rooms with that many others behind NAT.
pub const CIRCUITS_PER_PEER_MAX: usize = 64;

/// Life of a circuit: longer than a picture takes. Members of a room dial again when it ends.
pub const CIRCUIT_TIME_MAX: Duration = Duration::from_secs(60 * 60);

/// Bytes of a circuit, both ways together: about a hundred pictures of 1024 x 1024, whose latents travel for every unit.
pub const CIRCUIT_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Reservations and circuits one peer may ask for at once, and how soon it may ask for one more.
pub const ASKS_PER_PEER: (NonZeroU32, Duration) = (at_once(128), Duration::from_secs(2));

/// The same for one IP address, behind which there may be a school.
pub const ASKS_PER_IP: (NonZeroU32, Duration) = (at_once(2048), Duration::from_millis(100));

/// Shortest and longest life of a registration, in seconds; members ask for 30 and refresh it.
pub const REGISTRATION_SECONDS: (u64, u64) = (10, 120);

/// Registrations of one peer: rooms it may be in.
pub const REGISTRATIONS_PER_PEER_MAX: usize = 8;

/// Registrations under one namespace: a full room, and as many members again that have just left it.
pub const REGISTRATIONS_PER_NAMESPACE_MAX: usize = 2 * ROOM_PEERS_MAX;

/// Registrations in all, and thereby namespaces, of which only those with registrations are kept.
pub const REGISTRATIONS_MAX: usize = 10_000;

/// Bytes of a namespace, as libp2p limits it.
pub const NAMESPACE_BYTES_MAX: usize = 255;

/// Bytes of a signed record: forty long addresses, the key and the signature.
pub const RECORD_BYTES_MAX: usize = 6 * 1024;

/// Bytes of a rendezvous request: a record, a namespace, and some to spare.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// Bytes of a list of members in one answer: a full room whose members have ten addresses each; cookies lead to the rest.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Rendezvous requests of one connection at a time; a member has three in its room.
pub const RENDEZVOUS_STREAMS_MAX: usize = 16;

/// A rendezvous request must be made and its answer taken within this time.
pub const RENDEZVOUS_TIME_MAX: Duration = Duration::from_secs(10);

/// Rendezvous requests a peer may make at once, and how soon one more; members make about one a second and room.
pub const RENDEZVOUS_REQUESTS: (u32, Duration) = (120, Duration::from_millis(100));

/// A peer that exceeds the rendezvous limits is blocked for this long.
pub const BLOCK_TIME: Duration = Duration::from_secs(600);

/// Peers whose requests are counted or that are blocked; beyond it the oldest entry is forgotten.
pub const WATCHED_PEERS_MAX: usize = 2 * CONNECTIONS_MAX as usize;

/// HTTP connections at a time: a browser that loads the page opens six, one that waits for a job's events holds one
/// ([`service::limits::STREAMS_MAX`] of them), a worker two.
pub const HTTP_CONNECTIONS_MAX: usize = 2048;

/// An HTTP connection may be silent for this long before it has asked for anything ...
pub const HTTP_SILENCE_MAX: Duration = Duration::from_secs(10);

/// ... and this long once it has: workers and browsers wait for jobs and events (RunPod's workers 90 s).
pub const HTTP_ANSWER_MAX: Duration = Duration::from_secs(120);

/// A request and its answer must be over after this time. The page, the engine and the demo model are 30 MB: enough for them at
/// half a megabit per second; and streams of events end by themselves before.
pub const HTTP_TIME_MAX: Duration = Duration::from_secs(660);

/// A request has no body that anyone reads; the queue's have, and limits of their own.
pub const HTTP_BODY_BYTES_MAX: usize = 16 * 1024;

/// Bytes of the list of the page's files: [`SITE_FILES_MAX`] entries.
pub const SITE_LIST_BYTES_MAX: u64 = 1024 * 1024;

/// Files of the page; it has a few dozen, a model in parts some hundreds.
pub const SITE_FILES_MAX: usize = 4096;

/// Bytes of a file in memory for each connection that it is sent on.
pub const SITE_CHUNK_BYTES: usize = 64 * 1024;

/// Open connections may take this long to end at a shutdown.
pub const FAREWELL_TIME_MAX: Duration = Duration::from_secs(3);

/// What asks endpoints of the cloud may take so long to hear their answers at a shutdown; an answer that is missed is paid for.
pub const QUEUE_FAREWELL_TIME_MAX: Duration = Duration::from_secs(10);

/// Bytes of the configuration file.
pub const CONFIG_BYTES_MAX: u64 = 64 * 1024;

const fn at_once(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("limits are not zero")
}

const _: () = assert!(CIRCUIT_TIME_MAX.as_secs() <= u32::MAX as u64, "libp2p counts a circuit's seconds in 32 bits");
const _: () = assert!(RECORD_BYTES_MAX + NAMESPACE_BYTES_MAX + 64 <= REQUEST_BYTES_MAX, "every record can be sent");
const _: () = assert!(ANSWER_BYTES_MAX <= 1024 * 1024, "libp2p's client reads no more");
const _: () =
    assert!(HTTP_TIME_MAX.as_secs() > service::limits::STREAM_TIME_MAX.as_secs(), "streams end by themselves");
const _: () = assert!(HTTP_CONNECTIONS_MAX > service::limits::STREAMS_MAX, "streams do not shut others out");
