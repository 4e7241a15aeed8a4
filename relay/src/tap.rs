//! What the relay sees: every byte of every stream after decryption, counted, and shown to a recorder if there is one.
//!
//! The recorder exists for tests of privacy: a room's prompts must never be among these bytes.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};

/// A recorder of everything the relay reads and writes; it is called from the connections' tasks and must be quick.
#[derive(Clone)]
pub struct Tap(Arc<Record>);

type Record = dyn Fn(&[u8]) + Send + Sync;

impl Tap {
    /// Calls `record` with the bytes of every read and write.
    pub fn new(record: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(record))
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tap(..)")
    }
}

/// Counts bytes and feeds the recorder; shared by all connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    bytes_in: Arc<AtomicU64>,
    bytes_out: Arc<AtomicU64>,
    tap: Option<Tap>,
}

impl Meter {
    pub fn new(tap: Option<Tap>) -> Self {
        Self { tap, ..Self::default() }
    }

    /// Bytes read so far.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Bytes written so far.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    fn record(&self, counter: &AtomicU64, bytes: &[u8]) {
        counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if let Some(Tap(record)) = &self.tap {
            record(bytes);
        }
    }
}

/// A connection whose streams are metered.
pub(crate) struct Metered {
    inner: StreamMuxerBox,
    meter: Meter,
}

impl Metered {
    pub fn new(inner: StreamMuxerBox, meter: Meter) -> Self {
        Self { inner, meter }
    }
}

impl StreamMuxer for Metered {
    type Substream = MeteredStream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<MeteredStream>> {
        let inner = ready!(Pin::new(&mut self.inner).poll_inbound(context))?;
        Poll::Ready(Ok(MeteredStream { inner, meter: self.meter.clone() }))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<MeteredStream>> {
        let inner = ready!(Pin::new(&mut self.inner).poll_outbound(context))?;
        Poll::Ready(Ok(MeteredStream { inner, meter: self.meter.clone() }))
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context)
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.inner).poll(context)
    }
}

/// A stream that is metered.
pub(crate) struct MeteredStream {
    inner: SubstreamBox,
    meter: Meter,
}

impl AsyncRead for MeteredStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        self.meter.record(&self.meter.bytes_in, &buffer[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        match buffers.iter_mut().find(|buffer| !buffer.is_empty()) {
            Some(buffer) => self.poll_read(context, buffer),
            None => self.poll_read(context, &mut []),
        }
    }
}

impl AsyncWrite for MeteredStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write(context, buffer))?;
        self.meter.record(&self.meter.bytes_out, &buffer[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let buffer = buffers.iter().find(|buffer| !buffer.is_empty());
        self.poll_write(context, buffer.map_or(&[], |buffer| &**buffer))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context)
    }
}
