//! Tokens for a room's members: who has its link proves it by a signature, and nobody registers anywhere.
//!
//! The room's name is the hash of a public key that is derived from the link's secret, so the relay needs to know no rooms.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::{Path, Request, State};
use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, Mac};
use protocol::QueueProof;
use queue::{RoomName, UnixMs, UserName};
use serde::Serialize;
use sha2::Sha256;
use utoipa::ToSchema;

use crate::access::{Grant, Right};
use crate::body::Sent;
use crate::error::ApiError;
use crate::guard::client_of;
use crate::limits::TOKEN_TIME;
use crate::rates::Client;
use crate::state::App;

/// What proves membership: `protocol`'s `QueueProof`, as its document shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProofBody {
    /// The room's public key (ed25519), in base32 without padding.
    pub public_key: String,
    /// When it was made, in milliseconds since 1970.
    pub time_ms: u64,
    /// Of `manyhands queue membership 1`, room, host and time, a line each, in base64. The host is this relay's public address
    /// without the scheme.
    pub signature: String,
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

/// Gives a token to whoever proves to have the room's link.
#[utoipa::path(
    post, path = "/api/token/{room}", params(("room" = String, Path)), request_body = ProofBody,
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
    let Sent(proof) = <Sent<QueueProof> as axum::extract::FromRequest<()>>::from_request(request, &()).await?;
    let now = app.clock.now();
    if !proves(&proof, &room, &names_of(&app), now) {
        return Err(unproven());
    }
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

/// Whether a proof holds for one of these names; does not say why not.
fn proves(proof: &QueueProof, room: &RoomName, names: &[String], now: UnixMs) -> bool {
    names.iter().any(|name| proof.verify(room.as_str(), name, now.0).is_ok())
}

/// What members may call this relay in a proof. Not whatever a request says: who was given a proof for another name could bring
/// it here under that.
fn names_of(app: &App) -> Vec<String> {
    let base = app.base.split_once("://").map_or(&*app.base, |(_, host)| host);
    let mut names = vec![base.to_owned()];
    names.extend(app.settings.hosts.iter().cloned());
    // This machine calls itself by several names.
    if let Ok(address) = base.parse::<SocketAddr>()
        && address.ip().is_loopback()
    {
        let port = address.port();
        names.extend([format!("localhost:{port}"), format!("127.0.0.1:{port}"), format!("[::1]:{port}")]);
    }
    names
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

    use protocol::limits::QUEUE_PROOF_AGE_MAX;
    use protocol::{QueueKey, RoomSecret};

    use super::*;

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn key(byte: u8) -> QueueKey {
        RoomSecret::from_random([byte; 16]).queue_key()
    }

    #[test]
    fn only_who_has_the_rooms_key_proves_membership_here_and_now() {
        let room = RoomName::new(key(1).room_name()).unwrap();
        let names = ["relay.example".to_owned(), "other.example".to_owned()];
        let holds = |proof: &QueueProof, now| proves(proof, &room, &names, now);
        let good = key(1).prove("relay.example", NOW.0);
        assert!(holds(&good, NOW) && holds(&good, NOW.after(QUEUE_PROOF_AGE_MAX)));
        assert!(holds(&key(1).prove("other.example", NOW.0), NOW), "another name of this relay");
        assert!(!holds(&good, NOW.after(QUEUE_PROOF_AGE_MAX + Duration::from_millis(1))), "old");
        assert!(!holds(&key(1).prove("evil.example", NOW.0), NOW), "made for another relay");
        assert!(!holds(&key(2).prove("relay.example", NOW.0), NOW), "another room's key");
        assert!(!proves(&good, &RoomName::new("elsewhere").unwrap(), &names, NOW));
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
