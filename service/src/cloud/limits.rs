//! Every limit of overflow, each with its reason.

use std::time::Duration;

/// Waiting jobs that the router looks at in one round, as many of each room as of any other: as many as a room may have. Jobs
/// behind them wait for their way, so that it must be more than can be stuck for one reason, such as a user's budget.
pub const ROUTED_MAX: usize = 10_000;

/// How often the router looks though nothing seems to have changed: times pass, workers fall silent, health comes back.
pub const ROUTE_EVERY: Duration = Duration::from_secs(1);

/// How long the router rests after a round, so that many changes are one round...
pub const ROUTE_REST: Duration = Duration::from_millis(50);

/// ... and at most, after a round over a long queue.
pub const ROUTE_REST_MAX: Duration = Duration::from_secs(5);

/// How often relays on one queue tell each other of their workers: many times before one counts as gone.
pub const MEET_EVERY: Duration = Duration::from_secs(3);

/// Explanations that are written down at once: what the store commits together.
pub const EXPLAINED_AT_ONCE: usize = 64;

/// How long measured times and an endpoint's health are believed.
pub const FACTS_TIME: Duration = Duration::from_secs(10);

/// Jobs that may wait at an endpoint that has no worker, because it starts from none.
pub const ENDPOINT_QUEUE_MAX: u64 = 10;

/// How soon a warm worker begins.
pub const WARM_START: Duration = Duration::from_secs(1);

/// How often one attempt's endpoint is asked while it certainly has not taken the job.
pub const RUN_TRIES_MAX: u32 = 4;

/// For how long: an attempt's time counts from its intent, and [`queue::limits::EXPIRY_SLACK`] must cover what passes before
/// the endpoint takes it, with the call itself.
pub const RUN_TRIES_TIME_MAX: Duration = Duration::from_secs(20);

/// Looks in a row that must find nothing before a job counts as gone: one 404 may come from a part of the endpoint that has
/// not heard of it yet.
pub const GONE_LOOKS: u32 = 3;

/// How often a result is fetched and kept again where that failed for our own fault; it stays at the endpoint for 30 minutes.
pub const KEEP_TRIES_MAX: u32 = 20;

/// How often the end of an attempt whose result was not kept before a restart is looked at again.
pub const RESULT_LOOKS_MAX: u32 = 5;

/// The longest pause after which an attempt is looked at that nobody can be asked about: its claim may have come to another
/// relay.
pub const UNKNOWN_PAUSE: Duration = Duration::from_secs(2);

/// Pauses between tries of writing down what happened: an attempt's end is never forgotten because the database was away.
pub const STORE_PAUSE_MIN: Duration = Duration::from_millis(50);
/// See [`STORE_PAUSE_MIN`].
pub const STORE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Bytes of a claim: a nonce and a name.
pub const CLAIM_BYTES_MAX: usize = 4 * 1024;

/// Bytes of a webhook: the endpoint tells the whole result, of which only the name is read.
pub const WEBHOOK_BYTES_MAX: usize = 24 * 1024 * 1024;

/// Entries of the ledger in one answer.
pub const LEDGER_ENTRIES_MAX: usize = 1_000;

/// Jobs of one endpoint at once unless its configuration says otherwise.
pub const IN_FLIGHT_MAX: usize = 20;

const _: () = assert!(
    RUN_TRIES_TIME_MAX.as_secs() + runpod::limits::CALL_TIME_MAX.as_secs() <= queue::limits::EXPIRY_SLACK.as_secs(),
    "an attempt is not given up while its endpoint may still have time for it"
);
