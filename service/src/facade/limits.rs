//! Limits of what foreign clients and workers may ask, each with its reason.

use std::time::Duration;

/// How long `/runsync` and `/status-sync` wait unless they are told: RunPod's own.
pub const SYNC_WAIT: Duration = Duration::from_secs(90);

/// Bounds of what they may be told, as documented.
pub const SYNC_WAIT_MIN: Duration = Duration::from_secs(1);
/// See [`SYNC_WAIT_MIN`].
pub const SYNC_WAIT_MAX: Duration = Duration::from_secs(300);

/// How long `/stream` waits for something to say. RunPod's JavaScript client asks again at once, its Python client hangs up
/// after 10 s.
pub const STREAM_WAIT: Duration = Duration::from_secs(3);

/// How long a worker's question for a job is held: RunPod's own client hangs up after 90 s, proxies after 60 s.
pub const TAKE_WAIT: Duration = Duration::from_secs(50);

/// How long a worker's question for jobs to stop is held. It proves for so long that the worker is there.
pub const STOP_WAIT: Duration = Duration::from_secs(20);

/// Jobs that one `job-take-batch` gives.
pub const BATCH_MAX: usize = 16;

/// How soon after a change a worker that waits looks again: changes come in bursts.
pub const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// How long a foreign worker that says nothing keeps its leases. RunPod's workers ping every 10 s unless told otherwise, so two
/// pings may be lost; `queue`'s own rule of 10 s is for workers that know it.
pub const PATIENCE: Duration = Duration::from_secs(35);

/// Leases that a relay keeps alive for foreign workers.
pub const KEPT_MAX: usize = 4096;

/// Bytes of one streamed item: RunPod's own.
pub const CHUNK_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of what a worker says of its progress; it is shown, and replaced with every heartbeat.
pub const NOTE_BYTES_MAX: usize = 4 * 1024;

/// Jobs of one ping; RunPod's own worker has as many as its concurrency.
pub const PINGED_MAX: usize = 64;

/// Bounds of `policy.executionTimeout`, as documented.
pub const EXECUTION_MIN: Duration = Duration::from_secs(5);
/// Bounds of `policy.ttl`, as documented.
pub const TTL_MIN: Duration = Duration::from_secs(10);
/// The longest of both.
pub const DEADLINE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Bytes of a webhook's address, which is kept and not called.
pub const WEBHOOK_BYTES_MAX: usize = 2 * 1024;

/// Jobs that `/requests` lists and `/health` looks through.
pub const LISTED_MAX: usize = 200;

/// Waiting jobs that one `/purge-queue` of somebody who does not operate looks through for his own.
pub const PURGED_MAX: usize = 10_000;

/// A client of OpenAI's or A1111's API is kept waiting so long for its pictures.
pub const PICTURES_WAIT: Duration = Duration::from_secs(300);

const _: () = assert!(PATIENCE.as_secs() > 3 * 10 && STOP_WAIT.as_secs() < PATIENCE.as_secs());
const _: () = assert!(STREAM_WAIT.as_secs() < 10);
