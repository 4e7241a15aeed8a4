//! One data channel as a stream of bytes, for the framing of `libp2p-webrtc-utils` on top.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::task::AtomicWaker;
use futures::{AsyncRead, AsyncWrite};
use js_sys::{ArrayBuffer, Uint8Array};
use libp2p_webrtc_utils::MAX_MSG_LEN;
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::Closure;
use web_sys::{Event, MessageEvent, RtcDataChannel, RtcDataChannelState, RtcDataChannelType};
use web_time::Instant as Clock;

use crate::backlog::{Backlog, Budget};
use crate::browser::words;
use crate::limits::{SEND_BYTES_LOW, SEND_BYTES_MAX, STREAMS_MAX};

/// What the channels of one connection share.
pub(super) struct Bundle {
    budget: Budget,
    heard_at: Cell<Clock>,
    channels: Cell<usize>,
    is_flooded: Cell<bool>,
    /// Rings when a channel goes, or the peer has sent or opened too much.
    pub changed: AtomicWaker,
}

/// A data channel; clones are the same one, closed when the last of them goes.
#[derive(Clone)]
pub(super) struct Channel {
    inner: Rc<Inner>,
}

struct Inner {
    channel: RtcDataChannel,
    state: Rc<State>,
    bundle: Rc<Bundle>,
    _change: Closure<dyn FnMut(Event)>,
    _message: Closure<dyn FnMut(MessageEvent)>,
}

struct State {
    backlog: Backlog,
    readable: AtomicWaker,
    writable: AtomicWaker,
}

impl Default for Bundle {
    fn default() -> Self {
        Self {
            budget: Budget::default(),
            heard_at: Cell::new(Clock::now()),
            channels: Cell::new(0),
            is_flooded: Cell::new(false),
            changed: AtomicWaker::new(),
        }
    }
}

impl Bundle {
    /// How long the other side has said nothing.
    pub fn silence(&self) -> Duration {
        self.heard_at.get().elapsed()
    }

    /// The other side has been heard.
    pub fn hear(&self) {
        self.heard_at.set(Clock::now());
    }

    pub fn is_full(&self) -> bool {
        self.channels.get() >= STREAMS_MAX
    }

    pub fn is_flooded(&self) -> bool {
        self.is_flooded.get()
    }

    pub fn flood(&self) {
        self.is_flooded.set(true);
        self.changed.wake();
    }
}

impl Channel {
    /// Listens to `channel` from here on.
    pub fn new(channel: RtcDataChannel, bundle: &Rc<Bundle>) -> Self {
        channel.set_binary_type(RtcDataChannelType::Arraybuffer);
        channel.set_buffered_amount_low_threshold(SEND_BYTES_LOW);
        bundle.channels.set(bundle.channels.get() + 1);
        let backlog = Backlog::new(bundle.budget.clone());
        let state = Rc::new(State { backlog, readable: AtomicWaker::new(), writable: AtomicWaker::new() });
        let (changed, received, receiving) = (Rc::clone(&state), Rc::clone(&state), Rc::clone(bundle));
        let change = Closure::<dyn FnMut(Event)>::new(move |_| {
            changed.readable.wake();
            changed.writable.wake();
        });
        let message = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            receiving.hear();
            let data = event.data();
            let fits =
                data.dyn_ref::<ArrayBuffer>().is_none_or(|buffer| received.backlog.push(&Uint8Array::new(buffer)));
            if !fits {
                receiving.flood();
            }
            received.readable.wake();
        });
        let listener = Some(change.as_ref().unchecked_ref());
        channel.set_onopen(listener);
        channel.set_onclose(listener);
        channel.set_onbufferedamountlow(listener);
        channel.set_onmessage(Some(message.as_ref().unchecked_ref()));
        let bundle = Rc::clone(bundle);
        Self { inner: Rc::new(Inner { channel, state, bundle, _change: change, _message: message }) }
    }

    fn is_over(&self) -> bool {
        matches!(self.inner.channel.ready_state(), RtcDataChannelState::Closing | RtcDataChannelState::Closed)
    }

    fn poll_writable(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        let Inner { channel, state, .. } = &*self.inner;
        state.writable.register(context.waker());
        match channel.ready_state() {
            _ if self.is_over() => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            RtcDataChannelState::Open if channel.buffered_amount() < SEND_BYTES_MAX => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }
}

impl AsyncRead for Channel {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Inner { state, bundle, .. } = &*self.inner;
        state.readable.register(context.waker());
        if bundle.is_flooded() {
            return Poll::Ready(Err(io::Error::other("the peer sends faster than it may")));
        }
        match state.backlog.read(buffer) {
            0 if !self.is_over() => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_writable(context))?;
        let bytes = &bytes[..bytes.len().min(MAX_MSG_LEN)];
        self.inner.channel.send_with_u8_array(bytes).map_err(|error| io::Error::other(words(&error)))?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The browser sends what it has been given without being asked.
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.channel.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Before the closures go: an event must not find them gone.
        self.channel.set_onopen(None);
        self.channel.set_onclose(None);
        self.channel.set_onbufferedamountlow(None);
        self.channel.set_onmessage(None);
        self.channel.close();
        self.bundle.channels.set(self.bundle.channels.get() - 1);
        self.bundle.changed.wake();
    }
}
