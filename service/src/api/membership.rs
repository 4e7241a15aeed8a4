//! Tokens for a room's members: who has its link proves it by a signature, and nobody registers anywhere.
//!
//! The room's name is the hash of a public key that is derived from the link's secret, so the relay needs to know no rooms.

use axum::Json;
use axum::extract::{Path, Request, State};
use data_encoding::{BASE32_NOPAD, BASE64};
use ed25519_dalek::{Signature, VerifyingKey};
use hmac::{Hmac, Mac};
use queue::{RoomName, UnixMs, UserName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::access::{Grant, Right};
use crate::body::Sent;
use crate::error::ApiError;
use crate::guard::client_of;
use crate::limits::{PROOF_TIME_MAX, TOKEN_TIME};
use crate::rates::Client;
use crate::state::App;

/// What every proof begins with, so that no signature made for another purpose is one.
pub const PROOF_LABEL: &str = "manyhands queue membership 1";

/// Bytes of the hash of a room's public key that are its name.
const ROOM_HASH_BYTES: usize = 20;

/// A proof of membership.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Proof {
    /// The room's public key (ed25519), in base32 without padding.
    public_key: String,
    /// When it was made, in milliseconds since 1970.
    time_ms: u64,
    /// Of `manyhands queue membership 1`, room, host and time, a line each, in base64.
    signature: String,
}

/// A token, and what it allows.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct MemberToken {
    /// To be sent as `Authorization: Bearer TOKEN`.
    token: String,
    /// The room.
    #[schema(value_type = String)]
    room: RoomName,
    /// What its holder is called.
    #[schema(value_type = String)]
    user: UserName,
    /// What it allows.
    #[schema(value_type = Vec<String>)]
    rights: Vec<Right>,
    /// When it ends, in milliseconds since 1970.
    until_ms: u64,
}

/// The name of the room whose members derive this key.
pub fn room_of_key(public_key: &[u8; 32]) -> RoomName {
    let digest = Sha256::digest(public_key);
    let name = BASE32_NOPAD.encode(&digest[..ROOM_HASH_BYTES]).to_lowercase();
    RoomName::new(name).expect("base32 of 20 bytes is a name")
}

/// What a member signs: for this relay (`host` is its public address without the scheme), this room and this moment alone.
pub fn proof_text(room: &RoomName, host: &str, time: UnixMs) -> String {
    format!("{PROOF_LABEL}\n{room}\n{host}\n{}", time.0)
}

/// Gives a token to whoever proves to have the room's link.
#[utoipa::path(
    post, path = "/api/token/{room}", params(("room" = String, Path)), request_body = Proof,
    responses((status = 200, body = MemberToken), (status = 401, description = "the proof does not hold")),
)]
pub(crate) async fn token(
    State(app): State<App>,
    Path(room): Path<String>,
    request: Request,
) -> Result<Json<MemberToken>, ApiError> {
    let client = client_of(&app, &request);
    let unproven = || ApiError::unauthorised("this does not prove membership of this room at this relay");
    let room = RoomName::new(room).map_err(|_| unproven())?;
    let Sent(proof) = <Sent<Proof> as axum::extract::FromRequest<()>>::from_request(request, &()).await?;
    let now = app.clock.now();
    check(&proof, &room, host_of(&app.base), now).ok_or_else(unproven)?;
    let mut rights = vec![Right::Read, Right::Submit, Right::Work];
    if app.settings.rooms_may_spend {
        rights.push(Right::Spend);
    }
    let until = now.after(TOKEN_TIME);
    let user = member_name(&app.naming, client, &room);
    let grant = Grant { room: Some(room), user, rights: rights.iter().copied().collect(), until };
    let token = app.mint.grant(&grant)?;
    let Grant { room, user, .. } = grant;
    Ok(Json(MemberToken { token, room: room.expect("it was given"), user, rights, until_ms: until.0 }))
}

