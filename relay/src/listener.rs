//! An HTTP listener that slow and many clients cannot exhaust: bounded in number, in silence and in time.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::limits::{HTTP_ANSWER_MAX, HTTP_CONNECTIONS_MAX, HTTP_SILENCE_MAX, HTTP_TIME_MAX};

/// Accepts at most [`HTTP_CONNECTIONS_MAX`] connections at a time.
pub(crate) struct Bounded {
    inner: TcpListener,
    places: Arc<Semaphore>,
}

impl Bounded {
    pub fn new(inner: TcpListener) -> Self {
        Self { inner, places: Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX)) }
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Timed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Timed, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the places are never closed");
        let (stream, address) = axum::serve::Listener::accept(&mut self.inner).await;
        let end = Instant::now() + HTTP_TIME_MAX;
        let silence = Box::pin(sleep_until(Instant::now() + HTTP_SILENCE_MAX));
        (Timed { inner: stream, silence, end, head: Head::default(), _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection that fails when it is silent for too long, or a request on it lasts too long.
pub(crate) struct Timed {
    inner: TcpStream,
    silence: Pin<Box<Sleep>>,
    end: Instant,
    head: Head,
    _place: OwnedSemaphorePermit,
}

/// Looks for the heads of requests in what is read.
#[derive(Clone, Copy, Default)]
struct Head {
    /// How much of the empty line that ends one was read last.
    seen: usize,
    /// Whether any has come as a whole.
    was_whole: bool,
}

impl Head {
    /// Whether a head ends in these bytes. A body may look like one, and then is one for what it is used for here.
    fn ends_in(&mut self, bytes: &[u8]) -> bool {
        const END: &[u8] = b"\r\n\r\n";
        let mut is_seen = false;
        for byte in bytes {
            // The end's only repetition is its first half.
            self.seen = match *byte {
                byte if byte == END[self.seen] => self.seen + 1,
                b'\r' => 1,
                _ => 0,
            };
            if self.seen == END.len() {
                (self.seen, self.was_whole, is_seen) = (0, true, true);
            }
        }
        is_seen
    }
}

impl Timed {
    fn bounded<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            let silence_max = if self.head.was_whole { HTTP_ANSWER_MAX } else { HTTP_SILENCE_MAX };
            self.silence.as_mut().reset(self.end.min(Instant::now() + silence_max));
            return outcome;
        }
        self.silence.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(context, buffer);
        if self.head.ends_in(&buffer.filled()[before..]) {
            self.end = Instant::now() + HTTP_TIME_MAX;
        }
        self.bounded(context, outcome)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(context, buffer);
        self.bounded(context, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heads_end_is_seen_wherever_it_is_cut() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n";
        for cut in 0..text.len() {
            let mut head = Head::default();
            assert!(!head.ends_in(&text[..cut]) && !head.was_whole, "{cut}");
            assert!(head.ends_in(&text[cut..]) && head.was_whole, "{cut}");
            assert!(head.ends_in(text) && !head.ends_in(b"GET / HTTP/1.1\r\n"), "the next request's as well");
        }
    }
}
