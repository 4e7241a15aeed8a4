//! Meeting at the relay with libp2p's own rendezvous client, as members do and as outsiders try.

use futures::StreamExt;
use libp2p::rendezvous::client::{Behaviour, Event};
use libp2p::rendezvous::{Cookie, ErrorCode, Namespace};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{PeerId, Swarm, SwarmBuilder, noise, tcp, yamux};
use net::{Keypair, Multiaddr};
use relay::Settings;

use crate::place::Place;
use crate::world::{Node, PATIENCE, room, transport_of};

/// Longer than any test waits.
const LIFE: u64 = 120;
const _: () = assert!(LIFE > PATIENCE.as_secs());

/// libp2p's client, connected to a relay.
struct Visitor {
    swarm: Swarm<Behaviour>,
    relay: PeerId,
    addresses: Vec<Multiaddr>,
}

type Found = Result<(Vec<PeerId>, Cookie), ErrorCode>;

impl Visitor {
    async fn arrive(place: &Place) -> Self {
        let key = Keypair::generate_ed25519();
        Self::arrive_signing_as(place, key.clone(), key).await
    }

    /// One that connects with one key and signs its registrations with another.
    async fn arrive_signing_as(place: &Place, key: Keypair, signer: Keypair) -> Self {
        let swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_quic()
            .with_behaviour(|_| Behaviour::new(signer))
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
            .build();
        let addresses = place.addresses.clone();
        let Some(libp2p::multiaddr::Protocol::P2p(relay)) = addresses[0].iter().last() else { unreachable!() };
        let mut visitor = Self { swarm, relay, addresses };
        visitor.swarm.add_external_address("/ip4/192.0.2.1/udp/4001/quic-v1".parse().unwrap());
        visitor.connect("tcp").await;
        visitor
    }

