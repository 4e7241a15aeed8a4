//! What the network tells the node, and the one queue that keeps it in order.

use std::fmt;
use std::sync::Arc;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use protocol::frame::FrameError;
use protocol::limits::INBOX_MESSAGES_MAX;
use protocol::{Message, PeerId, Presence};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::limits::{INBOX_BYTES_MAX, INBOX_PAGE_BYTES, PRESENCES_QUEUED_MAX};

/// Something that happened in the room. A peer's events come in order: `Joined`, its messages, `Left`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A peer has proved membership and can be sent to.
    ///
    /// One that came through a relay and may soon be reached directly is told a little later, at most
    /// [`crate::limits::UPGRADE_WAIT_MAX`], so that what is sent to it takes the better path from the first byte.
    Joined {
        /// Who.
        peer: PeerId,
        /// The path that carries what is sent to it.
        path: Path,
    },
    /// What is sent to a member takes another path from here on.
    Moved {
        /// Who.
        peer: PeerId,
        /// The new path.
        path: Path,
    },
    /// The last link to a member has closed.
    Left {
        /// Who.
        peer: PeerId,
    },
    /// A member sent a message.
    Message {
        /// The member.
        from: PeerId,
        /// The message.
        message: Message,
        /// Its body, empty if it has none; at most [`protocol::limits::BODY_BYTES_MAX`] bytes.
        body: Vec<u8>,
    },
    /// A member told the room about itself; newer than all its presences before.
    Presence {
        /// Its author.
        from: PeerId,
        /// What it said.
        presence: Presence,
    },
    /// This node can be dialled at this address, which ends in its peer id.
    Listening {
        /// The full address.
        address: Multiaddr,
    },
    /// A relay is connected.
    RelayConnected,
    /// The connection to a relay is lost; it is dialled again by itself, and members stay connected meanwhile.
    RelayLost,
    /// A member was disconnected by us and is refused for a while; its `Left` follows.
    Dropped {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: DropReason,
    },
}

/// How a member is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// Through a relay, end-to-end encrypted.
    Relayed,
    /// Without anyone in between.
    Direct(Transport),
}

/// What carries a direct connection; later ones are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// None of the others.
    Other,
    /// WebSocket with Noise and Yamux, for browsers where WebTransport is missing or blocked.
    WebSocket,
    /// WebRTC data channels, between peers that a relay has introduced.
    WebRtc,
    /// TCP with Noise and Yamux.
    Tcp,
    /// WebTransport, from browsers to those who can be dialled.
    WebTransport,
    /// QUIC.
    Quic,
}

/// Why a member was disconnected by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DropReason {
    /// It sent what is not a frame or a message.
    #[error("it broke the protocol: {0}")]
    Malformed(FrameError),
    /// A frame or body of it, or our writing to it, made no progress.
    #[error("it stalled")]
    Stalled,
    /// It reads more slowly than it is sent to.
    #[error("it is too slow")]
    Slow,
    /// The node asked for it: [`crate::Handle::disconnect`].
    #[error("the node disconnected it")]
    Asked,
}

impl Path {
    /// Whether a direct address of the peer is still worth dialling: WebRTC is direct, but the slowest way of all.
    pub(crate) fn may_improve(self) -> bool {
        matches!(self, Self::Relayed | Self::Direct(Transport::WebRtc))
    }

    /// The path of a connection with this address: the dialled one, or the local one of an accepted connection.
    pub(crate) fn of(address: &Multiaddr) -> Self {
        let has = |wanted: fn(&Protocol<'_>) -> bool| address.iter().any(|part| wanted(&part));
        // The circuit of a /webrtc address only introduces the two: it is asked for first.
        if has(|part| matches!(part, Protocol::WebRTC)) {
            Self::Direct(Transport::WebRtc)
        } else if has(|part| matches!(part, Protocol::P2pCircuit)) {
            Self::Relayed
        } else if has(|part| matches!(part, Protocol::WebTransport)) {
            Self::Direct(Transport::WebTransport)
        } else if has(|part| matches!(part, Protocol::QuicV1)) {
            Self::Direct(Transport::Quic)
        } else if has(|part| matches!(part, Protocol::Ws(_) | Protocol::Wss(_))) {
            Self::Direct(Transport::WebSocket)
        } else if has(|part| matches!(part, Protocol::Tcp(_))) {
            Self::Direct(Transport::Tcp)
        } else {
            Self::Direct(Transport::Other)
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Relayed => "relayed",
            Self::Direct(Transport::Other) => "direct",
            Self::Direct(Transport::WebSocket) => "direct (websocket)",
            Self::Direct(Transport::WebRtc) => "direct (webrtc)",
            Self::Direct(Transport::WebTransport) => "direct (webtransport)",
            Self::Direct(Transport::Tcp) => "direct (TCP)",
            Self::Direct(Transport::Quic) => "direct (QUIC)",
        })
    }
}

