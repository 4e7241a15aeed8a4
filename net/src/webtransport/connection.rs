//! A WebTransport session as libp2p's connection: its bidirectional streams, nothing else.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use wtransport::stream::BiStream;

type Opening = BoxFuture<'static, io::Result<BiStream>>;

/// An authenticated session.
pub(crate) struct Connection {
    session: wtransport::Connection,
    inbound: Opening,
    outbound: Option<Opening>,
    /// Completes when the session has ended; `None` after that.
    closed: Option<BoxFuture<'static, io::Error>>,
}

impl Connection {
    pub(super) fn new(session: wtransport::Connection) -> Self {
        let watched = session.clone();
        let closed = async move { io::Error::other(watched.closed().await) }.boxed();
        Self { inbound: inbound(&session), outbound: None, closed: Some(closed), session }
    }

    fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let Some(closed) = &mut self.closed else { return Poll::Ready(io::ErrorKind::NotConnected.into()) };
        let reason = ready!(closed.poll_unpin(context));
        self.closed = None;
        Poll::Ready(reason)
    }
}

impl StreamMuxer for Connection {
    type Substream = Compat<BiStream>;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<Self::Substream>> {
        let stream = ready!(self.inbound.poll_unpin(context));
        self.inbound = inbound(&self.session);
        Poll::Ready(stream.map(TokioAsyncReadCompatExt::compat))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<Self::Substream>> {
        let session = self.session.clone();
        let opening = self.outbound.get_or_insert_with(|| outbound(session));
        let stream = ready!(opening.poll_unpin(context));
        self.outbound = None;
        Poll::Ready(stream.map(TokioAsyncReadCompatExt::compat))
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.close(0u32.into(), &[]);
        self.poll_closed(context).map(|_| Ok(()))
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        self.poll_closed(context).map(Err)
    }
}

fn inbound(session: &wtransport::Connection) -> Opening {
    let session = session.clone();
    async move { session.accept_bi().await.map(BiStream::join).map_err(io::Error::other) }.boxed()
}

fn outbound(session: wtransport::Connection) -> Opening {
    let open = async move {
        let opening = session.open_bi().await.map_err(io::Error::other)?;
        opening.await.map(BiStream::join).map_err(io::Error::other)
    };
    open.boxed()
}
