//! Every limit of the HTTP API, each with its reason.

use std::time::Duration;

use crate::rates::Allowance;

/// Bytes of a token: a room's, attenuated a few times.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// How long a token that a room's member asks for lives; members ask again.
pub const TOKEN_TIME: Duration = Duration::from_secs(60 * 60);

/// The longest life an operator may give a token.
pub const TOKEN_TIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// How often a token may be weakened by its holders.
pub const TOKEN_BLOCKS_MAX: usize = 8;

/// Time that checking a token's rules may take. They are few and simple, so that only a machine that does something else for so
/// long comes near it.
pub const TOKEN_CHECK_TIME_MAX: Duration = Duration::from_secs(2);

/// Facts that checking a token may give rise to.
pub const TOKEN_FACTS_MAX: u64 = 200;

/// Bytes of a request with JSON: a prompt and numbers, or a foreign client's workflow.
pub const JSON_BYTES_MAX: usize = 512 * 1024;

/// Bytes of what a worker delivers: a large picture in base64 (RunPod: 20 MB).
pub const DELIVERY_BYTES_MAX: usize = 20 * 1024 * 1024;

/// Bytes of a picture that is kept: 2048 x 2048 pixels that do not compress, twice.
pub const PICTURE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of a clip that is kept: ten seconds at 50 Mbit/s.
pub const CLIP_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes at a file's start that tell what it is.
pub const SNIFFED_BYTES: usize = 64;

/// How long an address that a job's view gives for a picture is good: as long as a page is looked at.
pub const FILE_SIGNATURE_TIME: Duration = Duration::from_secs(60 * 60);

/// How long an address for an upload is good.
pub const UPLOAD_SIGNATURE_TIME: Duration = Duration::from_secs(15 * 60);

/// How long finished jobs and their files are kept unless an operator says otherwise: a week.
pub const KEEP_TIME: Duration = Duration::from_secs(7 * 86_400);

/// Bytes of a file with a secret: keys of every vendor are shorter.
pub const SECRET_BYTES_MAX: usize = 4 * 1024;

/// How long a request's body may take: slow lines manage a picture, and nobody holds a connection with nothing.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// How long a handler may take that does not wait for an event; then something is broken.
pub const HANDLER_TIME_MAX: Duration = Duration::from_secs(30);

/// How long a worker that asks for work is kept waiting: below the 30 s at which proxies lose patience.
pub const TAKE_TIME_MAX: Duration = Duration::from_secs(25);

/// How soon after a change somebody who waits for work looks: changes come in bursts.
pub const TAKE_PAUSE: Duration = Duration::from_millis(50);

/// Models that a worker may name.
pub const MODELS_MAX: usize = 64;

/// Bytes of a worker's own name, which goes into its id.
pub const WORKER_NAME_BYTES_MAX: usize = 32;

/// Bytes of why a worker gives up; more is cut when it is kept.
pub const WORKER_REASON_BYTES_MAX: usize = 4 * 1024;

/// Event streams and sockets at a time; each holds a task and a connection.
pub const STREAMS_MAX: usize = 1_024;

/// How long a stream of events lasts; the client comes again with its token, which is checked again.
pub const STREAM_TIME_MAX: Duration = Duration::from_secs(10 * 60);

/// How often a stream of events says something even if nothing happens, so that proxies keep it.
pub const STREAM_ALIVE_EVERY: Duration = Duration::from_secs(15);

/// How often a stream looks at its job by itself: for notices that were lost, and for its place in the queue.
pub const STREAM_LOOK_EVERY: Duration = Duration::from_secs(3);

/// Bytes of a message to a socket, on which clients have nothing to say.
pub const SOCKET_MESSAGE_BYTES_MAX: usize = 1024;

/// Jobs that the list of a room shows.
pub const LISTED_MAX: usize = 200;

/// How long a job with a foreign client's own input is expected to take, until one was measured: RunPod's usual picture.
pub const RAW_EXPECTED: Duration = Duration::from_secs(30);

/// Clients that are remembered for their rates: some MiB.
pub const RATE_KEYS_MAX: usize = 16 * 1024;

/// Addresses that are read of a proxy's header.
pub const FORWARDS_MAX: usize = 16;

/// Questions: many pages of one household, and clients that poll every quarter of a second.
pub const RATE_READS: Allowance = Allowance { per_second: 50.0, burst: 500 };

/// Submissions: as many as a person or a small script makes; operators with more raise it.
pub const RATE_SUBMITS: Allowance = Allowance { per_second: 20.0, burst: 200 };

/// Proofs of membership: one an hour is usual.
pub const RATE_TOKENS: Allowance = Allowance { per_second: 0.5, burst: 30 };

/// Files.
pub const RATE_UPLOADS: Allowance = Allowance { per_second: 5.0, burst: 60 };

/// Workers of one household: each beats every three seconds and asks again when it was refused.
pub const RATE_WORK: Allowance = Allowance { per_second: 50.0, burst: 500 };

/// Pictures of one job: what one submission may ask for ([`queue::limits::IMAGES_MAX`]).
pub const FILES_MAX: usize = queue::limits::IMAGES_MAX as usize;

/// Bytes of a worker's output beside its pictures: it stays in the database.
pub const KEPT_JSON_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of pictures that an answer to a foreign client holds (RunPod: 20 MB); further ones are addresses.
pub const WHOLE_BYTES_MAX: usize = 20 * 1024 * 1024;

/// A worker that was not heard of for so long is not counted upon: three pings of RunPod's workers, which ping every 10 s.
pub const WORKER_SEEN_TIME: Duration = Duration::from_secs(35);

/// Workers that are remembered.
pub const WORKERS_MAX: usize = 4096;

/// Bytes of what a relay tells others of its workers: some thousand of them with a few models each.
pub const TOLD_BYTES_MAX: usize = 512 * 1024;

/// Jobs that are remembered of one worker.
pub const WORKER_JOBS_MAX: usize = 64;

/// How often whoever waits for a change looks by itself, because a notice may be lost.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

const _: () = assert!(TAKE_TIME_MAX.as_secs() < HANDLER_TIME_MAX.as_secs());
const _: () = assert!(CLIP_BYTES_MAX >= PICTURE_BYTES_MAX && PICTURE_BYTES_MAX >= DELIVERY_BYTES_MAX);

/// How often leases are looked for that nobody renewed: a tenth of what one lasts.
pub const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// How often old jobs and files are forgotten.
pub const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);
