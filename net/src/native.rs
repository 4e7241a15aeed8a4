//! The network of a native node: QUIC, TCP, WebTransport, WebSocket, WebRTC, mDNS and the way through relays, on a tokio
//! runtime.

use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, OptionalTransport};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, mdns, noise, relay};

use crate::abilities::Abilities;
use crate::assembly::{Assembly, Participant, Place, setup, swarm_config, yamux_config};
use crate::discovery::Reach;
use crate::event::{Events, Path, Transport};
use crate::handle::{Config, Handle, NetError};
use crate::limits::STREAMS_MAX;
use crate::room::Behaviour;
pub(crate) use crate::transport::worth_dialling;
use crate::transport::{listen, native};
use crate::{signalling, webrtc};

/// Finds members on the local network.
pub(crate) type Nearby = Toggle<mdns::tokio::Behaviour>;

/// The system closes a process's sockets when it ends.
#[derive(Clone, Debug)]
pub(crate) struct Sockets;

impl Sockets {
    pub fn close_all(&self) {}
}

/// Joins a room. The addresses in `config.listen` are bound when this returns; who is there comes as events.
pub async fn start(config: Config) -> Result<(Handle, Events), NetError> {
    // Who is reached over a circuit can be introduced, and is not told of before that was tried.
    let is_introduced = !config.relayed_only;
    let assembly = Assembly::new(config, is_introduced)?;
    let (keypair, config) = (assembly.keypair.clone(), assembly.config.clone());
    let nearby = match config.mdns {
        true => {
            let local = keypair.public().to_peer_id();
            Some(mdns::tokio::Behaviour::new(mdns::Config::default(), local).map_err(setup)?)
        }
        false => None,
    };
    let is_listening = !config.relayed_only && !config.listen.is_empty();
    let reach = Reach { relayed_only: config.relayed_only, is_listening, can_dial };
    let (signalling, webrtc) = match is_introduced {
        true => {
            let (behaviour, port) = signalling::new();
            let introducer = webrtc::Introducer::new(&config.ice_servers).map_err(setup)?;
            (Some(behaviour), Some(webrtc::Transport::new(port, introducer)))
        }
        false => (None, None),
    };
    let place = Place { nearby: Toggle::from(nearby), signalling, reach, sockets: Sockets };
    let (room, participant) = assembly.finish(place, |behaviour| {
        let mut swarm = swarm(&keypair, transport(&keypair, webrtc)?, behaviour)?;
        if is_introduced {
            swarm.listen_on(Protocol::WebRTC.into()).map_err(setup)?;
        }
        for address in config.listen.iter().filter(|_| !config.relayed_only) {
            listen(&mut swarm, address)?;
        }
        Ok(swarm)
    })?;
    let Participant { ended, handle, events } = participant;
    tokio::spawn(async move {
        room.run().await;
        ended.send_replace(true);
    });
    Ok((handle, events))
}

/// A browser's transports, none of which a native node needs.
pub fn abilities() -> Abilities {
    Abilities::default()
}

/// Peers that were found on the local network.
pub(crate) fn found(event: mdns::Event) -> Vec<(PeerId, Multiaddr)> {
    match event {
        mdns::Event::Discovered(found) => found,
        mdns::Event::Expired(_) => Vec::new(),
    }
}

/// Whether there is a transport for this direct address.
fn can_dial(address: &Multiaddr) -> bool {
    Path::of(address) != Path::Direct(Transport::WebRtc)
}

/// WebRTC beside all that has addresses.
fn transport(
    keypair: &Keypair,
    webrtc: Option<webrtc::Transport>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetError> {
    let webrtc = webrtc.map_or_else(OptionalTransport::none, OptionalTransport::some);
    let webrtc = webrtc.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    Ok(webrtc.or_transport(native(keypair, STREAMS_MAX)?).map(|either, _| either.into_inner()).boxed())
}

fn swarm(
    keypair: &Keypair,
    transport: Boxed<(PeerId, StreamMuxerBox)>,
    behaviour: impl FnOnce(relay::client::Behaviour) -> Behaviour,
) -> Result<Swarm<Behaviour>, NetError> {
    let swarm = SwarmBuilder::with_existing_identity(keypair.clone())
        .with_tokio()
        .with_other_transport(|_| transport)
        .expect("a transport is given, not made")
        .with_relay_client(noise::Config::new, || yamux_config(STREAMS_MAX))
        .map_err(setup)?
        .with_behaviour(|_, relay| behaviour(relay))
        .expect("a behaviour is given, not made")
        .with_swarm_config(swarm_config)
        .build();
    Ok(swarm)
}
