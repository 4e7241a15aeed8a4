//! Every limit of a worker of a queue, each with its reason.

use std::time::Duration;

/// How often the queue hears of a job under way, even without progress: see the queue's own limit.
pub use queue::limits::HEARTBEAT_EVERY;

/// Progress is told no more often than this: people read it, and every time costs a request.
pub const PROGRESS_EVERY_MIN: Duration = Duration::from_millis(500);

/// A queue holds a question for work for at most 90 seconds; then there is a little time for the answer.
pub const TAKE_TIME_MAX: Duration = Duration::from_secs(100);

/// Questions that are answered at once with nothing come no more often than this.
pub const ASK_EVERY_MIN: Duration = Duration::from_secs(1);

/// Whoever asks too often (429) waits this long, as RunPod's own workers do.
pub const TOO_OFTEN_PAUSE: Duration = Duration::from_secs(5);

/// A queue that fails is asked again after this long at first,
pub const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// and after this long at most, so that work goes on soon after it is back.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// A connection is there within this time or not at all.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Small requests: progress, pings, claims. Shorter than a lease, so that one that is lost does not cost it.
pub const TELL_TIME_MAX: Duration = Duration::from_secs(5);

/// A result, or a picture put to its place, over a slow way: ten megabytes at a megabit a second take 80 seconds.
pub const DELIVER_TIME_MAX: Duration = Duration::from_secs(120);

/// Tries to deliver a result, the waits between them doubling: a queue that starts again gets it, at the cost of a minute.
pub const DELIVER_TRIES_MAX: u32 = 7;

/// Tries to claim a paid job before it fails: whoever waits for it pays for the time.
pub const CLAIM_TRIES_MAX: u32 = 3;

/// Tries to put a picture to its place before it goes into the reply.
pub const PUT_TRIES_MAX: u32 = 4;

/// RunPod is told that a worker lives this often unless it says otherwise.
pub const PING_EVERY: Duration = Duration::from_secs(10);

/// A job with its input: RunPod's largest request is 20 MB.
pub const JOB_BYTES_MAX: u64 = 24 * 1024 * 1024;

/// Any other answer: a list of ids, or a few words.
pub const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of a job's id: it becomes part of a path.
pub const JOB_ID_BYTES_MAX: usize = 256;

/// Pictures of one job: four of them as base64 are within what a queue takes as one result.
pub const IMAGES_MAX: u32 = 4;

/// A second request to end within this time of the first is the same one, heard twice: service managers and terminals ask
/// every process of a group, and a supervisor passes it on.
pub const ASKED_TWICE_AFTER: Duration = Duration::from_secs(1);

/// After the first member that lends has come, others get this long to be in the plan too.
pub const SETTLE: Duration = Duration::from_millis(300);

const _: () = assert!(IMAGES_MAX <= protocol::limits::IMAGES_MAX, "a job's pictures are one order");
const _: () =
    assert!(PROGRESS_EVERY_MIN.as_millis() < HEARTBEAT_EVERY.as_millis(), "progress comes before a heartbeat");
