//! The relay's libp2p side: carries circuits, keeps the rendezvous, and dials nobody.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::core::Transport;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, allow_block_list, connection_limits, identify, ping, relay,
    request_response,
};
use net::NetError;
use net::transport::{listen, native};
use tokio::sync::watch;
use tracing::{debug, info, trace, warn};

use crate::attention::Attention;
use crate::limits;
use crate::rendezvous::{self, Answer, Registrations, Request};
use crate::stats::{Ledger, Stats};
use crate::tap::{Meter, Metered};

/// The statistics are renewed this often.
const COUNT_EVERY: Duration = Duration::from_millis(250);

/// What the relay speaks. It joins no gossip: it has no business in any room.
#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    blocked: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    relay: relay::Behaviour,
    rendezvous: rendezvous::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

/// The meeting place.
pub(crate) struct Meeting {
    swarm: Swarm<Behaviour>,
    /// Addresses named by the operator; when empty, those we listen on are announced.
    external: Vec<Multiaddr>,
    listening: Vec<Multiaddr>,
    /// The certificates that our WebTransport shows at present.
    certhashes: Vec<Protocol<'static>>,
    /// What is announced, each ending in the peer id.
    announced: watch::Sender<Vec<Multiaddr>>,
    meter: Meter,
    ledger: Ledger,
    registrations: Registrations,
    attention: Attention,
    started: Instant,
    stats: watch::Sender<Stats>,
}

impl Meeting {
    /// Listens on every address, and returns once all of them are known.
    pub async fn bind(
        keypair: &Keypair,
        addresses: &[Multiaddr],
        external: Vec<Multiaddr>,
        meter: Meter,
    ) -> Result<Self, NetError> {
        let mut swarm = swarm(keypair, meter.clone())?;
        let mut silent = HashSet::new();
        for address in addresses {
            silent.insert(listen(&mut swarm, address)?);
        }
        let mut meeting = Self {
            swarm,
            external,
            listening: Vec::new(),
            certhashes: Vec::new(),
            announced: watch::Sender::default(),
            meter,
            ledger: Ledger::default(),
            registrations: Registrations::default(),
            attention: Attention::default(),
            started: Instant::now(),
            stats: watch::Sender::default(),
        };
        meeting.announce();
        while !silent.is_empty() {
            let event = meeting.swarm.select_next_some().await;
            if let SwarmEvent::NewListenAddr { listener_id, .. } = &event {
                silent.remove(listener_id);
            }
            meeting.handle(event);
        }
        Ok(meeting)
    }

