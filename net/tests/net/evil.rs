//! Strangers and liars: none becomes a member without the secret, and none hurts the others.

use net::raw::{RawLink, RawPeer};
use net::{DropReason, Event, HandshakeError};
use protocol::RoomKeys;
use protocol::frame::{FrameError, chunk_prefix, encode_credit, encode_header};
use protocol::limits::{BODY_BYTES_MAX, CREDIT_BYTES, HEADER_BYTES_MAX};

use crate::world::{Node, deliver, heartbeat, keypair, pair, room};

fn no_trace_of(event: &Event, stranger: &protocol::PeerId) -> bool {
    match event {
        Event::Joined { peer, .. } | Event::Left { peer } | Event::Dropped { peer, .. } => peer != stranger,
        Event::Message { from, .. } | Event::Presence { from, .. } => from != stranger,
        Event::Listening { .. } | Event::Moved { .. } | Event::RelayConnected | Event::RelayLost => true,
    }
}

#[tokio::test]
async fn nodes_of_two_rooms_never_meet() {
    let (mut ada, bob) = pair(&room(), "quic").await;
    let other = room();
    let mut eve = Node::join(&other, &[ada.address("quic").await, ada.address("tcp").await]).await;
    eve.tell(1, "eve");
    ada.tell(1, "ada");
    // A proper member of Eve's room arrives after her dials; by then they have long failed.
    let mut friend = Node::join(&other, &[eve.address("quic").await]).await;
    assert_eq!(friend.presence(&eve.peer).await.name, "eve");
    ada.send(&bob.peer, &heartbeat(1), &[]).unwrap();
    assert_eq!(eve.send(&ada.peer, &heartbeat(1), &[]), Err(net::SendError::Absent));
    assert!(ada.rest().iter().all(|event| no_trace_of(event, &eve.peer)));
    assert!(eve.rest().iter().all(|event| no_trace_of(event, &ada.peer)));
}

async fn dial(node: &mut Node) -> (RawPeer, RawLink) {
    let mut peer = RawPeer::start(keypair(), None).unwrap();
    let link = peer.dial(node.address("tcp").await).await.unwrap();
    (peer, link)
}

/// The link is closed without another word, and Ada never heard of the peer.
async fn assert_turned_away(ada: &mut Node, stranger: &RawPeer, mut link: RawLink) {
    assert!(link.read_to_end().await.is_empty());
    assert!(ada.rest().iter().all(|event| no_trace_of(event, &stranger.local_peer())));
    assert!(!ada.handle.members().contains_key(&stranger.local_peer()));
}

#[tokio::test]
async fn knowing_the_room_id_alone_opens_nothing() {
    let keys = room();
    let mut ada = Node::join(&keys, &[]).await;
    let (eve, mut link) = dial(&mut ada).await;
    link.say_hello(&keys, [1; 32]).await.unwrap();
    let theirs = link.read_hello().await.unwrap();
    let guess = link.proof(&room(), [1; 32], theirs.nonce);
    link.say_proof(&guess).await.unwrap();
    link.write(&encode_header(&heartbeat(1), 0).unwrap()).await.unwrap();
    assert_turned_away(&mut ada, &eve, link).await;
}

#[tokio::test]
async fn a_proof_that_is_skipped_opens_nothing() {
    let keys = room();
    let mut ada = Node::join(&keys, &[]).await;
    let (eve, mut link) = dial(&mut ada).await;
    link.say_hello(&keys, [1; 32]).await.unwrap();
    link.read_hello().await.unwrap();
    link.write(&encode_header(&heartbeat(1), 0).unwrap()).await.unwrap();
    assert_turned_away(&mut ada, &eve, link).await;
}

#[tokio::test]
async fn a_proof_cannot_be_replayed() {
    let keys = room();
    let mut ada = Node::join(&keys, &[]).await;
    let (eve, mut link) = dial(&mut ada).await;
    link.say_hello(&keys, [1; 32]).await.unwrap();
    // A true proof of this very pair, heard on an earlier stream with another nonce of Ada's.
    let replayed = link.proof(&keys, [1; 32], [2; 32]);
    link.read_hello().await.unwrap();
    link.say_proof(&replayed).await.unwrap();
    assert_turned_away(&mut ada, &eve, link).await;
}

#[tokio::test]
async fn a_proof_cannot_be_reflected() {
    let keys = room();
    let mut eve = RawPeer::start(keypair(), Some("/ip4/127.0.0.1/tcp/0".parse().unwrap())).unwrap();
    let mut ada = Node::join(&keys, &[eve.address().await.unwrap()]).await;
    let mut link = eve.accept().await.unwrap();
    let theirs = link.read_hello().await.unwrap();
    link.say_hello(&keys, theirs.nonce).await.unwrap();
    let proof = link.read_proof().await.unwrap();
    link.say_proof(&proof).await.unwrap();
    assert_turned_away(&mut ada, &eve, link).await;
}

