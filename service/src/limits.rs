//! Every limit of the HTTP API, each with its reason.

use std::time::Duration;

/// Bytes of a token: a room's, attenuated a few times.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// How long a token that a room's member asks for lives; members ask again.
pub const TOKEN_TIME: Duration = Duration::from_secs(60 * 60);

/// The longest life an operator may give a token.
pub const TOKEN_TIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Time that checking a token's rules may take; longer ones are refused.
pub const TOKEN_CHECK_TIME_MAX: Duration = Duration::from_millis(20);

/// Facts that checking a token may give rise to.
pub const TOKEN_FACTS_MAX: u64 = 200;

/// Bytes of a request with JSON: a prompt and numbers, or a foreign client's workflow.
pub const JSON_BYTES_MAX: usize = 512 * 1024;

/// Bytes of what a worker delivers: a large picture in base64 (RunPod: 20 MB).
pub const DELIVERY_BYTES_MAX: usize = 20 * 1024 * 1024;
