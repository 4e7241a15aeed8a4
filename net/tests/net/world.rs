//! Rooms and nodes for the tests, and waiting for events with a limit.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use net::{Config, Event, Events, Handle, Keypair, Multiaddr, Path, SendError, start};
use protocol::{Activity, LeaseId, Message, PeerId, Presence, RoomKeys, RoomSecret, ToRequester};

/// Nothing on loopback takes this long unless it is broken; the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn room() -> RoomKeys {
    RoomSecret::from_random(rand::random()).keys()
}

pub fn config(keys: &RoomKeys) -> Config {
    Config::new(keys.clone(), &[IpAddr::from(Ipv4Addr::LOCALHOST)])
}

/// A node and the events that a test has not asked for yet.
pub struct Node {
    pub handle: Handle,
    pub peer: PeerId,
    events: Events,
    skipped: VecDeque<Event>,
    addresses: Vec<Multiaddr>,
}

impl Node {
    pub async fn start(config: Config) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let (handle, events) = start(config).await.unwrap();
        Self { peer: handle.local_peer(), handle, events, skipped: VecDeque::new(), addresses: Vec::new() }
    }

    /// A node of `keys` on loopback that dials `via`.
    pub async fn join(keys: &RoomKeys, via: &[Multiaddr]) -> Self {
        Self::start(Config { via: via.to_vec(), ..config(keys) }).await
    }

    /// Waits for the first event, skipped ones included, for which `pick` returns something.
    pub async fn wait<T>(&mut self, what: &str, pick: impl FnMut(&Event) -> Option<T>) -> T {
        match tokio::time::timeout(PATIENCE, self.find(pick)).await {
            Ok(found) => found,
            Err(_) => panic!("{} waited in vain for {what}; skipped {:?}", self.peer.short(), self.skipped),
        }
    }

    async fn find<T>(&mut self, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        for index in 0..self.skipped.len() {
            if let Some(found) = pick(&self.skipped[index]) {
                self.skipped.remove(index);
                return found;
            }
        }
        loop {
            let event = self.events.next().await.expect("the network runs");
            if let Some(found) = pick(&event) {
                return found;
            }
            self.skipped.push_back(event);
        }
    }

    /// The first address of `transport` (quic, tcp, webtransport, ws, p2p-circuit); may be asked any number of times.
    pub async fn address(&mut self, transport: &str) -> Multiaddr {
        let has = |address: &&Multiaddr| transport_of(address) == transport;
        if let Some(address) = self.addresses.iter().find(has) {
            return address.clone();
        }
        let address = self
            .wait("an address", |event| match event {
                Event::Listening { address } if has(&address) => Some(address.clone()),
                _ => None,
            })
            .await;
        self.addresses.push(address.clone());
        address
    }

    pub async fn joined(&mut self, peer: &PeerId) -> Path {
        self.wait("a member", |event| match event {
            Event::Joined { peer: who, path } if who == peer => Some(*path),
            _ => None,
        })
        .await
    }

    pub async fn left(&mut self, peer: &PeerId) {
        self.wait("a farewell", |event| matches!(event, Event::Left { peer: who } if who == peer).then_some(())).await;
    }

    pub async fn message(&mut self) -> (PeerId, Message, Vec<u8>) {
        self.wait("a message", |event| match event {
            Event::Message { from, message, body } => Some((from.clone(), message.clone(), body.clone())),
            _ => None,
        })
        .await
    }

    pub async fn presence(&mut self, author: &PeerId) -> Presence {
        self.wait("a presence", |event| match event {
            Event::Presence { from, presence } if from == author => Some(presence.clone()),
            _ => None,
        })
        .await
    }

    pub fn send(&self, to: &PeerId, message: &Message, body: &[u8]) -> Result<(), SendError> {
        self.handle.send(to, message, Arc::from(body))
    }

    pub fn tell(&self, sequence: u64, name: &str) {
        self.handle.publish(Presence { sequence, name: name.to_owned(), activity: Activity::Idle, caught: Vec::new() });
    }

    /// Everything that has happened and was not asked for.
    pub fn rest(&mut self) -> Vec<Event> {
        while let Some(event) = self.events.try_next() {
            self.skipped.push_back(event);
        }
        self.skipped.drain(..).collect()
    }
}

/// The last part of an address that is a transport's name.
pub fn transport_of(address: &Multiaddr) -> &'static str {
    let name = |part: Protocol<'_>| match part {
        Protocol::QuicV1 => Some("quic"),
        Protocol::Tcp(_) => Some("tcp"),
        Protocol::WebTransport => Some("webtransport"),
        Protocol::Ws(_) => Some("ws"),
        Protocol::P2pCircuit => Some("p2p-circuit"),
        _ => None,
    };
    address.iter().filter_map(name).last().unwrap_or("none")
}

/// Two members of `keys`, connected over `transport`.
pub async fn pair(keys: &RoomKeys, transport: &str) -> (Node, Node) {
    let mut ada = Node::join(keys, &[]).await;
    let address = ada.address(transport).await;
    let mut bob = Node::join(keys, &[address]).await;
    ada.joined(&bob.peer).await;
    bob.joined(&ada.peer).await;
    (ada, bob)
}

pub fn deliver(lease: u64) -> Message {
    Message::ToRequester(ToRequester::Deliver { lease: LeaseId(lease), compute_ms: 1 })
}

pub fn heartbeat(lease: u64) -> Message {
    Message::ToRequester(ToRequester::Heartbeat { lease: LeaseId(lease) })
}

pub fn keypair() -> Keypair {
    Keypair::generate_ed25519()
}

/// A body whose every byte depends on its place.
pub fn body(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index * 31 + index / 251) as u8).collect()
}
