//! A room's link, its secret, and every key derived from it.
//!
//! The secret stands in the link's fragment, which no browser sends to a server. All else is derived from it by
//! HKDF-SHA256 (RFC 5869) with its own label, so that knowing one (the room id, say) tells nothing about another.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use data_encoding::BASE32_NOPAD;
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::ids::PeerId;
use crate::limits::PRESENCE_BYTES_MAX;
use crate::message::Presence;
use crate::policy::Policy;
use crate::queue_key::QueueKey;

/// Bytes of a room's secret: 128 bits, which cannot be guessed.
pub const SECRET_BYTES: usize = 16;

/// Bytes of the random nonce before every sealed presence.
pub const NONCE_BYTES: usize = 24;

/// Longest link read.
const LINK_BYTES_MAX: usize = 2048;

/// Most peer addresses in a link.
const VIA_MAX: usize = 8;

/// The secret that makes its holder a member. It has no `Display`: only [`RoomLink`] writes it out.
#[derive(Clone, PartialEq, Eq)]
pub struct RoomSecret([u8; SECRET_BYTES]);

impl RoomSecret {
    /// Wraps 128 bits from a cryptographic random source.
    pub fn from_random(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// Derives every key of the room.
    pub fn keys(&self) -> RoomKeys {
        let derive = |label| self.derive(label);
        let mut id = [0; 16];
        id.copy_from_slice(&derive("room id")[..16]);
        let text = |label| BASE32_NOPAD.encode(&derive(label)).to_lowercase();
        RoomKeys {
            id: RoomId(id),
            rendezvous: text("rendezvous namespace"),
            topic: text("gossip topic"),
            proof: derive("membership proof"),
            presence: derive("presence"),
        }
    }

    /// The key by which members ask a relay for a token of the room's queue.
    pub fn queue_key(&self) -> QueueKey {
        QueueKey::from_secret(&self.derive("queue key"))
    }

    fn derive(&self, label: &str) -> [u8; 32] {
        let hkdf = Hkdf::<Sha256>::new(Some(b"manyhands room v1"), &self.0);
        let mut key = [0; 32];
        hkdf.expand(label.as_bytes(), &mut key).expect("32 bytes are within HKDF's reach");
        key
    }
}

impl fmt::Debug for RoomSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RoomSecret(..)")
    }
}

/// Names a room in public; knowing it opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RoomId(#[serde(with = "serde_bytes")] [u8; 16]);

impl fmt::Display for RoomId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&BASE32_NOPAD.encode(&self.0).to_lowercase())
    }
}

/// What members of a room hold in common.
#[derive(Clone)]
pub struct RoomKeys {
    id: RoomId,
    rendezvous: String,
    topic: String,
    proof: [u8; 32],
    presence: [u8; 32],
}

/// Why a sealed presence is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not sealed with this room's key by this peer, or changed on the way.
    #[error("the presence is not sealed with this room's key")]
    Forged,
    /// Larger than [`PRESENCE_BYTES_MAX`], or not a presence inside.
    #[error("the presence is malformed")]
    Malformed,
}

impl RoomKeys {
    /// The room's public name.
    pub fn id(&self) -> RoomId {
        self.id
    }

    /// The rendezvous namespace at the relay, which outsiders who know the room id cannot derive.
    pub fn rendezvous(&self) -> &str {
        &self.rendezvous
    }

    /// The gossip topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The key of membership proofs.
    pub(crate) fn proof(&self) -> &[u8; 32] {
        &self.proof
    }

    /// Seals a presence of `author` (XChaCha20-Poly1305, author as associated data) under a fresh random nonce.
    pub fn seal(&self, author: &PeerId, presence: &Presence, nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
        let mut plain = Vec::new();
        ciborium::into_writer(presence, &mut plain).expect("writing CBOR to memory cannot fail");
        let payload = Payload { msg: &plain, aad: author.as_str().as_bytes() };
        let sealed = self
            .cipher()
            .encrypt(XNonce::from_slice(&nonce), payload)
            .expect("a presence is far below the cipher's limit");
        [nonce.as_slice(), &sealed].concat()
    }

