//! One data channel between a stream and the task that drives the connection: bytes that wait on either side.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use futures::{AsyncRead, AsyncWrite};
use libp2p_webrtc_utils::MAX_MSG_LEN;
use tokio::sync::Notify;

use crate::limits::{BROWSER_BYTES_MAX, SEND_BYTES_LOW, STREAMS_MAX};

/// What a received message costs beside its bytes.
const MESSAGE_BYTES: usize = 64;

/// What the lines of one connection share.
#[derive(Debug, Default)]
pub struct Bundle {
    /// Rings when the driver has something to do.
    pub ring: Notify,
    /// Rings when the muxer has.
    pub muxer: AtomicWaker,
    /// Received bytes that nobody has read.
    unread: AtomicUsize,
    streams: AtomicUsize,
    is_over: AtomicBool,
}

/// The driver's end.
#[derive(Debug)]
pub struct Line {
    bundle: Arc<Bundle>,
    state: Mutex<State>,
    readable: AtomicWaker,
    writable: AtomicWaker,
}

#[derive(Debug, Default)]
struct State {
    received: VecDeque<Vec<u8>>,
    /// Bytes of the first received message that were read.
    read: usize,
    to_send: VecDeque<Vec<u8>>,
    to_send_bytes: usize,
    /// Nothing more will be written.
    is_closing: bool,
    /// Nobody reads any more.
    is_unread: bool,
    /// The channel has closed.
    is_over: bool,
}

/// The stream's end; clones are the same one, closed when the last of them goes.
#[derive(Clone, Debug)]
pub struct Channel {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    line: Arc<Line>,
}

impl Bundle {
    /// No more streams may be opened.
    pub fn is_full(&self) -> bool {
        self.streams.load(Ordering::Relaxed) >= STREAMS_MAX
    }

    /// The connection has ended.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        self.muxer.wake();
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

impl Line {
    /// A line and the channel at its other end.
    pub fn new(bundle: &Arc<Bundle>) -> (Arc<Self>, Channel) {
        bundle.streams.fetch_add(1, Ordering::Relaxed);
        let line = Self {
            bundle: Arc::clone(bundle),
            state: Mutex::default(),
            readable: AtomicWaker::new(),
            writable: AtomicWaker::new(),
        };
        let line = Arc::new(line);
        (Arc::clone(&line), Channel { inner: Arc::new(Inner { line }) })
    }

    /// Takes a received message; false when the connection holds too much already.
    pub fn receive(&self, message: Vec<u8>) -> bool {
        let bytes = message.len() + MESSAGE_BYTES;
        let mut state = self.state();
        if state.is_unread {
            return true;
        }
        let fits = self.bundle.unread.fetch_add(bytes, Ordering::Relaxed) + bytes <= BROWSER_BYTES_MAX;
        state.received.push_back(message);
        drop(state);
        self.readable.wake();
        fits
    }

    /// Offers the next message to be sent to `send`, which says whether it took it; whether that was so.
    pub fn send_next<E>(&self, send: impl FnOnce(&[u8]) -> Result<bool, E>) -> Result<bool, E> {
        let mut state = self.state();
        let Some(message) = state.to_send.front() else { return Ok(false) };
        if !send(message)? {
            return Ok(false);
        }
        state.to_send_bytes -= message.len();
        state.to_send.pop_front();
        if state.to_send_bytes < SEND_BYTES_LOW as usize {
            self.writable.wake();
        }
        Ok(true)
    }

    /// Everything was sent and nothing more will be.
    pub fn is_done(&self) -> bool {
        let state = self.state();
        state.is_closing && state.to_send.is_empty()
    }

    /// Something waits to be sent.
    pub fn has_more(&self) -> bool {
        !self.state().to_send.is_empty()
    }