/// Whether a proof holds; does not say why not.
fn check(proof: &Proof, room: &RoomName, host: &str, now: UnixMs) -> Option<()> {
    let key = BASE32_NOPAD.decode(proof.public_key.to_uppercase().as_bytes()).ok()?;
    let key: [u8; 32] = key.try_into().ok()?;
    let signature: [u8; 64] = BASE64.decode(proof.signature.as_bytes()).ok()?.try_into().ok()?;
    let time = UnixMs(proof.time_ms);
    let is_fresh = now.since(time).max(time.since(now)) <= PROOF_TIME_MAX;
    if !is_fresh || room_of_key(&key) != *room {
        return None;
    }
    let key = VerifyingKey::from_bytes(&key).ok()?;
    key.verify_strict(proof_text(room, host, time).as_bytes(), &Signature::from_bytes(&signature)).ok()
}

fn host_of(base: &str) -> &str {
    base.split_once("://").map_or(base, |(_, host)| host)
}

/// Who asks from one address in one room is one user: for budgets, and for whose jobs are whose when a page is opened again.
fn member_name(naming: &[u8; 32], client: Client, room: &RoomName) -> UserName {
    let mut mac = Hmac::<Sha256>::new_from_slice(naming).expect("HMAC takes keys of every length");
    mac.update(format!("{client}\n{room}").as_bytes());
    let hash = BASE32_NOPAD.encode(&mac.finalize().into_bytes()[..10]).to_lowercase();
    UserName::new(format!("anon-{hash}")).expect("a prefix and base32 are a name")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ed25519_dalek::{Signer, SigningKey};

    use super::*;

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn proof(key: &SigningKey, room: &RoomName, host: &str, time: UnixMs) -> Proof {
        let signature = key.sign(proof_text(room, host, time).as_bytes());
        Proof {
            public_key: BASE32_NOPAD.encode(key.verifying_key().as_bytes()).to_lowercase(),
            time_ms: time.0,
            signature: BASE64.encode(&signature.to_bytes()),
        }
    }

    #[test]
    fn only_who_has_the_rooms_key_proves_membership_here_and_now() {
        let (key, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let room = room_of_key(key.verifying_key().as_bytes());
        let holds = |proof: &Proof, now| check(proof, &room, "relay.example", now).is_some();
        let good = proof(&key, &room, "relay.example", NOW);
        assert!(holds(&good, NOW) && holds(&good, NOW.after(PROOF_TIME_MAX)));
        assert!(!holds(&good, NOW.after(PROOF_TIME_MAX + Duration::from_millis(1))), "old");
        assert!(!holds(&proof(&key, &room, "relay.example", NOW.after(Duration::from_secs(3600))), NOW), "too early");
        assert!(!holds(&proof(&key, &room, "evil.example", NOW), NOW), "made for another relay");
        assert!(!holds(&proof(&other, &room, "relay.example", NOW), NOW), "another room's key");
        let renamed = Proof { public_key: good.public_key.clone(), ..proof(&other, &room, "relay.example", NOW) };
        assert!(!holds(&renamed, NOW), "another key's signature");
        assert!(!holds(&Proof { time_ms: NOW.0 + 1, ..good.clone() }, NOW), "not what was signed");
        let elsewhere = RoomName::new("elsewhere").unwrap();
        assert!(check(&good, &elsewhere, "relay.example", NOW).is_none());
    }

    #[test]
    fn a_weak_key_proves_nothing() {
        // A point of small order, under which one signature fits many texts.
        let key = [0; 32];
        let room = room_of_key(&key);
        let mut signature = [0; 64];
        signature[0] = 1;
        let public_key = BASE32_NOPAD.encode(&key);
        let proof = Proof { public_key, time_ms: NOW.0, signature: BASE64.encode(&signature) };
        assert!(check(&proof, &room, "relay.example", NOW).is_none());
    }

    #[test]
    fn a_member_keeps_a_name_that_tells_nothing_of_where_they_are() {
        let client = |text: &str| Client::of(text.parse().unwrap());
        let room = |name: &str| RoomName::new(name).unwrap();
        let name = member_name(&[1; 32], client("192.0.2.1"), &room("a"));
        assert_eq!(member_name(&[1; 32], client("192.0.2.1"), &room("a")), name);
        for other in [
            member_name(&[2; 32], client("192.0.2.1"), &room("a")),
            member_name(&[1; 32], client("192.0.2.2"), &room("a")),
            member_name(&[1; 32], client("192.0.2.1"), &room("b")),
        ] {
            assert_ne!(other, name);
        }
    }
}
