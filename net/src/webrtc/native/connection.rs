//! A connection as a muxer: every stream is a data channel of its own.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p_webrtc_utils as utils;

use super::driver::Shared;
use super::line::Channel;
use crate::webrtc::Error;

/// A connection that its driver keeps going until this is dropped or closed.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    /// They tell the other side of streams that are dropped.
    farewells: FuturesUnordered<utils::DropListener<Channel>>,
}

impl Connection {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, farewells: FuturesUnordered::new() }
    }

    /// Waits until there is a way to the other side.
    pub async fn connected(&self) -> Result<(), Error> {
        poll_fn(|context| {
            self.shared.bundle.muxer.register(context.waker());
            match self.shared.is_connected() {
                _ if self.shared.bundle.is_over() => Poll::Ready(Err(self.shared.reason())),
                true => Poll::Ready(Ok(())),
                false => Poll::Pending,
            }
        })
        .await
    }

    fn stream(&mut self, channel: Channel) -> utils::Stream<Channel> {
        let (stream, farewell) = utils::Stream::new(channel);
        self.farewells.push(farewell);
        stream
    }
}

impl StreamMuxer for Connection {
    type Substream = utils::Stream<Channel>;
    type Error = Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Self::Substream, Error>> {
        self.shared.bundle.muxer.register(context.waker());
        let channel = self.shared.accept();
        channel.map_or(Poll::Pending, |channel| Poll::Ready(Ok(self.stream(channel))))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Self::Substream, Error>> {
        self.shared.bundle.muxer.register(context.waker());
        if self.shared.bundle.is_full() {
            return Poll::Pending;
        }
        let channel = self.shared.open();
        Poll::Ready(Ok(self.stream(channel)))
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.shared.bundle.muxer.register(context.waker());
        self.shared.close();
        if self.shared.bundle.is_over() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Error>> {
        self.shared.bundle.muxer.register(context.waker());
        // A farewell that cannot be said any more is none.
        while let Poll::Ready(Some(_)) = self.farewells.poll_next_unpin(context) {}
        if self.shared.bundle.is_over() { Poll::Ready(Err(self.shared.reason())) } else { Poll::Pending }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.close();
    }
}
