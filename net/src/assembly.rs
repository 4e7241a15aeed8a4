//! Puts a participant together: the same on every platform, except for transports and what finds neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{Multiaddr, PeerId, Swarm, connection_limits, gossipsub, identify, ping, relay, rendezvous, swarm, yamux};
use tokio::sync::watch;

use crate::discovery::Reach;
use crate::event::{Events, queue};
use crate::gate::Gate;
use crate::handle::{Config, Handle, NetError, Shared};
use crate::limits::{
    CONNECTIONS_MAX, CONNECTIONS_PENDING_MAX, CONNECTIONS_PER_PEER_MAX, GOSSIP_BYTES_MAX, IDLE_TIME_MAX, PING_EVERY,
    PING_TIME_MAX, STREAMS_NEGOTIATING_MAX,
};
use crate::platform::{Nearby, Sockets};
use crate::room::{Behaviour, Room};
use crate::roster::Roster;
use crate::{data, peer_name, probe, signalling};

/// Says which protocols we speak; the same for every room.
const IDENTIFY_PROTOCOL: &str = "manyhands/1";

/// A participant whose swarm is still to be made.
pub(crate) struct Assembly {
    pub keypair: Keypair,
    pub config: Config,
    relays: BTreeMap<PeerId, Vec<Multiaddr>>,
    roster: Arc<Roster>,
    events: Events,
    gossip: gossipsub::Behaviour,
}

/// What differs from platform to platform, beside the transports.
pub(crate) struct Place {
    pub nearby: Nearby,
    /// Introduces browsers to each other, where this is one.
    pub signalling: Option<signalling::Behaviour>,
    pub reach: Reach,
    pub sockets: Sockets,
}

impl Assembly {
    /// Checks the settings. A patient participant waits for direct connections before it hears of a member.
    pub fn new(mut config: Config, is_patient: bool) -> Result<Self, NetError> {
        let keypair = config.keypair.take().unwrap_or_else(Keypair::generate_ed25519);
        let relays = relays_by_peer(&config.relays)?;
        let gossip = gossip(&keypair, config.room.topic())?;
        let (outlet, events) = queue();
        let roster = Arc::new(Roster::new(outlet, is_patient));
        Ok(Self { keypair, config, relays, roster, events, gossip })
    }

    /// Makes the swarm with `swarm`, which is given everything but the transports, and the loop that drives it.
    pub fn finish(
        self,
        place: Place,
        swarm: impl FnOnce(Box<dyn FnOnce(relay::client::Behaviour) -> Behaviour>) -> Result<Swarm<Behaviour>, NetError>,
    ) -> Result<(Room, Participant), NetError> {
        let Self { keypair, config, relays, roster, events, gossip } = self;
        let Place { nearby, signalling, reach, sockets } = place;
        let local = keypair.public().to_peer_id();
        let data_room = data::Room { keys: config.room.clone(), local: peer_name(&local), roster: Arc::clone(&roster) };
        let data = data::Behaviour::new(Arc::new(data_room), local, relays.keys().copied().collect::<BTreeSet<_>>());
        let swarm = swarm(Box::new(move |relay| Behaviour {
            limits: connection_limits::Behaviour::new(connection_limits()),
            data,
            gossip: Gate::new(gossip),
            identify: identify(&keypair),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_EVERY).with_timeout(PING_TIME_MAX)),
            relay,
            rendezvous: rendezvous::client::Behaviour::new(keypair),
            signalling: Toggle::from(signalling),
            probe: probe::Behaviour::default(),
            nearby,
        }))?;
        let shared = Arc::new(Shared::new(roster, sockets));
        let mut room = Room::new(swarm, Arc::clone(&shared), config.room, reach);
        for (relay, addresses) in relays {
            room.add_relay(relay, addresses);
        }
        for address in config.via {
            room.add_via(address);
        }
        let (ended, watch) = watch::channel(false);
        Ok((room, Participant { ended, handle: Handle::new(peer_name(&local), shared, watch), events }))
    }
}

/// What the node gets, and what tells it that the loop has ended.
pub(crate) struct Participant {
    pub ended: watch::Sender<bool>,
    pub handle: Handle,
    pub events: Events,
}

/// Yamux with a bounded number of streams.
pub(crate) fn yamux_config(streams_max: usize) -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(streams_max);
    config
}

/// The limits of every participant's swarm.
pub(crate) fn swarm_config(config: swarm::Config) -> swarm::Config {
    config
        .with_idle_connection_timeout(IDLE_TIME_MAX)
        .with_max_negotiating_inbound_streams(STREAMS_NEGOTIATING_MAX)
        .with_per_connection_event_buffer_size(8)
        .with_notify_handler_buffer_size(NonZeroUsize::new(8).expect("eight is not zero"))
}

pub(crate) fn setup(error: impl std::fmt::Display) -> NetError {
    NetError::Setup(error.to_string())
}

fn connection_limits() -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(CONNECTIONS_PENDING_MAX))
        .with_max_established(Some(CONNECTIONS_MAX))
        .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX))
}

fn identify(keypair: &Keypair) -> identify::Behaviour {
    let config = identify::Config::new(IDENTIFY_PROTOCOL.to_owned(), keypair.public())
        .with_agent_version(concat!("manyhands/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_hide_listen_addrs(true);
    identify::Behaviour::new(config)
}

fn gossip(keypair: &Keypair, topic: &str) -> Result<gossipsub::Behaviour, NetError> {
    let config = gossipsub::ConfigBuilder::default()
        .max_transmit_size(GOSSIP_BYTES_MAX)
        .validation_mode(gossipsub::ValidationMode::Strict)
        .validate_messages()
        .build()
        .map_err(setup)?;
    let authenticity = gossipsub::MessageAuthenticity::Signed(keypair.clone());
    let mut gossip = gossipsub::Behaviour::new(authenticity, config).map_err(setup)?;
    gossip.subscribe(&gossipsub::IdentTopic::new(topic)).map_err(setup)?;
    Ok(gossip)
}

fn relays_by_peer(addresses: &[Multiaddr]) -> Result<BTreeMap<PeerId, Vec<Multiaddr>>, NetError> {
    let mut relays = BTreeMap::<PeerId, Vec<Multiaddr>>::new();
    for address in addresses {
        let Some(Protocol::P2p(relay)) = address.iter().last() else {
            return Err(NetError::RelayAddress { address: address.clone() });
        };
        relays.entry(relay).or_default().push(address.clone());
    }
    Ok(relays)
}
