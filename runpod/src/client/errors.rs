//! How calls fail, told apart by what may have happened there.

use std::time::Duration;

use crate::client::wire::Loss;
use crate::contract::Unreadable;

/// An address is no base of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BaseError {
    /// It is no URL, or has a user, a query or a fragment.
    #[error("an endpoint's address is like https://api.runpod.ai/v2/ENDPOINT, without user, query or fragment")]
    NotAnAddress,
    /// The key would travel unencrypted.
    #[error("an endpoint's address must begin with https://, or the key could be read on its way")]
    NotEncrypted,
    /// The HTTP client cannot be made here.
    #[error("the HTTP client cannot be made: {0}")]
    Client(String),
}

/// Why a job was not started, or may have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// No byte of the request has left: it may be asked again.
    #[error("the endpoint cannot be reached: {reason}")]
    NotAsked {
        /// Why.
        reason: String,
    },
    /// The request is larger than an endpoint takes; it was not sent.
    #[error("the request has {bytes} bytes; the endpoint takes {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The endpoint certainly did not take it, and would not take it again.
    #[error("the endpoint refuses ({status}): {reason}")]
    Refused {
        /// The HTTP status, a 4xx.
        status: u16,
        /// What it said.
        reason: String,
    },
    /// Too many calls; it was not taken, and may be asked again later.
    #[error("the endpoint asks for fewer calls")]
    Throttled {
        /// The pause it asks for.
        retry_after: Option<Duration>,
    },
    /// The key is wrong or was revoked.
    #[error("the endpoint does not accept the key")]
    Unauthorised,
    /// The account is empty.
    #[error("the endpoint's account is out of funds: {reason}")]
    OutOfFunds {
        /// What it said.
        reason: String,
    },
    /// It was asked, and whether it was taken is not known: it may run and cost. Never to be asked again.
    #[error("the endpoint was asked, and its answer is not known: {reason}")]
    Unknown {
        /// Why.
        reason: String,
    },
}

impl RunError {
    pub(crate) fn of_loss(loss: Loss) -> Self {
        match loss {
            Loss::NotSent(reason) => Self::NotAsked { reason },
            Loss::Lost(reason) => Self::Unknown { reason },
            Loss::TooLarge(bytes_max) => Self::Unknown { reason: format!("the reply has more than {bytes_max} bytes") },
        }
    }

    /// As much as a log may hold of it: what an endpoint said may quote the prompt.
    pub fn unquoted(&self) -> String {
        match self {
            Self::Refused { status, .. } => format!("the endpoint refuses ({status})"),
            Self::OutOfFunds { .. } => "the endpoint's account is out of funds".to_owned(),
            Self::Unknown { .. } => "the endpoint was asked, and its answer is not known".to_owned(),
            // In these the endpoint has no word.
            Self::NotAsked { .. } | Self::TooLarge { .. } | Self::Throttled { .. } | Self::Unauthorised => {
                self.to_string()
            }
        }
    }

    /// Whether the endpoint certainly does not run the job.
    pub fn is_certain(&self) -> bool {
        match self {
            Self::NotAsked { .. }
            | Self::TooLarge { .. }
            | Self::Refused { .. }
            | Self::Throttled { .. }
            | Self::Unauthorised
            | Self::OutOfFunds { .. } => true,
            Self::Unknown { .. } => false,
        }
    }
}

/// Why a call that starts nothing failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No connection, or it broke, or no answer in time.
    #[error("the endpoint cannot be reached: {reason}")]
    Unreachable {
        /// Why.
        reason: String,
    },
    /// The endpoint does not know the job, or not any more. That does not mean that it did not run.
    #[error("the endpoint does not know this job, or has forgotten it")]
    Gone,
    /// It refuses.
    #[error("the endpoint refuses ({status}): {reason}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        reason: String,
    },
    /// Too many calls.
    #[error("the endpoint asks for fewer calls")]
    Throttled {
        /// The pause it asks for.
        retry_after: Option<Duration>,
    },
    /// The key is wrong or was revoked.
    #[error("the endpoint does not accept the key")]
    Unauthorised,
    /// The account is empty.
    #[error("the endpoint's account is out of funds: {reason}")]
    OutOfFunds {
        /// What it said.
        reason: String,
    },
    /// It failed itself.
    #[error("the endpoint failed ({status})")]
    Broken {
        /// The HTTP status, a 5xx.
        status: u16,
    },
    /// It says more than is read.
    #[error("the endpoint's reply has more than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// It says what cannot be read.
    #[error("the endpoint's reply cannot be read: {0}")]
    Unreadable(#[from] Unreadable),
}

impl CallError {
    pub(crate) fn of_loss(loss: Loss) -> Self {
        match loss {
            Loss::NotSent(reason) | Loss::Lost(reason) => Self::Unreachable { reason },
            Loss::TooLarge(bytes_max) => Self::TooLarge { bytes_max },
        }
    }

    /// As much as a log may hold of it: what an endpoint said may quote the prompt.
    pub fn unquoted(&self) -> String {
        match self {
            Self::Refused { status, .. } => format!("the endpoint refuses ({status})"),
            Self::OutOfFunds { .. } => "the endpoint's account is out of funds".to_owned(),
            Self::Unreadable(_) => "the endpoint's reply cannot be read".to_owned(),
            // In these the endpoint has no word.
            Self::Unreachable { .. }
            | Self::Gone
            | Self::Throttled { .. }
            | Self::Unauthorised
            | Self::Broken { .. }
            | Self::TooLarge { .. } => self.to_string(),
        }
    }

    /// Whether the same call may succeed a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Throttled { .. } | Self::Broken { .. } => true,
            Self::Gone
            | Self::Refused { .. }
            | Self::Unauthorised
            | Self::OutOfFunds { .. }
            | Self::TooLarge { .. }
            | Self::Unreadable(_) => false,
        }
    }

    /// The pause that the endpoint asks for.
    pub fn pause_asked(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after } => *retry_after,
            Self::Unreachable { .. }
            | Self::Gone
            | Self::Refused { .. }
            | Self::Unauthorised
            | Self::OutOfFunds { .. }
            | Self::Broken { .. }
            | Self::TooLarge { .. }
            | Self::Unreadable(_) => None,
        }
    }
}

/// Why nothing came of waiting for a job's end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// It took longer than it was given.
    #[error("the job took longer than it was given")]
    Overdue {
        /// Whether the endpoint says that it is called off.
        is_cancelled: bool,
    },
    /// Asking failed for good.
    #[error(transparent)]
    Call(#[from] CallError),
}
