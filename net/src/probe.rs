//! Measures the path to a member: how long small messages take there and back, and how fast bodies go.
//!
//! Members only, few at a time, bounded in bytes and time. A probe takes the connection that carries what is sent to the
//! member, on a stream of its own.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::{BoxFuture, Either, select};
use futures::stream::FuturesUnordered;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt, StreamExt};
use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, StreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream};
use tokio::sync::oneshot;
use web_time::Instant as Clock;

use crate::event::Path;
use crate::limits::{PROBE_BYTES_MAX, PROBE_TIME_MAX, PROBES_MAX, PROBES_PER_MEMBER_MAX};
use crate::opener::{Handler, Reply};
use crate::peer_name;
use crate::roster::pause;

/// The name of the protocol.
const PROTOCOL: StreamProtocol = StreamProtocol::new("/manyhands/probe/1");

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Messages of `bytes` there and back, one after the other, `count` times.
    Echo {
        /// Bytes of a message.
        bytes: usize,
        /// How many.
        count: usize,
    },
    /// `count` bodies of `bytes` to the member.
    Upload {
        /// Bytes of a body.
        bytes: usize,
        /// How many.
        count: usize,
    },
    /// `count` bodies of `bytes` from the member.
    Download {
        /// Bytes of a body.
        bytes: usize,
        /// How many.
        count: usize,
    },
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The path of the connection that was measured.
    pub path: Path,
    /// Of every echo, sorted; empty for the other kinds.
    pub echoes: Vec<Duration>,
    /// From the first byte to the last.
    pub took: Duration,
    /// Bytes carried one way.
    pub bytes: usize,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The peer is no member.
    #[error("the peer is not in the room")]
    Absent,
    /// Other measurements are under way.
    #[error("too many measurements at a time")]
    Busy,
    /// The member does not measure, or not any more.
    #[error("the peer does not answer measurements")]
    Refused,
    /// More than a measurement may carry.
    #[error("the measurement is over its limit")]
    TooLong,
    /// The connection broke, or the member stopped answering.
    #[error("the measurement broke: {0}")]
    Broken(#[from] io::Error),
}

impl Measured {
    /// The middle one of the echoes, `None` without any.
    pub fn echo_p50(&self) -> Option<Duration> {
        self.echoes.get(self.echoes.len() / 2).copied()
    }

