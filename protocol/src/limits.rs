//! Every limit on what a stranger may send, in one place, each with its reason.

use std::time::Duration;

/// A base58 ed25519 peer id has 52 characters; an RSA one 46.
pub const PEER_ID_BYTES_MAX: usize = 64;

/// A control header is some ids and a prompt; gossipsub's own default message limit is the same.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Deeper nesting than any message has means an attack on the decoder's stack.
pub const HEADER_DEPTH_MAX: usize = 16;

/// A 1024 x 1024 RGB picture in f32 is 12 MiB; nothing we send in one piece is larger than a 1152 x 1152 one.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a multistep sampler remembers beside the latent, in tensors of the latent's size: second order needs one.
pub const HISTORY_TENSORS_MAX: usize = 1;

/// A painting between two stages: its latent and history, each of which fits a body, its conditioning, and its job.
pub const SNAPSHOT_BYTES_MAX: usize = (2 + HISTORY_TENSORS_MAX) * BODY_BYTES_MAX + 2 * HEADER_BYTES_MAX;

/// Bodies travel in pieces of this size, so that a heartbeat never waits behind a picture.
pub const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// Body bytes a sender may have under way before the receiver grants more.
pub const CREDIT_BYTES: u32 = 1024 * 1024;

/// Messages waiting to be sent to one peer; a peer that reads slower than this is dropped.
pub const OUTBOX_MESSAGES_MAX: usize = 64;

/// Received messages waiting for the node's loop; full means the link stops reading.
pub const INBOX_MESSAGES_MAX: usize = 256;

/// A presence message is a name and a few model ids.
pub const PRESENCE_BYTES_MAX: usize = 4 * 1024;

/// Peers that a presence names as caught in wrong answers: more than a screen shows.
pub const CAUGHT_TOLD_MAX: usize = 8;

/// Names are shown on screens of 360 pixels.
pub const NAME_BYTES_MAX: usize = 64;

/// A processor's or graphics adapter's name with its vendor and backend.
pub const DEVICE_BYTES_MAX: usize = 128;

/// CLIP reads 77 tokens; 4 KiB is many times that in any language.
pub const PROMPT_BYTES_MAX: usize = 4 * 1024;

/// The reason in a refusal is one sentence.
pub const REASON_BYTES_MAX: usize = 256;

/// Models one worker may offer.
pub const MODELS_MAX: usize = 32;

/// Longest side of a picture in pixels: a canvas of 4096 x 4096 is 16 million cells of bookkeeping at most.
pub const SIDE_PIXELS_MAX: u32 = 4096;

/// Largest picture in pixels; its f32 RGB body must fit [`BODY_BYTES_MAX`] when decoded in one piece.
pub const PICTURE_PIXELS_MAX: u32 = 1024 * 1024;

/// Side of the smallest tile in latent cells: a UNet with three downsamplers makes one cell of it.
pub const TILE_CELLS_MIN: u32 = 8;

/// More steps than this bring nothing with any known sampler; schedules are tables of at most 1000 entries.
pub const STEPS_MAX: u32 = 200;

/// Pictures of one order: each keeps its latent while it is painted.
pub const IMAGES_MAX: u32 = 64;

/// Beyond this, guidance only burns.
pub const GUIDANCE_MAX: f32 = 50.0;

/// Largest magnitude believed in a network's output; a latent of magnitude 1000 is broken arithmetic.
pub const MAGNITUDE_MAX: f32 = 65_504.0;

/// Peers in one room.
pub const ROOM_PEERS_MAX: usize = 256;

/// Units of one stage: 256 tiles and two guidance branches.
pub const STAGE_UNITS_MAX: usize = 512;

/// Leases a worker holds of one requester at most: one that runs, and enough whose inputs are already there that a link of
/// 400 ms does not leave a processor idle between units of 60 ms.
pub const LEASES_PER_WORKER: usize = 8;

/// Leases waiting at a worker over all requesters.
pub const WORKER_QUEUE_MAX: usize = 64;

/// Conditionings a worker remembers; the oldest goes first.
pub const BLOBS_MAX: usize = 16;

/// A unit that failed on this many distinct peers fails its job.
pub const ATTEMPTS_MAX: usize = 3;

/// A working peer says so this often.
pub const HEARTBEAT_EVERY: Duration = Duration::from_millis(500);