    /// Opens what [`RoomKeys::seal`] made for `author`.
    pub fn open(&self, author: &PeerId, sealed: &[u8]) -> Result<Presence, SealError> {
        if sealed.len() > PRESENCE_BYTES_MAX {
            return Err(SealError::Malformed);
        }
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES).ok_or(SealError::Malformed)?;
        let payload = Payload { msg: sealed, aad: author.as_str().as_bytes() };
        let plain = self.cipher().decrypt(XNonce::from_slice(nonce), payload).map_err(|_| SealError::Forged)?;
        crate::frame::decode_cbor(&plain).map_err(|_| SealError::Malformed)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(Key::from_slice(&self.presence))
    }
}

impl fmt::Debug for RoomKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RoomKeys({})", self.id)
    }
}

/// A room as people share it: `http://relay.example/#SECRET`, or `manyhands:#SECRET` without a relay, optionally followed
/// by `&trust=POLICY` unless its members are friends, and `&via=MULTIADDR` for peers to dial directly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomLink {
    /// The relay's address for browsers and for `GET /addrs`, without fragment or trailing slash; `None` without a relay.
    pub relay: Option<String>,
    /// The secret.
    pub secret: RoomSecret,
    /// Multiaddresses of peers to dial.
    pub via: Vec<String>,
    /// How far the room's requesters believe its workers.
    pub policy: Policy,
}

/// What is wrong with a room link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No `#`.
    #[error(
        "the room link has no secret (the part after '#'); copy the whole link, or make one with `manyhands room new`"
    )]
    NoSecret,
    /// The fragment is not 26 base32 characters.
    #[error("the room link's secret is malformed (26 letters and digits after '#'); copy the whole link again")]
    Secret,
    /// Neither http(s) nor manyhands.
    #[error("the room link must begin with http://, https:// or manyhands:")]
    Scheme,
    /// Unknown or malformed parts after the secret, or too long.
    #[error("the room link has parts that are not understood after its secret; copy the whole link again")]
    Parts,
}

impl RoomLink {
    /// Reads a link.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        if text.len() > LINK_BYTES_MAX {
            return Err(LinkError::Parts);
        }
        let (base, fragment) = text.split_once('#').ok_or(LinkError::NoSecret)?;
        let base = base.trim_end_matches('/');
        let relay = match base.split_once(':') {
            Some(("manyhands", "")) => None,
            Some(("http" | "https", rest)) if rest.len() > 2 && rest.starts_with("//") => Some(base.to_owned()),
            Some(_) | None => return Err(LinkError::Scheme),
        };
        let mut parts = fragment.split('&');
        let secret = parts.next().filter(|secret| !secret.is_empty()).ok_or(LinkError::NoSecret)?;
        let secret = BASE32_NOPAD.decode(secret.to_uppercase().as_bytes()).map_err(|_| LinkError::Secret)?;
        let secret = RoomSecret(secret.try_into().map_err(|_| LinkError::Secret)?);
        let mut parts = parts.peekable();
        let policy = match parts.next_if(|part| part.starts_with("trust=")) {
            Some(part) => Policy::parse(&part["trust=".len()..]).ok_or(LinkError::Parts)?,
            None => Policy::default(),
        };
        let via: Option<Vec<String>> = parts
            .map(|part| part.strip_prefix("via=").filter(|address| address.starts_with('/')).map(str::to_owned))
            .collect();
        let via = via.filter(|via| via.len() <= VIA_MAX).ok_or(LinkError::Parts)?;
        Ok(Self { relay, secret, via, policy })
    }
}

