//! Names that cross the API and the store, each its own type with its own bounds.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

use crate::limits::{IDEMPOTENCY_KEY_BYTES_MAX, NAME_BYTES_MAX, OWNER_BYTES_MAX};

/// A text is not a name of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is 1 to {bytes_max} letters, digits, '-', '_', '.' or ':'")]
pub struct NameError {
    what: &'static str,
    bytes_max: usize,
}

/// Makes a name type: plain ASCII, so that it can stand in a path, a log, a label and a file name as it is.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $bytes_max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks length and characters.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
                let fits = (1..=$bytes_max).contains(&text.len()) && text.bytes().all(is_plain);
                // Names become path segments and file names.
                let leads_away = text.bytes().all(|byte| byte == b'.');
                if fits && !leads_away { Ok(Self(text)) } else { Err(NameError { what: $what, bytes_max: $bytes_max }) }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A room of the queue. For rooms with a link it is derived from the room's secret, so that only its members can ask for a
    /// token; an operator may name others.
    RoomName, "a room", NAME_BYTES_MAX
);
name!(
    /// Who asked, as their token says.
    UserName, "a user", NAME_BYTES_MAX
);
name!(
    /// A model, as the catalogue and workers name it.
    Model, "a model", NAME_BYTES_MAX
);
name!(
    /// The name of a configured cloud endpoint.
    Endpoint, "an endpoint", NAME_BYTES_MAX
);
name!(
    /// Where pictures of one job type are kept.
    BucketName, "a bucket", NAME_BYTES_MAX
);
name!(
    /// The name of a job type, such as `sdxl_image_fast`; what an order asks for.
    Ask, "a job type", NAME_BYTES_MAX
);
name!(
    /// What a job type is served by: the endpoints that are configured for this name.
    QueueName, "a queue", NAME_BYTES_MAX
);
name!(
    /// Chosen by whoever submits, so that asking twice is one job.
    IdempotencyKey, "an idempotency key", IDEMPOTENCY_KEY_BYTES_MAX
);
name!(
    /// Who holds a lease: a worker's id, or `cloud:` and an endpoint's name.
    Owner, "a worker's id", OWNER_BYTES_MAX
);
name!(
    /// A job of the queue; unguessable, but what may be done with it is the token's business.
    JobId, "a job id", NAME_BYTES_MAX
);

impl JobId {
    /// A new id from 128 random bits.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(format!("job-{}", BASE32_NOPAD.encode(&bytes).to_lowercase()))
    }
}

/// What makes a paid attempt claimable once: 128 random bits that only the relay and the cloud's worker know.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(String);

impl Nonce {
    /// Wraps 128 bits from a cryptographic random source.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(BASE32_NOPAD.encode(&bytes).to_lowercase())
    }

    /// The text that goes into the job's input.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` is this nonce, in a time that does not tell where they differ.
    pub fn is(&self, text: &str) -> bool {
        let differing = self.0.bytes().zip(text.bytes()).fold(0, |differing, (one, other)| differing | (one ^ other));
        differing == 0 && self.0.len() == text.len()
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Nonce(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_bounded() {
        for text in ["", ".", "..", "a/b", "a b", "ä", "a\n", &"a".repeat(NAME_BYTES_MAX + 1)] {
            assert!(RoomName::new(text).is_err(), "{text:?}");
        }
        for text in ["a", "A-b_c.d:e", &"a".repeat(NAME_BYTES_MAX)] {
            assert_eq!(RoomName::new(text).unwrap().as_str(), text);
        }
        assert!(serde_json::from_str::<RoomName>("\"a/b\"").is_err(), "also when read");
    }

    #[test]
    fn a_nonce_is_only_itself_and_never_printed() {
        let nonce = Nonce::from_random([7; 16]);
        assert!(nonce.is(nonce.as_str()));
        assert!(!nonce.is(""));
        assert!(!nonce.is(&nonce.as_str()[1..]));
        assert!(!nonce.is(Nonce::from_random([8; 16]).as_str()));
        assert!(!format!("{nonce:?}").contains(nonce.as_str()));
    }
}