/// The receiving end, for the node's loop.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::UnboundedReceiver<Queued>,
}

impl Events {
    /// The next event, `None` once the network has shut down.
    pub async fn next(&mut self) -> Option<Event> {
        self.queue.recv().await.map(|queued| queued.event)
    }

    /// The next event if one is waiting.
    pub fn try_next(&mut self) -> Option<Event> {
        self.queue.try_recv().ok().map(|queued| queued.event)
    }
}

/// The sending end. The channel itself is unbounded so that a `Left` is never lost, but whatever a remote peer can make
/// plenty of needs a permit first, which it gives back when the node takes it out.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    queue: mpsc::UnboundedSender<Queued>,
    messages: Arc<Semaphore>,
    pages: Arc<Semaphore>,
    presences: Arc<Semaphore>,
}

#[derive(Debug)]
struct Queued {
    event: Event,
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

/// Makes the queue.
pub(crate) fn queue() -> (Outlet, Events) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let outlet = Outlet {
        queue: sender,
        messages: Arc::new(Semaphore::new(INBOX_MESSAGES_MAX)),
        pages: Arc::new(Semaphore::new(INBOX_BYTES_MAX / INBOX_PAGE_BYTES)),
        presences: Arc::new(Semaphore::new(PRESENCES_QUEUED_MAX)),
    };
    (outlet, Events { queue: receiver })
}

impl Outlet {
    /// Queues an event of our own making; whether anyone still listens.
    pub fn push(&self, event: Event) -> bool {
        self.queue.send(Queued { event, _permits: [None, None] }).is_ok()
    }

    /// Queues a message once there is room for it; whether anyone still listens.
    pub async fn push_message(&self, from: PeerId, message: Message, body: Vec<u8>) -> bool {
        let pages = u32::try_from(body.len().div_ceil(INBOX_PAGE_BYTES)).expect("bodies are far below 4 GiB");
        let closed = "the semaphores of the inbox are never closed";
        let message_permit = Arc::clone(&self.messages).acquire_owned().await.expect(closed);
        let page_permit = Arc::clone(&self.pages).acquire_many_owned(pages).await.expect(closed);
        let event = Event::Message { from, message, body };
        self.queue.send(Queued { event, _permits: [Some(message_permit), Some(page_permit)] }).is_ok()
    }

    /// Queues a presence, or drops it when too many wait.
    pub fn push_presence(&self, from: PeerId, presence: Presence) {
        let Ok(permit) = Arc::clone(&self.presences).try_acquire_owned() else { return };
        let _ = self.queue.send(Queued { event: Event::Presence { from, presence }, _permits: [Some(permit), None] });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_from_the_address() {
        let path = |text: &str| Path::of(&text.parse().unwrap());
        assert_eq!(path("/ip4/127.0.0.1/udp/1/quic-v1"), Path::Direct(Transport::Quic));
        assert_eq!(path("/ip4/127.0.0.1/tcp/1"), Path::Direct(Transport::Tcp));
        assert_eq!(path("/ip4/127.0.0.1/udp/1/quic-v1/p2p-circuit"), Path::Relayed);
        assert_eq!(path("/ip4/127.0.0.1/udp/1/quic-v1/webtransport"), Path::Direct(Transport::WebTransport));
        assert_eq!(path("/ip4/127.0.0.1/tcp/1/ws"), Path::Direct(Transport::WebSocket));
        assert_eq!(path("/dns4/relay.example/tcp/443/tls/ws"), Path::Direct(Transport::WebSocket));
        assert_eq!(path("/ip4/127.0.0.1/udp/1/quic-v1/webtransport/p2p-circuit"), Path::Relayed);
        assert_eq!(path("/webrtc"), Path::Direct(Transport::WebRtc));
        assert!(
            Path::Relayed < Path::Direct(Transport::Other)
                && Path::Direct(Transport::Tcp) < path("/ip4/127.0.0.1/udp/1/quic-v1")
        );
    }
}