    /// Bytes per second, one way.
    pub fn bytes_per_s(&self) -> f64 {
        self.bytes as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// A stream that the handle wants: the path first, then the stream.
#[derive(Debug)]
pub(crate) struct Order {
    pub peer: protocol::PeerId,
    pub reply: oneshot::Sender<(Path, oneshot::Receiver<Stream>)>,
}

/// The behaviour: opens streams for us and serves those of members.
#[derive(Default)]
pub(crate) struct Behaviour {
    peers: BTreeMap<PeerId, Peer>,
    serving: FuturesUnordered<BoxFuture<'static, ()>>,
    queue: VecDeque<ToSwarm<Infallible, Reply>>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Peer {
    connections: BTreeMap<ConnectionId, Path>,
    is_member: bool,
    served: u32,
}

impl Behaviour {
    /// `peer` has proved membership.
    pub fn admit(&mut self, peer: PeerId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.is_member = true;
        }
    }

    /// Opens a stream on the best connection to a member; without one the order is dropped.
    pub fn open(&mut self, order: Order) {
        let Some((peer_id, peer)) = self.peers.iter().find(|(id, peer)| peer.is_member && peer_name(id) == order.peer)
        else {
            return;
        };
        let Some((connection, path)) = peer.connections.iter().max_by_key(|(_, path)| **path) else { return };
        let (reply, stream) = oneshot::channel();
        if order.reply.send((*path, stream)).is_ok() {
            let handler = NotifyHandler::One(*connection);
            self.queue.push_back(ToSwarm::NotifyHandler { peer_id: *peer_id, handler, event: reply });
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(PROTOCOL, true))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(PROTOCOL, true))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                let address = match established.endpoint {
                    ConnectedPoint::Dialer { address, .. } => address,
                    ConnectedPoint::Listener { local_addr, .. } => local_addr,
                };
                let peer = self.peers.entry(established.peer_id).or_default();
                peer.connections.insert(established.connection_id, Path::of(address));
            }
            FromSwarm::ConnectionClosed(closed) => {
                let Some(peer) = self.peers.get_mut(&closed.peer_id) else { return };
                peer.connections.remove(&closed.connection_id);
                if peer.connections.is_empty() {
                    self.peers.remove(&closed.peer_id);
                }
            }
            _ => (),
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, stream: THandlerOutEvent<Self>) {
        // Whoever is refused sees its stream close.
        let Some(peer) = self.peers.get_mut(&peer).filter(|peer| peer.is_member) else { return };
        if peer.served < PROBES_PER_MEMBER_MAX && self.serving.len() < PROBES_MAX {
            peer.served += 1;
            self.serving.push(in_time(serve(stream)).map(drop).boxed());
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        while let Poll::Ready(Some(())) = self.serving.poll_next_unpin(context) {}
        if let Some(action) = self.queue.pop_front() {
            return Poll::Ready(action);
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// Bytes asked from a stream, and given to it, at once.
const PIECE_BYTES: usize = 64 * 1024;

const ECHO: u8 = 0;
const TAKE: u8 = 1;
const GIVE: u8 = 2;

/// Measures on `stream`.
pub(crate) async fn measure(stream: Stream, path: Path, probe: Probe) -> Result<Measured, ProbeError> {
    in_time(measure_on(stream, path, probe)).await.ok_or(io::Error::from(io::ErrorKind::TimedOut))?
}

async fn measure_on<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    path: Path,
    probe: Probe,
) -> Result<Measured, ProbeError> {
    let (kind, bytes, count) = match probe {
        Probe::Echo { bytes, count } => (ECHO, bytes, count),
        Probe::Upload { bytes, count } => (TAKE, bytes, count),
        Probe::Download { bytes, count } => (GIVE, bytes, count),
    };
    let total = bytes.checked_mul(count).filter(|total| *total <= PROBE_BYTES_MAX).ok_or(ProbeError::TooLong)?;
    let mut header = [kind, 0, 0, 0, 0];
    header[1..].copy_from_slice(&u32::try_from(total).expect("far below 4 GiB").to_le_bytes());
    let mut body = vec![0x5a; bytes];
    let mut echoes = Vec::new();
    let begun = Clock::now();
    stream.write_all(&header).await?;
    match probe {
        Probe::Echo { .. } => {
            for _ in 0..count {
                let sent = Clock::now();
                stream.write_all(&body).await?;
                stream.flush().await?;
                stream.read_exact(&mut body).await?;
                echoes.push(sent.elapsed());
            }
        }
        Probe::Upload { .. } => {
            for _ in 0..count {
                stream.write_all(&body).await?;
            }
            stream.flush().await?;
            stream.read_exact(&mut [0]).await?;
        }
        Probe::Download { .. } => {
            stream.flush().await?;
            for _ in 0..count {
                stream.read_exact(&mut body).await?;
            }
        }
    }
    let took = begun.elapsed();
    let _ = stream.close().await;
    echoes.sort();
    Ok(Measured { path, echoes, took, bytes: total })
}

/// Answers one measurement.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    let mut header = [0; 5];
    stream.read_exact(&mut header).await?;
    let [kind, length @ ..] = header;
    let mut rest = u32::from_le_bytes(length) as usize;
    if rest > PROBE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut piece = vec![0; PIECE_BYTES];
    while rest > 0 {
        let piece = &mut piece[..rest.min(PIECE_BYTES)];
        rest -= match kind {
            ECHO | TAKE => {
                let count = stream.read(piece).await?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                if kind == ECHO {
                    stream.write_all(&piece[..count]).await?;
                    stream.flush().await?;
                }
                count
            }
            GIVE => {
                stream.write_all(piece).await?;
                piece.len()
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
    }
    if kind == TAKE {
        stream.write_all(&[1]).await?;
    }
    stream.close().await
}

/// `future`'s output unless it takes longer than a measurement may.
async fn in_time<F: Future>(future: F) -> Option<F::Output> {
    match select(pin!(future), pin!(pause(PROBE_TIME_MAX))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(((), _)) => None,
    }
}
