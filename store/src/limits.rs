//! Every limit of the store, each with its reason.

use std::time::Duration;

/// Jobs of a room that wait or are being done: more than an hour of a fast room, and little enough to be counted at every
/// submission.
pub const UNFINISHED_PER_ROOM_MAX: usize = 10_000;

/// Ended jobs that are kept, of all rooms: some hundred MiB with their inputs.
pub const FINISHED_MAX: usize = 100_000;

/// Items of a job's stream that wait to be fetched: as many as RunPod's own clients fetch in some minutes.
pub const CHUNKS_MAX: usize = 1_000;

/// Bytes of a job's stream in one answer: what RunPod allows an output.
pub const DRAINED_BYTES_MAX: usize = 20 * 1024 * 1024;

/// Leases that one call of `expire` ends: what a database does in a blink.
pub const EXPIRED_MAX: usize = 1_000;

/// Jobs that one transaction of `purge` or `forget` touches, so that nobody waits long behind it.
pub const SWEEP_MAX: usize = 200;

/// The most that is ever held or charged in all: a billion dollars, the largest amount a configuration can name. A sum of so
/// much fits a database's integer by far.
pub const SPENT_MAX: u64 = 1_000_000_000_000_000;

/// Completed jobs whose times are averaged.
pub const MEASURED_JOBS: usize = 20;

/// Relays whose word is heard: many times those that one Postgres serves.
pub const TELLERS_MAX: usize = 64;

/// Ids of changed jobs that a listener may be behind before it has to load anew.
pub const CHANGES_KEPT: usize = 4_096;

/// Characters of a nonce: 128 bits in base32, and room for none that is longer.
pub const NONCE_BYTES_MAX: usize = 32;

/// Calls that wait for SQLite's writer: at 500 a second, four seconds of them.
pub const CALLS_WAITING_MAX: usize = 2_048;

/// Calls that are made durable by one write to the disk. More of them would wait longer for each other than for the disk.
pub const BATCH_MAX: usize = 128;

/// Connections that read an SQLite file beside its writer.
pub const READERS: u32 = 4;

/// Connections to Postgres: it commits what several ask for at once in one write to the disk. Four relays fit into the hundred
/// that a server allows unless told otherwise.
pub const CONNECTIONS: u32 = 20;

/// A connection to Postgres that has been idle for longer is tested before it is used.
pub const TESTED_FOR: Duration = Duration::from_secs(1);

/// How often a transaction is tried that Postgres gave up because of another one, or whose connection had broken before: as
/// often as there are connections, which may all have broken, and once more.
pub const TRANSACTION_TRIES: usize = CONNECTIONS as usize + 1;

/// How long a call waits for a connection before it is told that the database is behind.
pub const CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// How long SQLite waits for another process, such as a backup, to let go of the file.
pub const FILE_WAIT: Duration = Duration::from_secs(5);

/// How long a relay that lost Postgres waits before it listens again.
pub const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// How long a relay that ends takes at most to tell the others its last changes.
pub const LAST_NOTICE_WAIT: Duration = Duration::from_secs(2);

/// Ids in one notice between relays.
pub const NOTICE_IDS_MAX: usize = 64;

const _: () =
    assert!(NOTICE_IDS_MAX * (queue::limits::NAME_BYTES_MAX + 1) + 32 < 8_000, "Postgres takes no longer notice");

/// Limits that a test may narrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`UNFINISHED_PER_ROOM_MAX`].
    pub unfinished_per_room_max: usize,
    /// See [`FINISHED_MAX`].
    pub finished_max: usize,
    /// See [`CHUNKS_MAX`].
    pub chunks_max: usize,
    /// See [`DRAINED_BYTES_MAX`].
    pub drained_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unfinished_per_room_max: UNFINISHED_PER_ROOM_MAX,
            finished_max: FINISHED_MAX,
            chunks_max: CHUNKS_MAX,
            drained_bytes_max: DRAINED_BYTES_MAX,
        }
    }
}