impl fmt::Display for RoomLink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = BASE32_NOPAD.encode(&self.secret.0).to_lowercase();
        match &self.relay {
            Some(relay) => write!(formatter, "{relay}/#{secret}")?,
            None => write!(formatter, "manyhands:#{secret}")?,
        }
        if self.policy != Policy::default() {
            write!(formatter, "&trust={}", self.policy.name())?;
        }
        self.via.iter().try_for_each(|via| write!(formatter, "&via={via}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Activity;

    fn secret() -> RoomSecret {
        RoomSecret::from_random([7; SECRET_BYTES])
    }

    fn peer(text: &str) -> PeerId {
        PeerId::new(text).unwrap()
    }

    #[test]
    fn a_link_survives_being_written_and_read() {
        for relay in [None, Some("http://127.0.0.1:8080".to_owned()), Some("https://relay.example/path".to_owned())] {
            for via in [Vec::new(), vec!["/ip4/127.0.0.1/tcp/4001".to_owned()]] {
                for policy in [Policy::Friends, Policy::Open, Policy::Paranoid] {
                    let link = RoomLink { relay: relay.clone(), secret: secret(), via: via.clone(), policy };
                    assert_eq!(RoomLink::parse(&link.to_string()), Ok(link));
                }
                let link = RoomLink { relay: relay.clone(), secret: secret(), via, policy: Policy::Friends };
                assert_eq!(RoomLink::parse(&link.to_string()), Ok(link.clone()), "{link}");
                assert_eq!(RoomLink::parse(&format!(" {link}\n")), Ok(link));
            }
        }
    }

    #[test]
    fn a_malformed_link_says_what_is_wrong() {
        let good =
            RoomLink { relay: Some("http://r".into()), secret: secret(), via: Vec::new(), policy: Policy::Friends }
                .to_string();
        assert_eq!(RoomLink::parse("http://r/"), Err(LinkError::NoSecret));
        assert_eq!(RoomLink::parse("http://r/#"), Err(LinkError::NoSecret));
        assert_eq!(RoomLink::parse(&good[..good.len() - 1]), Err(LinkError::Secret));
        assert_eq!(RoomLink::parse(&format!("{good}!")), Err(LinkError::Secret));
        assert_eq!(RoomLink::parse(&format!("{good}&via=nowhere")), Err(LinkError::Parts));
        assert_eq!(RoomLink::parse(&format!("{good}&trust=nobody")), Err(LinkError::Parts));
        assert_eq!(RoomLink::parse(&format!("{good}&else=1")), Err(LinkError::Parts));
        assert_eq!(RoomLink::parse(&good.replace("http", "ftp")), Err(LinkError::Scheme));
        assert_eq!(RoomLink::parse(&good.replace("http://r", "http:")), Err(LinkError::Scheme));
        assert!(RoomLink::parse(&"#".repeat(1 << 20)).is_err());
    }

    #[test]
    fn derived_names_differ_and_do_not_hold_the_secret() {
        let keys = secret().keys();
        let names = [keys.id().to_string(), keys.rendezvous().to_owned(), keys.topic().to_owned()];
        for (index, name) in names.iter().enumerate() {
            assert!(!name.contains(&BASE32_NOPAD.encode(&[7; SECRET_BYTES]).to_lowercase()));
            assert!(names[..index].iter().all(|other| !other.starts_with(name) && !name.starts_with(other)));
        }
        assert_ne!(RoomSecret::from_random([8; SECRET_BYTES]).keys().id(), keys.id());
        assert!(!format!("{:?} {keys:?}", secret()).contains("7, 7"));
    }

    #[test]
    fn a_presence_opens_only_in_its_room_from_its_author_unchanged() {
        let keys = secret().keys();
        let presence = Presence { sequence: 1, name: "ada".into(), activity: Activity::Painting, caught: Vec::new() };
        let sealed = keys.seal(&peer("ada"), &presence, [9; NONCE_BYTES]);
        assert_eq!(keys.open(&peer("ada"), &sealed), Ok(presence));
        assert_eq!(keys.open(&peer("eve"), &sealed), Err(SealError::Forged));
        assert_eq!(RoomSecret::from_random([8; 16]).keys().open(&peer("ada"), &sealed), Err(SealError::Forged));
        for index in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[index] ^= 1;
            assert_eq!(keys.open(&peer("ada"), &bent), Err(SealError::Forged));
        }
        assert_eq!(keys.open(&peer("ada"), &[0; 3]), Err(SealError::Malformed));
        assert_eq!(keys.open(&peer("ada"), &vec![0; PRESENCE_BYTES_MAX + 1]), Err(SealError::Malformed));
    }
}