    /// The channel has closed.
    pub fn end(&self) {
        let mut state = self.state();
        state.is_over = true;
        state.to_send.clear();
        drop(state);
        self.readable.wake();
        self.writable.wake();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds a line")
    }
}

impl Channel {
    /// Nothing more will be written; what was is still sent.
    fn close(&self) {
        self.inner.line.state().is_closing = true;
        self.inner.line.bundle.ring.notify_one();
    }
}

impl AsyncRead for Channel {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let line = &self.inner.line;
        line.readable.register(context.waker());
        let mut state = line.state();
        let mut filled = 0;
        while let Some(message) = state.received.front().filter(|_| filled < buffer.len()) {
            let rest = &message[state.read..];
            let count = rest.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&rest[..count]);
            filled += count;
            if count < rest.len() {
                state.read += count;
            } else {
                line.bundle.unread.fetch_sub(message.len() + MESSAGE_BYTES, Ordering::Relaxed);
                state.read = 0;
                state.received.pop_front();
            }
        }
        if filled == 0 && !state.is_over { Poll::Pending } else { Poll::Ready(Ok(filled)) }
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let line = &self.inner.line;
        line.writable.register(context.waker());
        let mut state = line.state();
        if state.is_over || state.is_closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.to_send_bytes >= SEND_BYTES_LOW as usize {
            return Poll::Pending;
        }
        let bytes = &bytes[..bytes.len().min(MAX_MSG_LEN)];
        state.to_send_bytes += bytes.len();
        state.to_send.push_back(bytes.to_vec());
        drop(state);
        line.bundle.ring.notify_one();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The driver sends what it has been given without being asked.
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let bundle = &self.line.bundle;
        let mut state = self.line.state();
        (state.is_closing, state.is_unread) = (true, true);
        let unread: usize = state.received.drain(..).map(|message| message.len() + MESSAGE_BYTES).sum();
        drop(state);
        bundle.unread.fetch_sub(unread, Ordering::Relaxed);
        bundle.streams.fetch_sub(1, Ordering::Relaxed);
        bundle.ring.notify_one();
        bundle.muxer.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn read(channel: &mut Channel, bytes: usize) -> Poll<Vec<u8>> {
        let mut buffer = vec![0; bytes];
        let count = Pin::new(channel).poll_read(&mut context(), &mut buffer);
        count.map(|count| buffer[..count.unwrap()].to_vec())
    }

    #[test]
    fn messages_are_read_as_bytes_and_the_end_comes_after_them() {
        let (line, mut channel) = Line::new(&Arc::default());
        assert_eq!(read(&mut channel, 4), Poll::Pending);
        assert!(line.receive(b"abc".to_vec()) && line.receive(b"defg".to_vec()));
        assert_eq!(read(&mut channel, 4), Poll::Ready(b"abcd".to_vec()));
        line.end();
        assert_eq!(read(&mut channel, 9), Poll::Ready(b"efg".to_vec()));
        assert_eq!(read(&mut channel, 9), Poll::Ready(Vec::new()));
    }

    #[test]
    fn a_peer_that_sends_more_than_is_read_is_noticed_and_what_is_read_makes_room() {
        let bundle = Arc::new(Bundle::default());
        let (line, mut channel) = Line::new(&bundle);
        let message = BROWSER_BYTES_MAX / 2 - MESSAGE_BYTES;
        assert!(line.receive(vec![0; message]) && line.receive(vec![0; message]));
        assert!(!line.receive(vec![0]));
        assert!(matches!(read(&mut channel, 2 * message + 1), Poll::Ready(bytes) if bytes.len() == 2 * message + 1));
        assert_eq!(bundle.unread.load(Ordering::Relaxed), 0);
        assert!(line.receive(vec![0; message]));
        drop(channel);
        assert!(line.receive(vec![0; message]), "what nobody reads is not kept");
        assert_eq!((bundle.unread.load(Ordering::Relaxed), bundle.streams.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn a_writer_waits_until_the_driver_has_sent_and_then_says_good_bye_last() {
        let (line, mut channel) = Line::new(&Arc::default());
        let mut write =
            |bytes: usize| Pin::new(&mut channel).poll_write(&mut context(), &vec![1; bytes]).map(Result::unwrap);
        assert_eq!(write(1 << 20), Poll::Ready(MAX_MSG_LEN), "one message at a time");
        while write(MAX_MSG_LEN).is_ready() {}
        let mut sent = 0;
        let mut send = |message: &[u8]| {
            sent += message.len();
            Ok::<_, ()>(true)
        };
        assert!(line.send_next(&mut send).unwrap());
        assert_eq!(write(10), Poll::Ready(10));
        drop(channel);
        assert!(!line.is_done());
        while line.send_next(&mut send).unwrap() {}
        assert!(line.is_done() && !line.has_more());
        assert_eq!(sent, SEND_BYTES_LOW as usize + 10);
    }
}
