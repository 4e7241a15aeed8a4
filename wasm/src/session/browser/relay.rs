//! From a room's link to its network: asks the relay where it listens, again and again until it answers.

use std::rc::Rc;
use std::time::Duration;

use futures_timer::Delay;
use node::Command;
use node::meeting::{self, ANSWER_BYTES_MAX, ANSWER_TIME_MAX, Means};
use protocol::RoomLink;
use web_sys::RequestCache;

use super::inner::Inner;
use crate::fetch;
use crate::session::order::sentence;

/// Pauses between two attempts.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A relay that answers and is not connected after this long cannot be reached on its own ports.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(12);

/// A network that has begun, and the relay's addresses.
type Started = (net::Handle, net::Events, Vec<String>);

/// Whether the relay listens elsewhere is asked this often while it is lost and nobody else is there.
const ASK_AGAIN_EVERY: Duration = Duration::from_secs(10);

/// Enters the room as soon as that is possible, and again when the relay has moved; ends with the session.
pub async fn connect(inner: Rc<Inner>, link: RoomLink, keypair: net::Keypair) {
    loop {
        let Some((network, relays)) = enter(&inner, &link, &keypair).await else { return };
        let Some(relay) = &link.relay else { return };
        Delay::new(CONNECT_TIME_MAX).await;
        if !inner.standing.borrow().was_connected {
            let trouble =
                "The relay answers, but no connection can be opened to it: its ports may be blocked on the way.";
            inner.set_trouble(Some(trouble.into()));
        }
        let is_moved = async || {
            let (is_connected, members) = (inner.standing.borrow().is_connected, inner.standing.borrow().members);
            // Members already met are not given up for a relay.
            !is_connected && members == 0 && addresses(relay).await.is_ok_and(|found| found != relays)
        };
        while !is_moved().await {
            if inner.has_left.get() {
                return;
            }
            Delay::new(ASK_AGAIN_EVERY).await;
        }
        network.shutdown().await;
    }
}

/// The room's network and the relay's addresses, once the relay answers; `None` if the session ends before.
async fn enter(inner: &Inner, link: &RoomLink, keypair: &net::Keypair) -> Option<(net::Handle, Vec<String>)> {
    let mut pause = PAUSE_MIN;
    loop {
        let started = start(inner, link, keypair).await;
        match started {
            Ok((network, _, _)) if inner.has_left.get() => {
                network.shutdown().await;
                return None;
            }
            Ok((network, events, relays)) => {
                inner.set_trouble(None);
                inner.enter(network.clone());
                inner.command(Command::Enter(network.clone(), events));
                return Some((network, relays));
            }
            Err(_) if inner.has_left.get() => return None,
            Err(trouble) => inner.set_trouble(Some(sentence(&trouble))),
        }
        tokio::select! {
            () = Delay::new(pause) => pause = (pause * 2).min(PAUSE_MAX),
            () = inner.is_online.notified() => pause = PAUSE_MIN,
        }
    }
}

async fn start(inner: &Inner, link: &RoomLink, keypair: &net::Keypair) -> Result<Started, String> {
    let relays = match &link.relay {
        Some(relay) => addresses(relay).await?,
        None => Vec::new(),
    };
    let servers = inner.options.ice_servers.iter().map(|server| net::IceServer {
        urls: server.urls.clone(),
        username: server.username.clone(),
        credential: server.credential.clone(),
    });
    let relayed_only = inner.options.relayed_only;
    let means = Means { relayed_only, ice_servers: servers.collect(), ..Means::default() };
    let config = meeting::configure_with(link, &relays, &means)?;
    let config = net::Config { keypair: Some(keypair.clone()), ..config };
    let (network, events) = net::start(config).await.map_err(|error| error.to_string())?;
    Ok((network, events, relays))
}

async fn addresses(relay: &str) -> Result<Vec<String>, String> {
    let bytes_max = usize::try_from(ANSWER_BYTES_MAX).unwrap_or(usize::MAX);
    let answer = fetch::get(&format!("{relay}/addrs"), bytes_max, ANSWER_TIME_MAX, RequestCache::NoStore).await;
    let answer = answer.map_err(|error| format!("the relay {relay} does not answer ({error})"))?;
    meeting::read_addresses(relay, &answer)
}
