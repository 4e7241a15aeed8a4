//! Proof of membership towards a relay's queue: whoever has a room's link signs, and the room's name there is the key's hash.
//!
//! The relay keeps no list of rooms and learns no secret: from the public key in a proof it computes the name itself.

use std::fmt;

use data_encoding::{BASE32_NOPAD, BASE64};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::limits::QUEUE_PROOF_AGE_MAX;

/// Bytes of the key's hash that name the room: 160 bits, for which nobody finds a second key.
const NAME_BYTES: usize = 20;

/// What every signed text begins with, so that no other signature of this key can be taken for a proof.
const DOMAIN: &str = "manyhands queue membership 1";

/// A room's key for the queues of relays. It has no `Display` and its `Debug` shows the public half.
#[derive(Clone)]
pub struct QueueKey(SigningKey);

/// Shows a relay that its maker has the link of a room. As JSON: `{"public_key":"BASE32","time_ms":1,"signature":"BASE64"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueProof {
    /// The ed25519 public key: lowercase base32 without padding.
    #[serde(with = "key_text")]
    pub public_key: [u8; 32],
    /// When it was made, in milliseconds since 1970.
    pub time_ms: u64,
    /// The ed25519 signature: base64 with padding.
    #[serde(with = "signature_text")]
    pub signature: [u8; 64],
}

/// Why a proof is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Its key is that of another room.
    #[error("the proof is of another room")]
    OtherRoom,
    /// Made too long ago, or its maker's clock is ahead.
    #[error("the proof's time differs by more than 5 minutes; set the clock and make a new one")]
    Late,
    /// Not signed by its key for this room and host.
    #[error("the proof is not signed by the room's key for this host")]
    Forged,
}

impl QueueKey {
    pub(crate) fn from_secret(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The room's name in queues.
    pub fn room_name(&self) -> String {
        name_of(self.0.verifying_key().as_bytes())
    }

    /// A proof for `host`: a relay's public address without its scheme, as a room's link names it: `relay.example`,
    /// `127.0.0.1:8080`.
    pub fn prove(&self, host: &str, time_ms: u64) -> QueueProof {
        let signature = self.0.sign(signed_text(&self.room_name(), host, time_ms).as_bytes());
        QueueProof { public_key: self.0.verifying_key().to_bytes(), time_ms, signature: signature.to_bytes() }
    }
}

impl fmt::Debug for QueueKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "QueueKey({})", self.room_name())
    }
}

impl QueueProof {
    /// The name of the room whose key made it, if it is genuine.
    pub fn queue_room_name(&self) -> String {
        name_of(&self.public_key)
    }

    /// Whether it proves membership in `room` to `host` now.
    pub fn verify(&self, room: &str, host: &str, now_ms: u64) -> Result<(), ProofError> {
        if self.queue_room_name() != room {
            return Err(ProofError::OtherRoom);
        }
        if u128::from(self.time_ms.abs_diff(now_ms)) > QUEUE_PROOF_AGE_MAX.as_millis() {
            return Err(ProofError::Late);
        }
        let key = VerifyingKey::from_bytes(&self.public_key).map_err(|_| ProofError::Forged)?;
        let text = signed_text(room, host, self.time_ms);
        // Strict: a key or signature of small order would hold for many texts.
        key.verify_strict(text.as_bytes(), &Signature::from_bytes(&self.signature)).map_err(|_| ProofError::Forged)
    }
}

fn name_of(public_key: &[u8; 32]) -> String {
    BASE32_NOPAD.encode(&Sha256::digest(public_key)[..NAME_BYTES]).to_lowercase()
}

/// A host's name holds no line break, so no two triples give the same text.
fn signed_text(room: &str, host: &str, time_ms: u64) -> String {
    format!("{DOMAIN}\n{room}\n{host}\n{time_ms}")
}

mod key_text {
    use super::BASE32_NOPAD;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub fn serialize<S: Serializer>(key: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE32_NOPAD.encode(key).to_lowercase())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let bytes = BASE32_NOPAD.decode(String::deserialize(deserializer)?.to_uppercase().as_bytes()).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| D::Error::custom("a key is 52 base32 characters"))
    }
}