    fn peer(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    /// Opens a connection over `transport`, whether or not there is one.
    async fn connect(&mut self, transport: &str) -> ConnectionId {
        let address = self.addresses.iter().find(|address| transport_of(address) == transport).unwrap();
        let dial = DialOpts::peer_id(self.relay).condition(PeerCondition::Always).addresses(vec![address.clone()]);
        self.swarm.dial(dial.build()).unwrap();
        self.wait(|event| match event {
            SwarmEvent::ConnectionEstablished { connection_id, .. } => Some(connection_id),
            _ => None,
        })
        .await
    }

    async fn wait<T>(&mut self, mut pick: impl FnMut(SwarmEvent<Event>) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = pick(self.swarm.select_next_some().await) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap()
    }

    async fn register(&mut self, name: &str, seconds: Option<u64>) -> Result<u64, ErrorCode> {
        self.swarm.behaviour_mut().register(namespace(name), self.relay, seconds).unwrap();
        self.wait(|event| match event {
            SwarmEvent::Behaviour(Event::Registered { ttl, .. }) => Some(Ok(ttl)),
            SwarmEvent::Behaviour(Event::RegisterFailed { error, .. }) => Some(Err(error)),
            _ => None,
        })
        .await
    }

    async fn discover(&mut self, name: Option<&str>, cookie: Option<Cookie>, limit: Option<u64>) -> Found {
        self.swarm.behaviour_mut().discover(name.map(namespace), cookie, limit, self.relay);
        self.wait(|event| match event {
            SwarmEvent::Behaviour(Event::Discovered { registrations, cookie, .. }) => {
                assert!(registrations.iter().all(|found| Some(found.namespace.to_string().as_str()) == name));
                Some(Ok((registrations.iter().map(|found| found.record.peer_id()).collect(), cookie)))
            }
            SwarmEvent::Behaviour(Event::DiscoverFailed { error, .. }) => Some(Err(error)),
            _ => None,
        })
        .await
    }

    /// Who is registered under `name`.
    async fn found(&mut self, name: &str) -> Vec<PeerId> {
        self.discover(Some(name), None, None).await.unwrap().0
    }

    /// Waits until exactly `peers` are registered under `name`.
    async fn finds(&mut self, name: &str, peers: &[PeerId]) {
        let waiting = async { while self.found(name).await != peers {} };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    }
}

fn namespace(name: &str) -> Namespace {
    Namespace::new(name.to_owned()).unwrap()
}

#[tokio::test]
async fn the_stock_client_registers_discovers_and_unregisters() {
    let place = Place::open(Settings::loopback()).await;
    let (mut ada, mut bob) = (Visitor::arrive(&place).await, Visitor::arrive(&place).await);
    assert_eq!(ada.register("a", Some(LIFE)).await, Ok(LIFE));
    assert_eq!(bob.register("a", None).await, Ok(LIFE), "the longest life there is");
    assert_eq!(bob.found("a").await, [ada.peer(), bob.peer()]);
    place.stats(|stats| stats.registrations == 2).await;
    let relay = ada.relay;
    ada.swarm.behaviour_mut().unregister(namespace("a"), relay);
    ada.finds("a", &[bob.peer()]).await;
}

#[tokio::test]
async fn cookies_lead_the_stock_client_through_the_list() {
    let place = Place::open(Settings::loopback()).await;
    let mut visitors = Vec::new();
    for _ in 0..5 {
        let mut visitor = Visitor::arrive(&place).await;
        visitor.register("a", Some(LIFE)).await.unwrap();
        visitors.push(visitor);
    }
    let peers: Vec<_> = visitors.iter().map(Visitor::peer).collect();
    let reader = &mut visitors[0];
    let (mut found, mut cookie) = (Vec::new(), None);
    for expected in [2, 2, 1, 0, 0] {
        let (page, next) = reader.discover(Some("a"), cookie, Some(2)).await.unwrap();
        assert_eq!(page.len(), expected);
        found.extend(page);
        cookie = Some(next);
    }
    assert_eq!(found, peers);
    assert_eq!(reader.discover(Some("b"), cookie.clone(), None).await.unwrap_err(), ErrorCode::InvalidCookie);
    visitors[3].register("a", Some(LIFE)).await.unwrap();
    let (page, _) = visitors[0].discover(Some("a"), cookie, None).await.unwrap();
    assert_eq!(page, [peers[3]], "who renews is named again");
}

#[tokio::test]
async fn an_outsider_learns_nothing_about_rooms() {
    let (place, keys) = (Place::open(Settings::loopback()).await, room());
    let _ada = Node::start(place.member(&keys)).await;
    let _bob = Node::start(place.member(&keys)).await;
    place.stats(|stats| stats.registrations == 2).await;
    let mut eve = Visitor::arrive(&place).await;
    let everything = [None, Some(Cookie::for_all_namespaces()), Some(Cookie::for_namespace(namespace("a")))];
    for cookie in everything {
        let answer = eve.discover(None, cookie, None).await;
        assert_eq!(answer.unwrap_err(), ErrorCode::InvalidNamespace);
    }
    assert_eq!(eve.discover(Some(""), None, None).await.unwrap_err(), ErrorCode::InvalidNamespace);
    for guess in [keys.id().to_string(), keys.topic().to_owned(), "a".to_owned()] {
        for cookie in [None, Some(Cookie::for_namespace(namespace(&guess)))] {
            assert_eq!(eve.discover(Some(&guess), cookie, None).await.unwrap().0, []);
        }
    }
    // A cookie is looked at before the list is, so it does not tell whether there is one.
    for name in [keys.rendezvous(), "a"] {
        for cookie in [Cookie::for_all_namespaces(), Cookie::for_namespace(namespace("b"))] {
            let answer = eve.discover(Some(name), Some(cookie), None).await;
            assert_eq!(answer.unwrap_err(), ErrorCode::InvalidCookie);
        }
    }
    assert_eq!(eve.found(keys.rendezvous()).await.len(), 2, "whoever has the secret finds the members");
}

#[tokio::test]
async fn a_room_that_everybody_left_looks_like_none() {
    let place = Place::open(Settings::loopback()).await;
    let (mut ada, mut eve) = (Visitor::arrive(&place).await, Visitor::arrive(&place).await);
    ada.register("a", Some(LIFE)).await.unwrap();
    assert_eq!(eve.found("a").await, [ada.peer()]);
    drop(ada);
    eve.finds("a", &[]).await;
    let (_, left) = eve.discover(Some("a"), None, None).await.unwrap();
    let (_, never) = eve.discover(Some("b"), None, None).await.unwrap();
    let number = |cookie: Cookie| cookie.into_wire_encoding()[..8].to_vec();
    assert_eq!(number(left), number(never));
}

#[tokio::test]
async fn a_registration_is_signed_by_whom_it_is_about_and_lives_within_limits() {
    let place = Place::open(Settings::loopback()).await;
    let mut ada = Visitor::arrive(&place).await;
    let mut eve = Visitor::arrive_signing_as(&place, Keypair::generate_ed25519(), Keypair::generate_ed25519()).await;
    assert_eq!(eve.register("a", Some(LIFE)).await, Err(ErrorCode::NotAuthorized));
    for seconds in [1, 100_000] {
        assert_eq!(ada.register("a", Some(seconds)).await, Err(ErrorCode::InvalidTtl));
    }
    assert_eq!(ada.register("", Some(LIFE)).await, Err(ErrorCode::InvalidNamespace));
    for port in 1..200 {
        ada.swarm.add_external_address(format!("/ip4/192.0.2.1/udp/{port}/quic-v1").parse().unwrap());
    }
    assert_eq!(ada.register("a", Some(LIFE)).await, Ok(LIFE), "the client keeps twenty addresses or so");
    assert_eq!(eve.found("a").await, [ada.peer()]);
}

#[tokio::test]
async fn a_peer_registers_in_a_few_rooms() {
    let place = Place::open(Settings::loopback()).await;
    let mut ada = Visitor::arrive(&place).await;
    let rooms: Vec<_> = (0..relay::limits::REGISTRATIONS_PER_PEER_MAX).map(|index| index.to_string()).collect();
    for name in rooms.iter().chain(&rooms) {
        assert_eq!(ada.register(name, Some(LIFE)).await, Ok(LIFE));
    }
    assert_eq!(ada.register("one more", Some(LIFE)).await, Err(ErrorCode::Unavailable));
}

#[tokio::test]
async fn a_peer_that_is_killed_is_not_named_any_more() {
    let place = Place::open(Settings::loopback()).await;
    let (mut ada, mut bob) = (Visitor::arrive(&place).await, Visitor::arrive(&place).await);
    for name in ["a", "b"] {
        ada.register(name, Some(LIFE)).await.unwrap();
    }
    bob.register("a", Some(LIFE)).await.unwrap();
    drop(ada);
    bob.finds("b", &[]).await;
    assert_eq!(bob.found("a").await, [bob.peer()]);
    place.stats(|stats| (stats.registrations, stats.connections) == (1, 1)).await;
}

#[tokio::test]
async fn a_peer_that_changes_its_connection_stays_registered() {
    let place = Place::open(Settings::loopback()).await;
    let (mut ada, mut bob) = (Visitor::arrive(&place).await, Visitor::arrive(&place).await);
    let first = ada.connect("quic").await;
    ada.register("a", Some(LIFE)).await.unwrap();
    assert!(ada.swarm.close_connection(first));
    ada.wait(|event| matches!(event, SwarmEvent::ConnectionClosed { .. }).then_some(())).await;
    place.stats(|stats| stats.connections == 2).await;
    assert_eq!(bob.found("a").await, [ada.peer()]);
}

#[tokio::test]
async fn a_flood_of_requests_ends_the_connection() {
    let place = Place::open(Settings::loopback()).await;
    let (mut ada, mut eve) = (Visitor::arrive(&place).await, Visitor::arrive(&place).await);
    eve.register("a", Some(LIFE)).await.unwrap();
    let flood = async { while eve.discover(Some("a"), None, None).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, flood).await.unwrap();
    assert_eq!(ada.found("a").await, []);
    place.stats(|stats| stats.connections == 1).await;
}
