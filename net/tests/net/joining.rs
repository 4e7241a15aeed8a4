//! Members find each other, notice who leaves, and never take a stranger for a member.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use net::limits::SETTLE_TIME;
use net::{Config, Event, NetError, Path, Transport, start};
use protocol::{Policy, RoomLink, RoomSecret};

use crate::world::{Node, config, deliver, pair, room};

#[tokio::test]
async fn two_nodes_meet_over_every_transport() {
    let transports = [
        ("quic", Transport::Quic),
        ("tcp", Transport::Tcp),
        ("webtransport", Transport::WebTransport),
        ("ws", Transport::WebSocket),
    ];
    for (transport, path) in transports {
        let keys = room();
        let mut ada = Node::join(&keys, &[]).await;
        let mut bob = Node::join(&keys, &[ada.address(transport).await]).await;
        assert_eq!(ada.joined(&bob.peer).await, Path::Direct(path));
        assert_eq!(bob.joined(&ada.peer).await, Path::Direct(path));
        ada.send(&bob.peer, &deliver(1), &[1, 2, 3]).unwrap();
        assert_eq!(bob.message().await, (ada.peer.clone(), deliver(1), vec![1, 2, 3]));
        assert!(bob.handle.traffic()[&ada.peer].bytes_in > 3);
    }
}

#[tokio::test]
async fn an_address_without_peer_id_is_enough() {
    let keys = room();
    let mut ada = Node::join(&keys, &[]).await;
    let mut address = ada.address("tcp").await;
    address.pop();
    let mut bob = Node::join(&keys, &[address]).await;
    bob.joined(&ada.peer).await;
}

#[tokio::test]
async fn both_may_dial_at_once_and_nothing_is_lost_when_the_surplus_link_closes() {
    let keys = room();
    let mut ada = Node::join(&keys, &[]).await;
    let mut bob = Node::join(&keys, &[]).await;
    let (to_ada, to_bob) = (ada.address("quic").await, bob.address("quic").await);
    // Neither node has run since, so both dial before either can hear of the other's dial.
    assert!(ada.handle.dial(to_bob) && bob.handle.dial(to_ada));
    ada.joined(&bob.peer).await;
    bob.joined(&ada.peer).await;
    let settled = Instant::now() + 3 * SETTLE_TIME;
    let mut lease = 0;
    while Instant::now() < settled {
        lease += 1;
        ada.send(&bob.peer, &deliver(lease), &[0; 5000]).unwrap();
        assert_eq!(bob.message().await.1, deliver(lease));
        bob.send(&ada.peer, &deliver(lease), &[0; 5000]).unwrap();
        assert_eq!(ada.message().await.1, deliver(lease));
    }
    assert!(!ada.rest().iter().any(|event| matches!(event, Event::Left { .. } | Event::Dropped { .. })));
}

#[tokio::test]
async fn eight_nodes_that_join_at_once_all_see_all() {
    let keys = room();
    let mut nodes = vec![Node::join(&keys, &[]).await];
    let mut addresses = vec![nodes[0].address("quic").await];
    for _ in 1..8 {
        let mut node = Node::join(&keys, &addresses).await;
        addresses.push(node.address("quic").await);
        nodes.push(node);
    }
    let peers: Vec<_> = nodes.iter().map(|node| node.peer.clone()).collect();
    for node in &mut nodes {
        let own = node.peer.clone();
        for peer in peers.iter().filter(|peer| **peer != own) {
            node.joined(peer).await;
        }
    }
}

#[tokio::test]
async fn who_shuts_down_is_seen_to_leave_after_its_last_message() {
    let (ada, mut bob) = pair(&room(), "quic").await;
    let peer = ada.peer.clone();
    let body = crate::world::body(3 << 20);
    ada.send(&bob.peer, &deliver(7), &body).unwrap();
    ada.handle.shutdown().await;
    let (from, message, received) = bob.message().await;
    assert_eq!((from, message), (peer.clone(), deliver(7)));
    assert!(received == body);
    bob.left(&peer).await;
    assert!(bob.handle.members().is_empty());
}

#[tokio::test]
async fn a_killed_peer_is_noticed_within_seconds() {
    for transport in ["quic", "tcp", "webtransport"] {
        let secret = RoomSecret::from_random(rand::random());
        let mut ada = Node::join(&secret.keys(), &[]).await;
        let via = vec![ada.address(transport).await.to_string()];
        let link = RoomLink { relay: None, secret, via, policy: Policy::Friends };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "joining::a_child_that_waits_to_be_killed", "--nocapture", "--include-ignored"])
            .env("MANYHANDS_TEST_LINK", link.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let peer = tokio::task::spawn_blocking(move || {
            lines.map_while(Result::ok).find_map(|line| Some(line.split_once("child is ")?.1.trim().to_owned()))
        });
        let peer = protocol::PeerId::new(peer.await.unwrap().unwrap()).unwrap();
        ada.joined(&peer).await;
        child.kill().unwrap();
        let killed = Instant::now();
        ada.left(&peer).await;
        println!("{transport}: noticed after {:?}", killed.elapsed());
        child.wait().unwrap();
    }
}

/// Run by the test above as a process of its own.
#[tokio::test]
#[ignore = "the other half of a_killed_peer_is_noticed_within_seconds"]
async fn a_child_that_waits_to_be_killed() {
    let Ok(link) = std::env::var("MANYHANDS_TEST_LINK") else { return };
    let link = RoomLink::parse(&link).unwrap();
    let via: Vec<_> = link.via.iter().map(|via| via.parse().unwrap()).collect();
    let node = Node::join(&link.secret.keys(), &via).await;
    println!("child is {}", node.peer);
    std::future::pending().await
}

#[tokio::test]
async fn a_taken_port_is_named_together_with_the_way_out() {
    let keys = room();
    let mut ada = Node::join(&keys, &[]).await;
    for transport in ["quic", "tcp", "ws"] {
        let mut taken = ada.address(transport).await;
        taken.pop();
        let error = start(Config { listen: vec![taken.clone()], ..config(&keys) }).await.unwrap_err();
        assert!(matches!(&error, NetError::AddressInUse { address } if *address == taken), "{error}");
        assert!(error.to_string().contains("choose another port"));
    }
    let relays = vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()];
    let error = start(Config { relays, ..config(&keys) }).await.unwrap_err();
    assert!(matches!(error, NetError::RelayAddress { .. }));
}
