//! The network of a page: WebTransport, WebSocket, WebRTC and the way through relays, driven by the page's event loop.

mod sockets;

use std::convert::Infallible;

use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, OptionalTransport};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dummy;
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, relay, webtransport_websys as webtransport};
use protocol::limits::HANDSHAKE_TIME_MAX;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::spawn_local;

pub(crate) use self::sockets::{Socket, Sockets};

use crate::abilities::Abilities;
use crate::assembly::{Assembly, Participant, Place, setup, swarm_config, yamux_config};
use crate::discovery::Reach;
use crate::event::{Events, Path, Transport};
use crate::handle::{Config, Handle, NetError};
use crate::limits::{ERROR_BYTES_MAX, STREAMS_MAX};
use crate::room::Behaviour;
use crate::{signalling, webrtc, websocket};

/// Nothing finds members on the local network here.
pub(crate) type Nearby = dummy::Behaviour;

/// Joins a room. `config.listen` and `config.mdns` mean nothing in a page; who is there comes as events.
pub async fn start(mut config: Config) -> Result<(Handle, Events), NetError> {
    let abilities = abilities();
    if !abilities.webtransport && !abilities.websocket {
        return Err(NetError::Unable);
    }
    let is_related = !config.relays.is_empty();
    let is_complete = config.relays.iter().all(|relay| matches!(relay.iter().last(), Some(Protocol::P2p(_))));
    config.relays.retain(|relay| !is_complete || can_dial(relay));
    if is_related && config.relays.is_empty() {
        return Err(NetError::RelayOutOfReach);
    }
    let meets_browsers = abilities.webrtc && !config.relayed_only;
    let servers = match meets_browsers {
        true => Some(webrtc::configuration(&config.ice_servers).map_err(NetError::IceServers)?),
        false => None,
    };
    let reach = Reach { relayed_only: config.relayed_only, is_listening: false, can_dial };
    let assembly = Assembly::new(config, meets_browsers)?;
    let keypair = assembly.keypair.clone();
    let sockets = Sockets::default();
    let (signalling, webrtc) = match servers {
        Some(servers) => {
            let (behaviour, port) = signalling::new();
            (Some(behaviour), Some(webrtc::Transport::new(port, webrtc::Introducer::new(servers, sockets.clone()))))
        }
        None => (None, None),
    };
    let place = Place { nearby: dummy::Behaviour, signalling, reach, sockets: sockets.clone() };
    let (room, Participant { ended, handle, events }) = assembly.finish(place, |behaviour| {
        let transport = transport(&keypair, abilities, webrtc, sockets)?;
        let mut swarm = swarm(&keypair, transport, behaviour)?;
        if meets_browsers {
            swarm.listen_on(Protocol::WebRTC.into()).map_err(setup)?;
        }
        Ok(swarm)
    })?;
    spawn_local(async move {
        room.run().await;
        ended.send_replace(true);
    });
    Ok((handle, events))
}

/// What this page may use.
pub fn abilities() -> Abilities {
    let has = |name: &str| js_sys::Reflect::has(&js_sys::global(), &JsValue::from_str(name)).unwrap_or(false);
    Abilities { webtransport: has("WebTransport"), websocket: has("WebSocket"), webrtc: has("RTCPeerConnection") }
}

/// Those of a node's addresses that are worth dialling: whatever there is a transport for; the better one has a head
/// start, see [`crate::limits::WEBSOCKET_DELAY`].
pub(crate) fn worth_dialling(addresses: &[Multiaddr]) -> Vec<Multiaddr> {
    addresses.to_vec()
}

/// Dummy behaviours find nobody.
pub(crate) fn found(never: Infallible) -> Vec<(PeerId, Multiaddr)> {
    match never {}
}

/// What JavaScript says went wrong, cut to a length that fits a log.
pub(crate) fn words(error: &JsValue) -> String {
    let mut text = match error.dyn_ref::<js_sys::Error>() {
        Some(error) => String::from(error.to_string()),
        None => format!("{error:?}"),
    };
    let end = (0..=text.len().min(ERROR_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

/// Whether there is a transport for this direct address.
fn can_dial(address: &Multiaddr) -> bool {
    let abilities = abilities();
    match Path::of(address) {
        Path::Direct(Transport::WebTransport) => abilities.webtransport,
        Path::Direct(Transport::WebSocket) => abilities.websocket && websocket::is_permitted(address),
        Path::Relayed | Path::Direct(Transport::Other | Transport::WebRtc | Transport::Tcp | Transport::Quic) => false,
    }
}

fn transport(
    keypair: &Keypair,
    abilities: Abilities,
    webrtc: Option<webrtc::Transport>,
    sockets: Sockets,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetError> {
    let noise = noise::Config::new(keypair).map_err(setup)?;
    let websocket = websocket::Transport::new(abilities.webtransport, sockets)
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux_config(STREAMS_MAX))
        .timeout(HANDSHAKE_TIME_MAX)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let webtransport = webtransport::Transport::new(webtransport::Config::new(keypair));
    let webtransport = TransportTimeout::new(webtransport, HANDSHAKE_TIME_MAX)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let webtransport = match abilities.webtransport {
        true => OptionalTransport::some(webtransport),
        false => OptionalTransport::none(),
    };
    let webrtc = webrtc.map_or_else(OptionalTransport::none, OptionalTransport::some);
    let webrtc = webrtc.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let websocket = match abilities.websocket {
        true => OptionalTransport::some(websocket),
        false => OptionalTransport::none(),
    };
    let either = webrtc.or_transport(webtransport).map(|either, _| either.into_inner());
    Ok(either.or_transport(websocket).map(|either, _| either.into_inner()).boxed())
}

fn swarm(
    keypair: &Keypair,
    transport: Boxed<(PeerId, StreamMuxerBox)>,
    behaviour: impl FnOnce(relay::client::Behaviour) -> Behaviour,
) -> Result<Swarm<Behaviour>, NetError> {
    let swarm = SwarmBuilder::with_existing_identity(keypair.clone())
        .with_wasm_bindgen()
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
