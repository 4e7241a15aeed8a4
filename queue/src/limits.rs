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

/// Bytes of a catalogue of job types: many times the one that is shipped. Whoever reads a file stops here.
pub const CATALOGUE_BYTES_MAX: usize = 256 * 1024;

/// Job types of a catalogue: more than a person can choose from.
pub const TYPES_MAX: usize = 128;

/// Bytes of the words that a job type is shown by.
pub const LABEL_BYTES_MAX: usize = 64;

/// Bytes of a job type's badge: a word or two in a corner.
pub const BADGE_BYTES_MAX: usize = 24;

/// Largest picture of a job type in pixels: 2048 x 2048, what whole-image workers can still decode in 24 GB.
pub const PIXELS_MAX: u32 = 2048 * 2048;

/// Shortest side of a picture in pixels: one latent cell of an autoencoder with six upsamplers.
pub const SIDE_PIXELS_MIN: u32 = 64;

/// Sides are multiples of this: the latent cell of every model in use.
pub const SIDE_PIXELS_STEP: u32 = 8;

/// Pictures that one submission may ask for, each a job of its own: what clients of OpenAI's API may ask for, and a few.
pub const IMAGES_MAX: u32 = 16;

/// Longest clip of a job type in seconds: video models in use make ten.
pub const CLIP_SECONDS_MAX: f32 = 60.0;

/// Longest expected time of a job type: a day.
pub const EXPECTED_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Without `overflow_after_s`, a job is late when it takes this many times what its type expects...
pub const OVERFLOW_AFTER_TIMES: u32 = 3;

/// ... and at least so long: below this, an endpoint's cold start is no help.
pub const OVERFLOW_AFTER_MIN: Duration = Duration::from_secs(10);

/// Bytes of a file name in the result store: a job id, a number and an ending.
pub const FILE_NAME_BYTES_MAX: usize = 128;

/// Failures within [`BREAKER_WINDOW`] that open an endpoint's breaker.
pub const BREAKER_FAILURES_MAX: usize = 3;

/// How long a failure counts against an endpoint.
pub const BREAKER_WINDOW: Duration = Duration::from_secs(10 * 60);

/// How long an open breaker stays open before one job may try the endpoint: twice RunPod's usual time to replace a worker.
pub const BREAKER_COOL_DOWN: Duration = Duration::from_secs(5 * 60);

/// A probe of which nothing was heard for so long is lost, and another one may go: longer than the longest attempt
/// (`ttl` 300 s, execution 120 s, [`EXPIRY_SLACK`]).
pub const BREAKER_PROBE_LOST: Duration = Duration::from_secs(15 * 60);

/// By how many percent another processor must be faster before a job changes its way: estimates are not better than that.
pub const ADVANTAGE_PERCENT: u32 = 20;

const _: () = assert!(3 * HEARTBEAT_EVERY.as_millis() < LEASE_TIME.as_millis(), "two heartbeats may be lost");
const _: () =
    assert!(PIXELS_MAX / SIDE_PIXELS_MIN >= protocol::limits::SIDE_PIXELS_MAX, "the longest side fits a picture");
const _: () = assert!(IMAGES_MAX <= protocol::limits::IMAGES_MAX);
