//! How a native node introduces itself: offer, answer and candidates, as libp2p's `/webrtc` has it.
//!
//! The circuit is encrypted from end to end and both ends are authenticated, so the fingerprints in the descriptions
//! belong to the peers that sent them; nothing is proved again on the connection itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures::future::{Either, pending, select};
use futures::io::ReadHalf;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::Stream;
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::config::CryptoProvider;
use str0m::net::Protocol;
use str0m::{Candidate, Rtc, RtcConfig};
use tokio::sync::mpsc;

use super::Means;
use super::connection::Connection;
use super::driver::Driver;
use super::sockets::Sockets;
use super::stun::seen_from_outside;
use crate::limits::{CANDIDATES_MAX, SEND_BYTES_MAX, SIGNALLING_TIME_MAX};
use crate::roster::pause;
use crate::signalling::words::{self, Kind};
use crate::webrtc::{Error, FIRST_CHANNEL, Role};

/// Introduces this node to the one at the other end of `stream`, and waits until they are connected.
pub(super) async fn introduce(stream: Stream, role: Role, means: &Means) -> Result<Connection, Error> {
    match select(pin!(talk(stream, role, means)), pin!(pause(SIGNALLING_TIME_MAX))).await {
        Either::Left((result, _)) => result,
        Either::Right(((), _)) => Err(Error::Late),
    }
}

async fn talk(stream: Stream, role: Role, means: &Means) -> Result<Connection, Error> {
    let (mut reader, mut writer) = stream.split();
    let mut sockets = Sockets::bind(&means.ips).await?;
    let seen = seen_from_outside(&mut sockets, &means.servers).await;
    let mut rtc = rtc(&sockets, &seen, Arc::clone(&means.crypto))?;
    match role {
        Role::Offerer => {
            let mut changes = rtc.sdp_api();
            changes.add_channel(FIRST_CHANNEL.to_owned());
            let (offer, pending) = changes.apply().expect("a channel was added");
            words::write(&mut writer, Kind::Offer, offer.to_sdp_string()).await?;
            let answer = described(&mut reader, Kind::Answer).await?;
            let answer = SdpAnswer::from_sdp_string(&answer).map_err(|_| Error::Malformed)?;
            rtc.sdp_api().accept_answer(pending, answer)?;
        }
        Role::Answerer => {
            let offer = described(&mut reader, Kind::Offer).await?;
            let offer = SdpOffer::from_sdp_string(&offer).map_err(|_| Error::Malformed)?;
            let answer = rtc.sdp_api().accept_offer(offer)?;
            words::write(&mut writer, Kind::Answer, answer.to_sdp_string()).await?;
        }
    }
    let (found, candidates) = mpsc::channel(CANDIDATES_MAX);
    let (driver, shared) = Driver::new(rtc, sockets, candidates);
    let connection = Connection::new(shared);
    tokio::spawn(driver.run());
    let connected = match select(pin!(connection.connected()), pin!(hear(&mut reader, &found))).await {
        Either::Left((connected, _)) => connected,
        Either::Right(((), _)) => Err(Error::Malformed),
    };
    connected?;
    tokio::spawn(async move {
        // The other side may have closed the circuit already.
        let _ = writer.close().await;
    });
    Ok(connection)
}

/// What does the protocols, with all ways to this node, which its descriptions tell.
fn rtc(sockets: &Sockets, seen: &BTreeMap<SocketAddr, SocketAddr>, crypto: Arc<CryptoProvider>) -> Result<Rtc, Error> {
    let config = RtcConfig::new().set_crypto_provider(crypto).clear_codecs();
    let mut rtc = config.set_sctp_max_buffered_amount(SEND_BYTES_MAX as usize).build(Instant::now());
    for own in sockets.addresses() {
        let mut candidates = vec![Candidate::host(own, "udp")];
        if let Some(seen) = seen.get(&own).filter(|seen| **seen != own) {
            candidates.push(Candidate::server_reflexive(*seen, own, "udp"));
        }
        for candidate in candidates {
            rtc.add_local_candidate(candidate.map_err(|error| Error::Refused(error.to_string()))?);
        }
    }
    Ok(rtc)
}

/// Reads the other side's description.
async fn described(reader: &mut ReadHalf<Stream>, expected: Kind) -> Result<String, Error> {
    match words::read(reader).await? {
        Some((word, text)) if word == expected => Ok(text),
        _ => Err(Error::Malformed),
    }
}

/// Passes candidates on as long as there are any.
async fn hear(reader: &mut ReadHalf<Stream>, found: &mpsc::Sender<Candidate>) {
    for _ in 0..CANDIDATES_MAX {
        match words::read(reader).await {
            Ok(Some((Kind::Candidate, text))) => {
                // The driver may have ended; that is heard elsewhere.
                if let Some(candidate) = candidate(&text) {
                    let _ = found.try_send(candidate);
                }
            }
            Ok(_) => (),
            // The other side is connected and has said all it will.
            Err(_) => break,
        }
    }
    pending::<()>().await
}

/// A candidate as browsers write them; `None` for one that cannot be used, such as a name that only a browser's own
/// machine can resolve. Its owner comes to us then.
fn candidate(text: &str) -> Option<Candidate> {
    let parsed: serde_json::Value = serde_json::from_str(text).ok()?;
    let candidate = Candidate::from_sdp_string(parsed["candidate"].as_str()?).ok()?;
    (candidate.proto() == Protocol::Udp).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_of_browsers_are_read_and_those_of_no_use_left_out() {
        let json = |candidate: &str| serde_json::json!({ "candidate": candidate, "sdpMid": "0" }).to_string();
        let usable =
            json("candidate:1 1 udp 2113937151 192.0.2.1 50000 typ host generation 0 ufrag abcd network-cost 999");
        assert_eq!(candidate(&usable).unwrap().addr(), "192.0.2.1:50000".parse().unwrap());
        let hidden = "candidate:1 1 udp 2113937151 1f4712db-ea17-4bcf-a596-105139dfd8bf.local 50000 typ host";
        let tcp = "candidate:1 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active";
        for useless in [hidden, tcp, "", "candidate:"] {
            assert!(candidate(&json(useless)).is_none(), "{useless}");
        }
        assert!(candidate("{}").is_none() && candidate("[").is_none() && candidate("7").is_none());
    }
}
