//! Proof of membership: both ends of a new stream show that they know the room's secret before anything else is said.
//!
//! The dialer sends [`Hello`] with the room id and its nonce; the listener answers with its own nonce; the dialer proves
//! first, so that a listener is no oracle for strangers; then the listener proves. A proof is HMAC-SHA256 (RFC 2104)
//! under the room's proof key over the prover's role, both peer ids (already authenticated by Noise or TLS) and both
//! nonces, so that it can be neither replayed, reflected nor carried to another pair.

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::ids::PeerId;
use crate::room::{RoomId, RoomKeys};

/// A nonce, fresh from a cryptographic random source for every stream.
pub type Nonce = [u8; 32];

/// The first message of each side. The room id is public; the listener repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Which room.
    pub room: RoomId,
    /// Fresh randomness of this side.
    #[serde(with = "serde_bytes")]
    pub nonce: Nonce,
}

/// The second message of each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// HMAC-SHA256.
    #[serde(with = "serde_bytes")]
    pub mac: [u8; 32],
}

/// Which end of the stream a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Opened the stream.
    Dialer,
    /// Accepted it.
    Listener,
}

/// One stream's handshake, the same seen from both ends.
#[derive(Clone, Debug)]
pub struct Handshake<'a> {
    /// The room's keys.
    pub keys: &'a RoomKeys,
    /// The peer that opened the stream.
    pub dialer: &'a PeerId,
    /// The peer that accepted it.
    pub listener: &'a PeerId,
    /// The dialer's nonce.
    pub dialer_nonce: Nonce,
    /// The listener's nonce.
    pub listener_nonce: Nonce,
}

impl Handshake<'_> {
    /// The proof of the peer in `role`.
    pub fn prove(&self, role: Role) -> Proof {
        Proof { mac: self.mac(role).finalize().into_bytes().into() }
    }

    /// Whether `proof` is that of the peer in `role`; takes the same time whatever is wrong.
    pub fn verify(&self, role: Role, proof: &Proof) -> bool {
        self.mac(role).verify_slice(&proof.mac).is_ok()
    }

    fn mac(&self, role: Role) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.keys.proof()).expect("HMAC takes keys of any length");
        let role: &[u8] = match role {
            Role::Dialer => b"dialer",
            Role::Listener => b"listener",
        };
        let parts = [
            role,
            self.dialer.as_str().as_bytes(),
            self.listener.as_str().as_bytes(),
            &self.dialer_nonce,
            &self.listener_nonce,
        ];
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::RoomSecret;

    #[test]
    fn a_proof_holds_for_its_role_room_pair_and_nonces_only() {
        let (keys, other) = (RoomSecret::from_random([1; 16]).keys(), RoomSecret::from_random([2; 16]).keys());
        let (ada, bob) = (PeerId::new("ada").unwrap(), PeerId::new("bob").unwrap());
        let handshake =
            Handshake { keys: &keys, dialer: &ada, listener: &bob, dialer_nonce: [3; 32], listener_nonce: [4; 32] };
        let proof = handshake.prove(Role::Dialer);
        assert!(handshake.verify(Role::Dialer, &proof));
        assert!(!handshake.verify(Role::Listener, &proof), "reflected");
        assert!(!Handshake { keys: &other, ..handshake.clone() }.verify(Role::Dialer, &proof), "wrong secret");
        assert!(!Handshake { dialer: &bob, listener: &ada, ..handshake.clone() }.verify(Role::Dialer, &proof));
        assert!(!Handshake { listener_nonce: [5; 32], ..handshake.clone() }.verify(Role::Dialer, &proof), "replayed");
        assert!(!Handshake { dialer_nonce: [5; 32], ..handshake }.verify(Role::Dialer, &proof));
    }
}