mod signature_text {
    use super::BASE64;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub fn serialize<S: Serializer>(signature: &[u8; 64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(signature))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 64], D::Error> {
        let bytes = BASE64.decode(String::deserialize(deserializer)?.as_bytes()).ok();
        let signature = bytes.and_then(|bytes| bytes.try_into().ok());
        signature.ok_or_else(|| D::Error::custom("a signature is 88 base64 characters"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::RoomSecret;

    const HOST: &str = "relay.example:8080";
    const NOW_MS: u64 = 1_700_000_000_000;

    fn key(byte: u8) -> QueueKey {
        RoomSecret::from_random([byte; 16]).queue_key()
    }

    #[test]
    fn a_proof_holds_after_it_was_written_and_read() {
        let proof = key(1).prove(HOST, NOW_MS);
        let mut bytes = Vec::new();
        ciborium::into_writer(&proof, &mut bytes).unwrap();
        let read: QueueProof = ciborium::from_reader(bytes.as_slice()).unwrap();
        assert_eq!(read, proof);
        assert_eq!(read.verify(&key(1).room_name(), HOST, NOW_MS), Ok(()));
        assert_eq!(read.queue_room_name(), key(1).room_name());
    }

    #[test]
    fn a_rooms_name_is_the_same_for_ever() {
        // Computed by other programs: HKDF, RFC 8032's key, the first 20 bytes of its SHA-256 as base32.
        assert_eq!(key(1).room_name(), "tgguivyyxy5i4fsxcg4jfvb46eojibr7");
        assert_ne!(key(2).room_name(), key(1).room_name());
    }

    #[test]
    fn a_proof_holds_for_its_room_host_and_minutes_only() {
        let proof = key(1).prove(HOST, NOW_MS);
        let room = key(1).room_name();
        let age_max = u64::try_from(QUEUE_PROOF_AGE_MAX.as_millis()).unwrap();
        assert_eq!(proof.verify(&key(2).room_name(), HOST, NOW_MS), Err(ProofError::OtherRoom));
        assert_eq!(proof.verify(&room, "evil.example", NOW_MS), Err(ProofError::Forged));
        for (now_ms, result) in [
            (NOW_MS + age_max, Ok(())),
            (NOW_MS - age_max, Ok(())),
            (NOW_MS + age_max + 1, Err(ProofError::Late)),
            (NOW_MS - age_max - 1, Err(ProofError::Late)),
            (0, Err(ProofError::Late)),
            (u64::MAX, Err(ProofError::Late)),
        ] {
            assert_eq!(proof.verify(&room, HOST, now_ms), result, "{now_ms}");
        }
        assert!(ProofError::Late.to_string().contains(&format!("{} minutes", QUEUE_PROOF_AGE_MAX.as_secs() / 60)));
    }

    #[test]
    fn a_proof_that_was_changed_anywhere_is_forged() {
        let (proof, room) = (key(1).prove(HOST, NOW_MS), key(1).room_name());
        for index in 0..64 {
            let mut bent = proof.clone();
            bent.signature[index] ^= 1;
            assert_eq!(bent.verify(&room, HOST, NOW_MS), Err(ProofError::Forged));
        }
        let later = QueueProof { time_ms: NOW_MS + 1, ..proof.clone() };
        assert_eq!(later.verify(&room, HOST, NOW_MS), Err(ProofError::Forged));
        let other = QueueProof { public_key: key(2).prove(HOST, NOW_MS).public_key, ..proof };
        assert_eq!(other.verify(&key(2).room_name(), HOST, NOW_MS), Err(ProofError::Forged));
    }

    #[test]
    fn a_key_of_small_order_proves_nothing() {
        // The neutral element as key, and a signature that would hold for any text.
        let (mut public_key, mut signature) = ([0; 32], [0; 64]);
        (public_key[0], signature[0]) = (1, 1);
        let proof = QueueProof { public_key, time_ms: NOW_MS, signature };
        assert_eq!(proof.verify(&proof.queue_room_name(), HOST, NOW_MS), Err(ProofError::Forged));
    }

    #[test]
    fn what_is_no_proof_is_not_read() {
        let entry = |name: &str, value: &str| (name.into(), ciborium::Value::Text(value.into()));
        let time = ("time_ms".into(), ciborium::Value::Integer(1.into()));
        let good = (BASE32_NOPAD.encode(&[1; 32]).to_lowercase(), BASE64.encode(&[2; 64]));
        let read = |key: &str, signature: &str| {
            let map = vec![entry("public_key", key), time.clone(), entry("signature", signature)];
            ciborium::Value::Map(map).deserialized::<QueueProof>()
        };
        assert!(read(&good.0, &good.1).is_ok());
        assert!(read(&good.0[1..], &good.1).is_err());
        assert!(read("", &good.1).is_err());
        assert!(read(&good.0, &BASE64.encode(&[2; 63])).is_err());
        assert!(read(&good.0, "!").is_err());
    }
}
