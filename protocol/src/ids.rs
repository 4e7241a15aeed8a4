//! Names of things: peers, jobs, leases, models and contents, each its own type.

use std::fmt;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::limits::PEER_ID_BYTES_MAX;

/// A libp2p peer id in its base58 text form; ordered, so that maps of peers iterate the same everywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerId(String);

impl PeerId {
    /// Returns `None` unless `text` is 1 to [`PEER_ID_BYTES_MAX`] ASCII letters and digits.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let fits = (1..=PEER_ID_BYTES_MAX).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(Self(text))
    }

    /// The base58 text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last six characters: enough to tell the peers of a room apart on a screen.
    pub fn short(&self) -> &str {
        &self.0[self.0.len().saturating_sub(6)..]
    }
}

impl TryFrom<String> for PeerId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text).ok_or("a peer id is 1 to 64 letters and digits")
    }
}

impl From<PeerId> for String {
    fn from(peer: PeerId) -> Self {
        peer.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// SHA-256 of some content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash(#[serde(with = "serde_bytes")] [u8; 32]);

impl Hash {
    /// Hashes `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// Wraps a digest computed elsewhere, for example over a file read in pieces.
    pub const fn from_bytes(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hash({})", &HEXLOWER.encode(&self.0[..6]))
    }
}

/// Names a model by its content: the hash over the hashes of all its files, so that equal ids mean equal weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelId(pub Hash);

impl fmt::Display for ModelId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&HEXLOWER.encode(&self.0.as_bytes()[..8]))
    }
}

/// Names a job; drawn at random by its requester.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&BASE32_NOPAD.encode(&self.0).to_lowercase()[..10])
    }
}

/// Names one grant of one unit to one worker, and fences it: a number is never granted twice by a requester, and a
/// delivery under any number but the unit's newest grant changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "lease {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_id_is_short_plain_text() {
        assert!(PeerId::new("12D3KooWabc").is_some());
        assert!(PeerId::new("").is_none());
        assert!(PeerId::new("a b").is_none());
        assert!(PeerId::new("a".repeat(PEER_ID_BYTES_MAX + 1)).is_none());
    }

    #[test]
    fn a_hash_is_sha256() {
        assert_eq!(Hash::of(b"abc").to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