/// Silence for this long on a lease (more than two heartbeats) and its worker is asked whether it lives.
pub const PROBE_AFTER: Duration = Duration::from_millis(1250);

/// Silence for this long on a lease (six heartbeats, and a probe unanswered) means that its worker is gone.
pub const LEASE_SILENCE_MAX: Duration = Duration::from_secs(3);

/// A lease ends after this long even if its worker keeps saying that it works: a stall with a beating heart.
/// Longer only for a worker from whom the unit is expected to take long: [`STALL_OVERDUE`] times that.
pub const LEASE_TIME_MAX: Duration = Duration::from_secs(300);

/// No lease lasts longer, however slow its worker says that it is.
pub const LEASE_TIME_LONGEST: Duration = Duration::from_secs(4 * 3600);

/// A refused worker is not asked again before this.
pub const REFUSAL_PAUSE: Duration = Duration::from_millis(250);

/// A worker's pauses double with every failure in a row, up to this.
pub const PAUSE_MAX: Duration = Duration::from_secs(64);

/// The slowest uplink that is waited for, 1 Mbit/s: a lease is not silent while its body may still be under way.
pub const UPLOAD_BYTES_PER_SECOND_MIN: usize = 128 * 1024;

/// A unit that takes this many times what was expected of its worker is given to a second one.
pub const HEDGE_OVERDUE: f64 = 1.5;

/// A unit is not given to a second worker before it is late by this much: less is noise.
pub const HEDGE_LATE_MIN: Duration = Duration::from_millis(200);

/// A unit that takes this many times what was expected is given to a second worker whatever that costs: its worker has
/// stalled, though its heart beats.
pub const STALL_OVERDUE: f64 = 4.0;

/// No unit counts as stalled before it is late by this much.
pub const STALL_LATE_MIN: Duration = Duration::from_secs(2);

/// Where nothing is known of how long a unit takes, it counts as stalled after this.
pub const STALL_UNKNOWN: Duration = Duration::from_secs(10);

/// A worker that has delivered nothing yet is believed to need as long as it claims, but no longer than this: then its unit
/// counts as stalled, and whoever has nothing to do is given it too.
pub const CLAIM_BELIEVED: Duration = Duration::from_secs(60);

/// Units given to a second worker, in a hundred delivered: Dean and Barroso, The Tail at Scale, spend 2 to 5.
pub const HEDGES_PER_HUNDRED: u32 = 5;

/// Second workers that may be saved up for a bad moment.
pub const HEDGES_SAVED_MAX: u32 = 4;

/// Refusals without blame in a row after which the next one counts as a failure: a worker that refuses for ever is no help.
pub const REFUSALS_IN_ROW_MAX: u32 = 8;

/// Peers whose lies a requester remembers; the oldest is forgotten first.
pub const CONDEMNED_MAX: usize = 1024;

/// Two sound answers of different numeric classes differ by no more than this, relative to their norm. Thirty times the most
/// that was measured between native, WebAssembly and a software GPU over the demo model's passes (1.6e-6), because other GPUs
/// and deeper models round more; a quarter of what rounding an answer to half precision does (2.1e-4), and far below weights
/// of seven bits (1.8e-3). The table is in docs/verification.md, and a test measures it again.
pub const AGREEMENT_RELATIVE: f32 = 5e-5;

/// A measured speed is believed for this long; afterwards a worker gets a chance to show that it is faster again.
pub const SPEED_BELIEVED: Duration = Duration::from_secs(30);

/// A proof for the relay's queue is believed for so long before and after its time: clocks of people's devices differ by
/// minutes, and whoever sees one can use it only at the host it names.
pub const QUEUE_PROOF_AGE_MAX: Duration = Duration::from_secs(5 * 60);

/// A new connection must prove membership within this time or is closed.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

const _: () = assert!(HEADER_BYTES_MAX > PROMPT_BYTES_MAX * 4, "two prompts and their message must fit a header");
const _: () = assert!(CREDIT_BYTES as usize >= CHUNK_BYTES_MAX, "a chunk must fit the credit");
const _: () =
    assert!(PICTURE_PIXELS_MAX as usize * 3 * 4 <= BODY_BYTES_MAX, "a whole decoded picture must fit one body");
const _: () = assert!(PRESENCE_BYTES_MAX < HEADER_BYTES_MAX);
const _: () = assert!(CAUGHT_TOLD_MAX * PEER_ID_BYTES_MAX < PRESENCE_BYTES_MAX / 2);
