//! Finding each other at the relay, reaching each other through it, and doing without it.

use libp2p::multiaddr::Protocol;
use net::{Event, Path, Probe, Transport};
use relay::Settings;

use crate::place::{Place, get};
use crate::world::{Node, PATIENCE, body, deliver, room};

#[tokio::test]
async fn members_who_know_only_the_relay_connect_directly() {
    let (place, keys) = (Place::open(Settings::loopback()).await, room());
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Node::start(place.member(&keys)).await);
    }
    let peers: Vec<_> = nodes.iter().map(|node| node.peer.clone()).collect();
    for (index, node) in nodes.iter_mut().enumerate() {
        for (other, peer) in peers.iter().enumerate() {
            if other != index {
                assert!(matches!(node.joined(peer).await, Path::Direct(_)));
            }
        }
    }
    place.stats(|stats| (stats.registrations, stats.circuits) == (3, 0)).await;
    place.close().await;
}

#[tokio::test]
async fn members_behind_walls_talk_through_the_relay() {
    let (place, keys) = (Place::open(Settings::loopback()).await, room());
    let mut ada = Node::start(place.hidden(&keys)).await;
    let mut bob = Node::start(place.hidden(&keys)).await;
    assert_eq!(ada.joined(&bob.peer).await, Path::Relayed);
    assert_eq!(bob.joined(&ada.peer).await, Path::Relayed);
    for bytes in [10, 1 << 20, 12 << 20] {
        let sent = body(bytes);
        ada.send(&bob.peer, &deliver(1), &sent).unwrap();
        bob.send(&ada.peer, &deliver(2), &sent).unwrap();
        assert!(bob.message().await.2 == sent && ada.message().await.2 == sent, "{bytes} bytes");
    }
    ada.tell(1, "ada");
    assert_eq!(bob.presence(&ada.peer).await.name, "ada");
    place.stats(|stats| stats.reservations == 2 && stats.circuits >= 1 && stats.bytes_in > 24 << 20).await;
    let peer = ada.peer.clone();
    ada.handle.shutdown().await;
    bob.left(&peer).await;
}

#[tokio::test]
async fn one_wall_is_enough_to_need_the_relay() {
    let (place, keys) = (Place::open(Settings::loopback()).await, room());
    let mut ada = Node::start(place.hidden(&keys)).await;
    let mut bob = Node::start(place.member(&keys)).await;
    assert_eq!(ada.joined(&bob.peer).await, Path::Relayed);
    assert_eq!(bob.joined(&ada.peer).await, Path::Relayed);
}

#[tokio::test]
async fn members_whom_nobody_can_dial_are_introduced_and_need_the_relay_no_more() {
    let (place, keys) = (Place::open(Settings::loopback()).await, room());
    let mut ada = Node::start(place.quiet(&keys)).await;
    let mut bob = Node::start(place.quiet(&keys)).await;
    let introduced = Path::Direct(Transport::WebRtc);
    assert_eq!(ada.joined(&bob.peer).await, introduced, "nobody hears of a member before it is introduced");
    assert_eq!(bob.joined(&ada.peer).await, introduced);
    place.stats(|stats| stats.circuits == 0).await;
    for bytes in [10, 1 << 20, 12 << 20] {
        let sent = body(bytes);
        ada.send(&bob.peer, &deliver(1), &sent).unwrap();
        bob.send(&ada.peer, &deliver(2), &sent).unwrap();
        assert!(bob.message().await.2 == sent && ada.message().await.2 == sent, "{bytes} bytes");
    }
    ada.tell(1, "ada");
    assert_eq!(bob.presence(&ada.peer).await.name, "ada");
    place.stats(|stats| stats.circuits == 0 && stats.bytes_in < 1 << 20).await;
    // Every one is a stream of its own, and thereby a channel that opens and closes.
    for _ in 0..40 {
        let echo = ada.handle.probe(&bob.peer, Probe::Echo { bytes: 1000, count: 1 }).await.unwrap();
        assert_eq!(echo.path, introduced);
    }
    let peer = ada.peer.clone();
    ada.handle.shutdown().await;
    bob.left(&peer).await;
}

