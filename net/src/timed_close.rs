//! A connection that closes in bounded time, even when its peer does not read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent};

use crate::delay::Delay;
use crate::limits::CLOSE_TIME_MAX;

/// Wraps a connection; closing it gives up after [`CLOSE_TIME_MAX`].
pub(crate) struct TimedClose {
    inner: StreamMuxerBox,
    deadline: Option<Delay>,
}

impl TimedClose {
    pub fn new(inner: StreamMuxerBox) -> Self {
        Self { inner, deadline: None }
    }
}

impl StreamMuxer for TimedClose {
    type Substream = <StreamMuxerBox as StreamMuxer>::Substream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<Self::Substream>> {
        Pin::new(&mut self.inner).poll_inbound(context)
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<Self::Substream>> {
        Pin::new(&mut self.inner).poll_outbound(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(result) = Pin::new(&mut self.inner).poll_close(context) {
            return Poll::Ready(result);
        }
        let deadline = self.deadline.get_or_insert_with(|| Delay::new(CLOSE_TIME_MAX));
        deadline.poll_unpin(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.inner).poll(context)
    }
}
