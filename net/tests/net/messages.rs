//! Bodies of every size arrive whole, small messages overtake them, and slow readers are bounded.

use std::time::Duration;

use net::raw::RawPeer;
use net::{DropReason, Event, Path, Probe, ProbeError, SendError, Transport};
use protocol::frame::encode_header;
use protocol::limits::{BODY_BYTES_MAX, INBOX_MESSAGES_MAX, OUTBOX_MESSAGES_MAX};

use crate::world::{Node, body, deliver, heartbeat, keypair, pair, room};

#[tokio::test]
async fn large_bodies_arrive_whole_both_ways_at_once() {
    for transport in ["quic", "tcp", "webtransport", "ws"] {
        let (mut ada, mut bob) = pair(&room(), transport).await;
        let sizes = [1, 65_536, 65_537, 1 << 20, 5_000_001, 12 << 20, BODY_BYTES_MAX];
        for (lease, bytes) in (0..).zip(sizes) {
            let sent = body(bytes);
            ada.send(&bob.peer, &deliver(lease), &sent).unwrap();
            bob.send(&ada.peer, &deliver(lease), &sent).unwrap();
            let ((_, to_bob, bob_has), (_, to_ada, ada_has)) = tokio::join!(bob.message(), ada.message());
            assert_eq!((to_bob, to_ada), (deliver(lease), deliver(lease)));
            assert!(bob_has == sent && ada_has == sent, "{bytes} bytes over {transport}");
        }
        assert_eq!(ada.send(&bob.peer, &deliver(9), &vec![0; BODY_BYTES_MAX + 1]), Err(SendError::TooLong));
    }
}

#[tokio::test]
async fn a_heartbeat_overtakes_the_body_under_way() {
    let (ada, mut bob) = pair(&room(), "tcp").await;
    let large = body(12 << 20);
    ada.send(&bob.peer, &deliver(1), &large).unwrap();
    ada.send(&bob.peer, &heartbeat(1), &[]).unwrap();
    assert_eq!(bob.message().await.1, heartbeat(1));
    let (_, message, received) = bob.message().await;
    assert_eq!(message, deliver(1));
    assert!(received == large);
}

#[tokio::test]
async fn whoever_reads_too_slowly_is_dropped_and_the_sender_told() {
    let (mut ada, mut bob) = pair(&room(), "quic").await;
    let mut sent = 0;
    // The runtime of this test has one thread and nothing is awaited, so nothing leaves: the outbox must fill up.
    let error = loop {
        match ada.send(&bob.peer, &heartbeat(sent), &[]) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((error, sent as usize), (SendError::Slow, OUTBOX_MESSAGES_MAX));
    ada.wait("the reason", |event| matches!(event, Event::Dropped { reason: DropReason::Slow, .. }).then_some(()))
        .await;
    ada.left(&bob.peer).await;
    assert_eq!(ada.send(&bob.peer, &heartbeat(0), &[]), Err(SendError::Absent));
    bob.left(&ada.peer).await;
}

#[tokio::test]
async fn a_node_that_does_not_listen_is_not_buried() {
    let keys = room();
    let mut ada = Node::join(&keys, &[]).await;
    let mut eve = RawPeer::start(keypair(), None).unwrap();
    let mut link = eve.dial(ada.address("tcp").await).await.unwrap();
    link.join(&keys).await.unwrap();
    let frames = encode_header(&heartbeat(1), 0).unwrap().repeat(100);
    // Ada takes nothing out of her inbox, so she stops reading, so Eve cannot write any more.
    let mut written = 0;
    while tokio::time::timeout(Duration::from_secs(1), link.write(&frames)).await.is_ok() {
        written += 100;
        assert!(written < 1_000_000, "nothing stops Eve");
    }
    let waiting = ada.rest().iter().filter(|event| matches!(event, Event::Message { .. })).count();
    assert_eq!(waiting, INBOX_MESSAGES_MAX);
}

#[tokio::test]
async fn a_disconnected_peer_stays_away_for_a_while() {
    let (mut ada, mut bob) = pair(&room(), "quic").await;
    ada.handle.disconnect(&bob.peer);
    ada.wait("the reason", |event| matches!(event, Event::Dropped { reason: DropReason::Asked, .. }).then_some(()))
        .await;
    ada.left(&bob.peer).await;
    bob.left(&ada.peer).await;
    let carol = Node::join(&room(), &[]).await;
    assert_eq!(ada.send(&carol.peer, &heartbeat(0), &[]), Err(SendError::Absent));
    assert!(ada.handle.members().is_empty() && bob.handle.members().is_empty());
}

#[tokio::test]
async fn the_path_to_a_member_can_be_measured_within_limits() {
    let keys = room();
    let (ada, bob) = pair(&keys, "quic").await;
    let echo = ada.handle.probe(&bob.peer, Probe::Echo { bytes: 16 * 1024, count: 5 }).await.unwrap();
    assert_eq!((echo.path, echo.echoes.len(), echo.bytes), (Path::Direct(Transport::Quic), 5, 5 * 16 * 1024));
    assert!(echo.echo_p50().is_some_and(|time| time <= echo.took));
    for probe in [Probe::Upload { bytes: 1 << 20, count: 2 }, Probe::Download { bytes: 1 << 20, count: 2 }] {
        let measured = bob.handle.probe(&ada.peer, probe).await.unwrap();
        assert!(measured.bytes == 2 << 20 && measured.bytes_per_s() > 0.0);
    }
    let too_long = ada.handle.probe(&bob.peer, Probe::Upload { bytes: 1 << 20, count: 65 }).await;
    assert!(matches!(too_long, Err(ProbeError::TooLong)));
    assert!(matches!(ada.handle.probe(&ada.peer, Probe::Echo { bytes: 1, count: 1 }).await, Err(ProbeError::Absent)));
}
