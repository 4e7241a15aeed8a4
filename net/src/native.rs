//! The network of a native node: QUIC, TCP, DNS, mDNS and the way through relays, on a tokio runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, connection_limits, gossipsub, identify, mdns, noise, ping, relay,
    rendezvous,
};
use tokio::sync::watch;

use crate::data;
use crate::event::{Events, queue};
use crate::gate::Gate;
use crate::handle::{Config, Handle, NetError, Shared};
use crate::limits::{
    CONNECTIONS_MAX, CONNECTIONS_PENDING_MAX, CONNECTIONS_PER_PEER_MAX, GOSSIP_BYTES_MAX, IDLE_TIME_MAX, PING_EVERY,
    PING_TIME_MAX, STREAMS_MAX, STREAMS_NEGOTIATING_MAX,
};
use crate::peer_name;
use crate::room::{Behaviour, Room};
use crate::roster::Roster;
use crate::transport::{listen, native, yamux_config};

/// Says which protocols we speak; the same for every room.
const IDENTIFY_PROTOCOL: &str = "manyhands/1";

/// Joins a room. The addresses in `config.listen` are bound when this returns; who is there comes as events.
pub async fn start(config: Config) -> Result<(Handle, Events), NetError> {
    let keypair = config.keypair.unwrap_or_else(Keypair::generate_ed25519);
    let local = keypair.public().to_peer_id();
    let relays = relays_by_peer(&config.relays)?;
    let (outlet, events) = queue();
    let roster = Arc::new(Roster::new(outlet));
    let data_room = data::Room { keys: config.room.clone(), local: peer_name(&local), roster: Arc::clone(&roster) };
    let data = data::Behaviour::new(Arc::new(data_room), local, relays.keys().copied().collect::<BTreeSet<_>>());
    let mdns = match config.mdns {
        true => Some(mdns::tokio::Behaviour::new(mdns::Config::default(), local).map_err(setup)?),
        false => None,
    };
    let gossip = gossip(&keypair, config.room.topic())?;
    let mut swarm = swarm(&keypair, |relay| Behaviour {
        limits: connection_limits::Behaviour::new(connection_limits()),
        data,
        gossip: Gate::new(gossip),
        identify: identify(&keypair),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_EVERY).with_timeout(PING_TIME_MAX)),
        relay,
        rendezvous: rendezvous::client::Behaviour::new(keypair.clone()),
        mdns: Toggle::from(mdns),
    })?;
    for address in config.listen.iter().filter(|_| !config.relayed_only) {
        listen(&mut swarm, address)?;
    }
    let shared = Arc::new(Shared::new(roster));
    let mut room = Room::new(swarm, Arc::clone(&shared), config.room, config.relayed_only);
    for (relay, addresses) in relays {
        room.add_relay(relay, addresses);
    }
    for address in config.via {
        room.add_via(address);
    }
    let (ended, watch) = watch::channel(false);
    tokio::spawn(async move {
        room.run().await;
        ended.send_replace(true);
    });
    Ok((Handle::new(peer_name(&local), shared, watch), events))
}

fn swarm(
    keypair: &Keypair,
    behaviour: impl FnOnce(relay::client::Behaviour) -> Behaviour,
) -> Result<Swarm<Behaviour>, NetError> {
    let transport = native(keypair, STREAMS_MAX)?;
    let swarm = SwarmBuilder::with_existing_identity(keypair.clone())
        .with_tokio()
        .with_other_transport(|_| transport)
        .expect("a transport is given, not made")
        .with_dns()
        .map_err(setup)?
        .with_relay_client(noise::Config::new, || yamux_config(STREAMS_MAX))
        .map_err(setup)?
        .with_behaviour(|_, relay| behaviour(relay))
        .expect("a behaviour is given, not made")
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(IDLE_TIME_MAX)
                .with_max_negotiating_inbound_streams(STREAMS_NEGOTIATING_MAX)
                .with_per_connection_event_buffer_size(8)
                .with_notify_handler_buffer_size(NonZeroUsize::new(8).expect("eight is not zero"))
        })
        .build();
    Ok(swarm)
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

fn setup(error: impl std::fmt::Display) -> NetError {
    NetError::Setup(error.to_string())
}