    /// Serves until `shutdown`, then closes all connections.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut count = tokio::time::interval(COUNT_EVERY);
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.handle(event),
                _ = count.tick() => self.count(),
                _ = shutdown.wait_for(|ordered| *ordered) => break,
            }
        }
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closing = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        if tokio::time::timeout(limits::FAREWELL_TIME_MAX, closing).await.is_err() {
            debug!("some connections did not close in time");
        }
    }

    pub fn peer(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    /// The addresses that are announced, each ending in the peer id; certificates and interfaces change them.
    pub fn addresses(&self) -> watch::Receiver<Vec<Multiaddr>> {
        self.announced.subscribe()
    }

    pub fn stats(&self) -> watch::Receiver<Stats> {
        self.stats.subscribe()
    }

    fn count(&mut self) {
        let now = Instant::now();
        self.registrations.handle_time(now);
        while let Some(peer) = self.attention.poll_unblocked(now) {
            self.swarm.behaviour_mut().blocked.unblock_peer(peer);
        }
        self.stats.send_replace(Stats {
            connections: self.swarm.network_info().connection_counters().num_established(),
            reservations: self.ledger.reservations(),
            circuits: self.ledger.circuits,
            registrations: self.registrations.len(),
            bytes_in: self.meter.bytes_in(),
            bytes_out: self.meter.bytes_out(),
            uptime_s: self.started.elapsed().as_secs(),
            queue: None,
        });
    }

    fn handle(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                info!(%address, "listening");
                let certhashes = certhashes(&address);
                if !certhashes.is_empty() {
                    self.certhashes = certhashes;
                }
                self.listening.push(address);
                // Listeners speak in any order; after a restart the same is announced.
                self.listening.sort();
                self.announce();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listening.retain(|known| *known != address);
                self.announce();
            }
            SwarmEvent::ListenerClosed { reason: Err(error), .. } | SwarmEvent::ListenerError { error, .. } => {
                warn!(%error, "a listener failed");
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => self.registrations.handle_lost(peer_id),
            SwarmEvent::Behaviour(BehaviourEvent::Relay(event)) => self.handle_relay(event),
            SwarmEvent::Behaviour(BehaviourEvent::Rendezvous(event)) => self.handle_rendezvous(event),
            event => trace!(?event, "swarm"),
        }
    }

    /// Brings what is announced, here and in reservations, up to date.
    fn announce(&mut self) {
        let addresses = announced(&self.external, &self.listening, &self.certhashes);
        for address in self.swarm.external_addresses().cloned().collect::<Vec<_>>() {
            if !addresses.contains(&address) {
                self.swarm.remove_external_address(&address);
            }
        }
        for address in &addresses {
            self.swarm.add_external_address(address.clone());
        }
        let peer = self.peer();
        let full = |address: Multiaddr| match address.iter().last() {
            Some(Protocol::P2p(_)) => address,
            _ => address.with(Protocol::P2p(peer)),
        };
        self.announced.send_replace(addresses.into_iter().map(full).collect());
    }

    fn handle_relay(&mut self, event: relay::Event) {
        match event {
            relay::Event::ReservationReqAccepted { src_peer_id, .. } => self.ledger.handle_reserved(src_peer_id),
            relay::Event::ReservationClosed { src_peer_id } | relay::Event::ReservationTimedOut { src_peer_id } => {
                self.ledger.handle_unreserved(&src_peer_id);
            }
            relay::Event::CircuitReqAccepted { .. } => self.ledger.circuits += 1,
            relay::Event::CircuitClosed { error, .. } => {
                debug!(?error, "circuit closed");
                self.ledger.circuits = self.ledger.circuits.saturating_sub(1);
            }
            relay::Event::ReservationReqDenied { status, .. } => debug!(?status, "reservation denied"),
            relay::Event::CircuitReqDenied { status, .. } => debug!(?status, "circuit denied"),
            event => debug!(?event, "relay"),
        }
    }

    fn handle_rendezvous(&mut self, event: request_response::Event<Request, Answer>) {
        use request_response::{Event, InboundFailure, Message};
        let now = Instant::now();
        let peer = match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                if let Some(answer) = self.registrations.handle(peer, request, rand::random(), now) {
                    trace!(%peer, ?answer, "rendezvous");
                    // The peer may be gone by now; then nobody misses the answer.
                    let _ = self.swarm.behaviour_mut().rendezvous.send_response(channel, answer);
                }
                peer
            }
            Event::InboundFailure { peer, error: InboundFailure::Io(error), .. } => {
                debug!(%peer, %error, "not a rendezvous request");
                peer
            }
            event => return trace!(?event, "rendezvous"),
        };
        if !self.attention.handle_request(peer, now) {
            warn!(%peer, "blocked for its rendezvous requests");
            self.attention.handle_blocked(peer, now);
            self.swarm.behaviour_mut().blocked.block_peer(peer);
        }
    }
}

/// The operator's addresses if there are any, else those we listen on. An operator cannot know the certificates of
/// WebTransport, which change with the calendar, so the present ones are appended where none are named.
fn announced(external: &[Multiaddr], listening: &[Multiaddr], present: &[Protocol<'static>]) -> Vec<Multiaddr> {
    if external.is_empty() {
        return listening.to_vec();
    }
    let complete = |address: &Multiaddr| {
        let mut parts: Vec<_> = address.iter().collect();
        if let Some(place) = parts.iter().position(|part| *part == Protocol::WebTransport)
            && certhashes(address).is_empty()
        {
            parts.splice(place + 1..place + 1, present.iter().cloned());
        }
        parts.into_iter().collect()
    };
    external.iter().map(complete).collect()
}

fn certhashes(address: &Multiaddr) -> Vec<Protocol<'static>> {
    address.iter().filter(|part| matches!(part, Protocol::Certhash(_))).map(|part| part.acquire()).collect()
}

fn swarm(keypair: &Keypair, meter: Meter) -> Result<Swarm<Behaviour>, NetError> {
    let native = native(keypair, limits::STREAMS_MAX)?;
    let transport = Transport::map(native, move |(peer, muxer), _| (peer, Metered::new(muxer, meter.clone())));
    let local = keypair.public().to_peer_id();
    let identify = identify::Config::new("manyhands/1".to_owned(), keypair.public())
        .with_agent_version(concat!("manyhands-relay/", env!("CARGO_PKG_VERSION")).to_owned());
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(
            connection_limits::ConnectionLimits::default()
                .with_max_pending_incoming(Some(limits::CONNECTIONS_PENDING_MAX))
                .with_max_established(Some(limits::CONNECTIONS_MAX))
                .with_max_established_per_peer(Some(limits::CONNECTIONS_PER_PEER_MAX)),
        ),
        blocked: allow_block_list::Behaviour::default(),
        relay: relay::Behaviour::new(local, circuits()),
        rendezvous: rendezvous::behaviour(),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::default(),
    };
    let swarm = SwarmBuilder::with_existing_identity(keypair.clone())
        .with_tokio()
        .with_other_transport(|_| transport)
        .expect("a transport is given, not made")
        .with_behaviour(|_| behaviour)
        .expect("a behaviour is given, not made")
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(limits::IDLE_TIME_MAX)
                .with_max_negotiating_inbound_streams(limits::STREAMS_NEGOTIATING_MAX)
        })
        .build();
    Ok(swarm)
}

