//! The WebSocket transport of a page: dials `/ws`, `/tls/ws` and `/wss` addresses, listens nowhere.

mod socket;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use libp2p::Multiaddr;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;
use send_wrapper::SendWrapper;

use self::socket::Socket;
use crate::browser::Sockets;
use crate::limits::WEBSOCKET_DELAY;
use crate::roster::pause;

/// The transport; its connections still need encryption.
#[derive(Debug)]
pub(crate) struct Transport {
    /// The other way to the same peers, which is the better one, gets a head start.
    yields: bool,
    sockets: Sockets,
}

type Dial = Pin<Box<dyn Future<Output = io::Result<Socket>> + Send>>;

impl Transport {
    pub fn new(yields: bool, sockets: Sockets) -> Self {
        Self { yields, sockets }
    }
}

impl libp2p::Transport for Transport {
    type Output = Socket;
    type Error = io::Error;
    type ListenerUpgrade = Dial;
    type Dial = Dial;

    fn listen_on(&mut self, _: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Dial, TransportError<io::Error>> {
        let Some(url) = url(&address).filter(|_| !options.role.is_listener()) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let (yields, sockets) = (self.yields, self.sockets.clone());
        Ok(Box::pin(SendWrapper::new(async move {
            if yields {
                pause(WEBSOCKET_DELAY).await;
            }
            Socket::open(&url, &sockets).await
        })))
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<TransportEvent<Dial, io::Error>> {
        Poll::Pending
    }
}

/// Whether a page that came over https may open this address: only encrypted ones, and its own machine's.
pub(crate) fn is_permitted(address: &Multiaddr) -> bool {
    let Some(url) = url(address) else { return false };
    let location = js_sys::Reflect::get(&js_sys::global(), &"isSecureContext".into());
    let scheme = js_sys::Reflect::get(&js_sys::global(), &"location".into())
        .and_then(|location| js_sys::Reflect::get(&location, &"protocol".into()));
    let is_https = location.is_ok_and(|secure| secure.is_truthy())
        && scheme.is_ok_and(|scheme| scheme.as_string().is_some_and(|scheme| scheme == "https:"));
    !is_https
        || url.starts_with("wss://")
        || ["ws://127.", "ws://[::1]", "ws://localhost"].iter().any(|own| url.starts_with(own))
}

/// The URL of an address, if it is one of a WebSocket and of nothing beyond.
fn url(address: &Multiaddr) -> Option<String> {
    let mut parts = address.iter().peekable();
    let host = match parts.next()? {
        Protocol::Ip4(ip) => ip.to_string(),
        Protocol::Ip6(ip) => format!("[{ip}]"),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name.into_owned(),
        _ => return None,
    };
    let Protocol::Tcp(port) = parts.next()? else { return None };
    let is_tls = parts.next_if_eq(&Protocol::Tls).is_some();
    let (scheme, path) = match parts.next()? {
        Protocol::Ws(path) => (if is_tls { "wss" } else { "ws" }, path),
        Protocol::Wss(path) => ("wss", path),
        _ => return None,
    };
    let is_whole = matches!((parts.next(), parts.next()), (None | Some(Protocol::P2p(_)), None));
    is_whole.then(|| format!("{scheme}://{host}:{port}{path}"))
}
