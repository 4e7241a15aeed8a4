//! Every limit of the queue, each with its reason.

use std::time::Duration;

/// Bytes of a name: room, user, model, endpoint, bucket, job type, job id.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of an idempotency key: a hash in hex, and a prefix.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// Bytes of a lease owner: a prefix before a name.
pub const OWNER_BYTES_MAX: usize = NAME_BYTES_MAX + 16;

/// Leases a job may have that end without a result; then it fails with what was said.
pub const TRIES_MAX: u32 = 3;

/// A lease ends this long after its holder was last heard of: three heartbeats and a little (awa's rule of three).
pub const LEASE_TIME: Duration = Duration::from_secs(10);

/// How often the holder of a lease is to be heard of.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(3);

/// Bytes of one reason why a try failed, as kept; longer ones are cut.
pub const REASON_BYTES_MAX: usize = 512;

/// Waiting for so long is worth one step of priority, so that nobody starves.
pub const AGEING_EVERY: Duration = Duration::from_secs(60);

/// Priorities a submitter may ask for: this much below and above the usual 0.
pub const PRIORITY_MAX: i32 = 5;

/// Paid attempts of one job: the second only after the first has certainly ended.
pub const ATTEMPTS_MAX: u32 = 2;

/// How long after its `ttl` an attempt nobody claimed is given up: clocks and the last webhook.
pub const EXPIRY_SLACK: Duration = Duration::from_secs(60);

const _: () = assert!(3 * HEARTBEAT_EVERY.as_millis() < LEASE_TIME.as_millis(), "two heartbeats may be lost");