fn circuits() -> relay::Config {
    let (per_peer, peer_every) = limits::ASKS_PER_PEER;
    let (per_ip, ip_every) = limits::ASKS_PER_IP;
    relay::Config {
        max_reservations: limits::RESERVATIONS_MAX,
        max_reservations_per_peer: limits::RESERVATIONS_PER_PEER_MAX,
        reservation_duration: limits::RESERVATION_TIME,
        reservation_rate_limiters: Vec::new(),
        max_circuits: limits::CIRCUITS_MAX,
        max_circuits_per_peer: limits::CIRCUITS_PER_PEER_MAX,
        max_circuit_duration: limits::CIRCUIT_TIME_MAX,
        max_circuit_bytes: limits::CIRCUIT_BYTES_MAX,
        circuit_src_rate_limiters: Vec::new(),
    }
    .reservation_rate_per_peer(per_peer, peer_every)
    .reservation_rate_per_ip(per_ip, ip_every)
    .circuit_src_per_peer(per_peer, peer_every)
    .circuit_src_per_ip(per_ip, ip_every)
}

#[cfg(test)]
mod tests {
    use libp2p::core::transport::ListenerId;

    use super::*;

    #[test]
    fn the_operators_webtransport_gets_the_present_certificates() {
        let parse = |text: &str| text.parse::<Multiaddr>().unwrap();
        let named = "/certhash/uEiAHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBw";
        let ours = "/certhash/uEiAICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICA";
        let peer = Multiaddr::from(Protocol::P2p(PeerId::random()));
        let listening = [parse(&format!("/ip4/10.0.0.1/udp/4002/quic-v1/webtransport{ours}"))];
        let present = certhashes(&listening[0]);
        assert_eq!(announced(&[], &listening, &present), listening);
        let cases = [
            ("/dns4/relay.example/tcp/443/wss".to_owned(), "/dns4/relay.example/tcp/443/wss".to_owned()),
            (
                "/dns4/a.example/udp/1/quic-v1/webtransport".into(),
                format!("/dns4/a.example/udp/1/quic-v1/webtransport{ours}"),
            ),
            (
                format!("/dns4/a.example/udp/1/quic-v1/webtransport{peer}"),
                format!("/dns4/a.example/udp/1/quic-v1/webtransport{ours}{peer}"),
            ),
            (
                format!("/dns4/a.example/udp/1/quic-v1/webtransport{named}"),
                format!("/dns4/a.example/udp/1/quic-v1/webtransport{named}"),
            ),
        ];
        for (external, complete) in cases {
            assert_eq!(announced(&[parse(&external)], &listening, &present), [parse(&complete)]);
            assert_eq!(announced(&[parse(&external)], &[], &[]), [parse(&external)], "no WebTransport of our own");
        }
    }
    #[tokio::test]
    async fn what_is_announced_follows_the_certificates() {
        let parse = |text: &str| text.parse::<Multiaddr>().unwrap();
        let external = parse("/dns4/relay.example/udp/4002/quic-v1/webtransport");
        let keypair = Keypair::generate_ed25519();
        let mut meeting = Meeting::bind(&keypair, &[], vec![external.clone()], Meter::default()).await.unwrap();
        let (told, peer) = (meeting.addresses(), Protocol::P2p(meeting.peer()));
        assert_eq!(*told.borrow(), [external.clone().with(peer.clone())]);
        let listener_id = ListenerId::next();
        let mut before = None;
        for hash in [
            "/certhash/uEiAHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBw",
            "/certhash/uEiAICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICA",
        ] {
            let address = parse(&format!("/ip4/10.0.0.1/udp/4002/quic-v1/webtransport{hash}"));
            meeting.handle(SwarmEvent::NewListenAddr { listener_id, address: address.clone() });
            if let Some(address) = before.replace(address) {
                meeting.handle(SwarmEvent::ExpiredListenAddr { listener_id, address });
            }
            let complete = parse(&format!("{external}{hash}"));
            assert_eq!(*told.borrow(), [complete.clone().with(peer.clone())]);
            assert_eq!(meeting.swarm.external_addresses().collect::<Vec<_>>(), [&complete]);
        }
    }
}
