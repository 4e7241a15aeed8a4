//! Every limit of this crate, each with its reason.

use std::time::Duration;

/// Bytes of a `/run` request: the vendor refuses more.
pub const RUN_BYTES_MAX: usize = 10_000_000;

/// Bytes of a `/runsync` request: the vendor refuses more.
pub const RUNSYNC_BYTES_MAX: usize = 20_000_000;

/// Bytes of a reply. Results are 20 MB at most, and JSON around them is small.
pub const REPLY_BYTES_MAX: usize = 24_000_000;

/// Bytes of a refusal that are read: one sentence, or a web server's page of which the beginning is enough.
pub const REFUSAL_BYTES_MAX: usize = 4 * 1024;

/// Bytes of a text that people are shown; longer ones are cut.
pub const MESSAGE_BYTES_MAX: usize = 512;

/// Bytes of a traceback, which is read apart from what people are shown.
pub const TRACEBACK_BYTES_MAX: usize = 8 * 1024;

/// Bytes of an endpoint's job id: `sync-` and a UUID and `-u1` are 44.
pub const REMOTE_ID_BYTES_MAX: usize = 128;

/// The shortest key: shorter ones stand in pictures by chance, from which they would be redacted. RunPod's have over forty characters.
pub const KEY_BYTES_MIN: usize = 8;

/// Bytes of a key; the vendor's are some 50.
pub const KEY_BYTES_MAX: usize = 512;

/// A connection that takes longer to open never will.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// A call from beginning to end, body included: 10 MB at 4 Mbit/s.
pub const CALL_TIME_MAX: Duration = Duration::from_secs(30);

/// What `/runsync` may take beyond the wait it was asked for: its body.
pub const SYNC_SLACK: Duration = Duration::from_secs(20);

/// Bounds of `wait` at `/runsync`, as documented.
pub const SYNC_WAIT_MIN: Duration = Duration::from_secs(1);
/// See [`SYNC_WAIT_MIN`].
pub const SYNC_WAIT_MAX: Duration = Duration::from_secs(300);

/// The first pause between two looks at a job; shorter ones only spend the rate limit.
pub const POLL_PAUSE_MIN: Duration = Duration::from_millis(250);

/// The longest pause between two looks: what a user waits too long at most.
pub const POLL_PAUSE_MAX: Duration = Duration::from_secs(2);

/// The first pause after a refusal for the rate.
pub const BACKOFF_MIN: Duration = Duration::from_millis(500);

/// The longest pause after refusals for the rate: rates are counted over 10 s.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Items of one reply of a stream; each poll drains what there is.
pub const STREAM_ITEMS_MAX: usize = 10_000;

/// Pictures of one result: more than any worker known gives (A1111's batches of 8, twice).
pub const PICTURES_MAX: usize = 16;

/// Bytes of one picture, decoded: a 2048 x 2048 RGB PNG of noise is 12.6 MB.
pub const PICTURE_BYTES_MAX: usize = 16_000_000;

/// Bytes of a URL in a result: presigned ones with a session token reach 2 KB.
pub const URL_BYTES_MAX: usize = 4 * 1024;

/// Bytes of a stored workflow; a large graph of ComfyUI is 200 KB.
pub const WORKFLOW_BYTES_MAX: usize = 1_000_000;

/// Nesting of a stored workflow: node, inputs, link are 4.
pub const WORKFLOW_DEPTH_MAX: usize = 16;

const _: () = assert!(RUNSYNC_BYTES_MAX < REPLY_BYTES_MAX, "a reply holds the largest result");
const _: () = assert!(PICTURE_BYTES_MAX * 4 / 3 < REPLY_BYTES_MAX, "a reply holds the largest picture in base64");