#[tokio::test]
async fn handshakes_of_any_other_shape_open_nothing() {
    let keys = room();
    let mut ada = Node::join(&keys, &[]).await;
    for bytes in [&[0xff; 70_000][..], &[0, 0], &[3, 0, 1, 2, 3], &[128, 0]] {
        let mut eve = RawPeer::start(keypair(), None).unwrap();
        let mut link = eve.dial(ada.address("tcp").await).await.unwrap();
        // Ada may hang up before she has read it all.
        let _ = link.write(bytes).await;
        link.close().await;
        assert_turned_away(&mut ada, &eve, link).await;
    }
}

async fn member(ada: &mut Node, keys: &RoomKeys) -> (RawPeer, RawLink) {
    let mut eve = RawPeer::start(keypair(), None).unwrap();
    let mut link = eve.dial(ada.address("tcp").await).await.unwrap();
    link.join(keys).await.unwrap();
    ada.joined(&eve.local_peer()).await;
    (eve, link)
}

#[tokio::test]
async fn malformed_frames_drop_their_sender_and_nobody_else() {
    let keys = room();
    let (mut ada, bob) = pair(&keys, "quic").await;
    let oversized = [&[0], &u32::MAX.to_le_bytes()[..]].concat();
    let header = |bytes: usize| encode_header(&deliver(1), bytes).unwrap();
    let mut huge_body = header(1);
    huge_body[5..9].copy_from_slice(&(BODY_BYTES_MAX as u32 + 1).to_le_bytes());
    let nested =
        [&[0], &(HEADER_BYTES_MAX as u32).to_le_bytes()[..], &[0; 4], &vec![0x81; HEADER_BYTES_MAX - 4]].concat();
    let two_bodies = [header(5), header(5)].concat();
    let over_credit = {
        let mut bytes = header(2 * CREDIT_BYTES as usize);
        bytes.extend(encode_credit(1));
        bytes
    };
    let cases = [
        (vec![9, 0, 0, 0, 0], FrameError::Kind),
        (oversized, FrameError::TooLong),
        (huge_body, FrameError::TooLong),
        (nested, FrameError::Header),
        ([&chunk_prefix(1)[..], &[0]].concat(), FrameError::StrayChunk),
        (two_bodies, FrameError::TwoBodies),
        (encode_credit(u32::MAX), FrameError::Credit),
        (over_credit, FrameError::Credit),
    ];
    for (bytes, expected) in cases {
        let (eve, mut link) = member(&mut ada, &keys).await;
        link.write(&bytes).await.unwrap();
        let reason = ada
            .wait("a reason", |event| match event {
                Event::Dropped { peer, reason } if *peer == eve.local_peer() => Some(*reason),
                _ => None,
            })
            .await;
        assert_eq!(reason, DropReason::Malformed(expected));
        ada.left(&eve.local_peer()).await;
        bob.send(&ada.peer, &deliver(3), &[3; 300]).unwrap();
        assert_eq!(ada.message().await.1, deliver(3));
    }
}

#[tokio::test]
async fn a_dropped_peer_is_refused_for_a_while() {
    let keys = room();
    let mut ada = Node::join(&keys, &[]).await;
    let (mut eve, mut link) = member(&mut ada, &keys).await;
    link.write(&[9; 9]).await.unwrap();
    ada.left(&eve.local_peer()).await;
    link.read_to_end().await;
    let address = ada.address("tcp").await;
    let again = async {
        let mut link = eve.dial(address).await?;
        link.join(&keys).await.map_err(|error| match error {
            HandshakeError::Closed(error) => error,
            error => std::io::Error::other(error),
        })
    };
    let outcome = tokio::time::timeout(std::time::Duration::from_secs(3), again).await;
    assert!(!matches!(outcome, Ok(Ok(()))), "she came back at once");
}

#[tokio::test]
async fn a_body_that_stops_or_trickles_is_dropped() {
    let keys = room();
    let mut ada = Node::join(&keys, &[]).await;
    let (mallory, mut stopped) = member(&mut ada, &keys).await;
    stopped.write(&encode_header(&deliver(1), 1000).unwrap()).await.unwrap();
    let (eve, mut trickling) = member(&mut ada, &keys).await;
    trickling.write(&encode_header(&deliver(1), 1000).unwrap()).await.unwrap();
    let trickle = async {
        let mut clock = tokio::time::interval(std::time::Duration::from_secs(1));
        while trickling.write(&[&chunk_prefix(1)[..], &[0]].concat()).await.is_ok() {
            clock.tick().await;
        }
    };
    let watch = async {
        for peer in [mallory.local_peer(), eve.local_peer()] {
            let reason = ada
                .wait("a reason", |event| match event {
                    Event::Dropped { peer: who, reason } if *who == peer => Some(*reason),
                    _ => None,
                })
                .await;
            assert_eq!(reason, DropReason::Stalled);
        }
    };
    tokio::join!(trickle, watch);
}