#[tokio::test]
async fn members_stay_together_without_the_relay_and_new_ones_come_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { data: Some(folder.path().to_owned()), ..Settings::loopback() };
    let (place, keys) = (Place::open(settings.clone()).await, room());
    let mut ada = Node::start(place.member(&keys)).await;
    let mut bob = Node::start(place.member(&keys)).await;
    ada.joined(&bob.peer).await;
    bob.joined(&ada.peer).await;
    let listen: Vec<_> = place
        .addresses
        .iter()
        .map(|address| {
            address.iter().filter(|part| !matches!(part, Protocol::P2p(_) | Protocol::Certhash(_))).collect()
        })
        .collect();
    let before = place.addresses.clone();
    place.close().await;
    ada.wait("the loss", |event| matches!(event, Event::RelayLost).then_some(())).await;
    ada.send(&bob.peer, &deliver(1), &[1; 100_000]).unwrap();
    assert_eq!(bob.message().await.2.len(), 100_000);
    let place = Place::open(Settings { listen, ..settings }).await;
    assert_eq!(place.addresses, before, "the identity, the ports and the certificates are the same");
    assert!(before.iter().any(|address| address.to_string().contains("/certhash/")));
    ada.wait("the return", |event| matches!(event, Event::RelayConnected).then_some(())).await;
    let mut carol = Node::start(place.member(&keys)).await;
    carol.joined(&ada.peer).await;
    carol.joined(&bob.peer).await;
    assert!(!ada.rest().iter().any(|event| matches!(event, Event::Left { .. })));
}

#[tokio::test]
async fn a_circuit_gives_way_to_an_introduction_and_that_to_an_address() {
    let (place, keys) = (Place::open(Settings::loopback()).await, room());
    let mut ada = Node::start(place.member(&keys)).await;
    let circuit = ada.address("p2p-circuit").await;
    let tcp = ada.address("tcp").await;
    // Bob knows Ada's circuit only, from a room link; not even the relay is his.
    let mut bob = Node::join(&keys, &[circuit]).await;
    let introduced = Path::Direct(Transport::WebRtc);
    assert_eq!(ada.joined(&bob.peer).await, introduced);
    assert_eq!(bob.joined(&ada.peer).await, introduced);
    assert!(bob.handle.dial(tcp));
    let direct = |node: &Node, peer| {
        matches!(node.handle.members().get(peer), Some(Path::Direct(Transport::Tcp | Transport::Quic)))
    };
    let upgrade = async {
        while !direct(&ada, &bob.peer) || !direct(&bob, &ada.peer) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, upgrade).await.unwrap();
    place.stats(|stats| stats.circuits == 0 && stats.reservations == 1).await;
    ada.send(&bob.peer, &deliver(1), &[1; 1_000_000]).unwrap();
    assert_eq!(bob.message().await.2.len(), 1_000_000);
}

#[tokio::test]
async fn the_api_tells_where_the_relay_is_and_that_it_is_well() {
    let place = Place::open(Settings::loopback()).await;
    let (status, body) = get(place.http, "/addrs").await;
    let addrs: serde_json::Value = serde_json::from_str(&body).unwrap();
    let expected: Vec<_> = place.addresses.iter().map(ToString::to_string).collect();
    assert_eq!((status, &addrs["addrs"]), (200, &serde_json::json!(expected)));
    assert!(expected.iter().all(|address| address.ends_with(addrs["peer"].as_str().unwrap())));
    let (status, body) = get(place.http, "/api/health").await;
    assert!(status == 200 && body.contains("\"ok\""));
    let (status, body) = get(place.http, "/").await;
    assert!(status == 200 && body.contains(&expected[0]));
    assert_eq!(get(place.http, "/nothing").await.0, 404);
    place.close().await;
}
