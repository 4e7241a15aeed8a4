//! A peer connection as a muxer: every stream is a data channel of its own.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures::stream::FuturesUnordered;
use futures::task::AtomicWaker;
use futures::{AsyncRead, AsyncWrite, FutureExt, StreamExt};
use js_sys::{Function, Reflect};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p_webrtc_utils as utils;
use send_wrapper::SendWrapper;
use wasm_bindgen::prelude::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{Event, RtcDataChannel, RtcDataChannelEvent, RtcPeerConnection, RtcPeerConnectionState};

use super::channel::{Bundle, Channel};
use crate::browser::{Socket, Sockets};
use crate::delay::Delay;
use crate::limits::WEBRTC_SILENCE_MAX;
use crate::webrtc::{Error, FIRST_CHANNEL};

/// A stream of a connection.
pub(crate) struct Stream {
    inner: SendWrapper<utils::Stream<Channel>>,
}

/// A connection to another peer.
pub(crate) struct Connection {
    inner: SendWrapper<Inner>,
}

struct Inner {
    connection: RtcPeerConnection,
    state: Rc<State>,
    /// They tell the other side of streams that are dropped.
    farewells: FuturesUnordered<utils::DropListener<Channel>>,
    /// When to look whether the other side is silent.
    look: Delay,
    _change: Closure<dyn FnMut(Event)>,
    _channel: Closure<dyn FnMut(RtcDataChannelEvent)>,
    _open: Socket,
}

#[derive(Default)]
struct State {
    bundle: Rc<Bundle>,
    inbound: RefCell<VecDeque<Channel>>,
    arrived: AtomicWaker,
    changed: AtomicWaker,
    room: AtomicWaker,
}

impl Connection {
    /// Listens to `connection` from here on, which must be before it hears of the other side.
    pub fn new(connection: RtcPeerConnection, sockets: &Sockets) -> Self {
        let state = Rc::new(State::default());
        let (changed, accepting) = (Rc::clone(&state), Rc::clone(&state));
        let change = Closure::<dyn FnMut(Event)>::new(move |_| {
            changed.changed.wake();
            changed.bundle.changed.wake();
            changed.arrived.wake();
        });
        let channel = Closure::<dyn FnMut(RtcDataChannelEvent)>::new(move |event: RtcDataChannelEvent| {
            let channel = event.channel();
            if channel.label() == FIRST_CHANNEL {
                return;
            }
            if accepting.bundle.is_full() {
                channel.close();
                accepting.bundle.flood();
                return;
            }
            accepting.inbound.borrow_mut().push_back(Channel::new(channel, &accepting.bundle));
            accepting.arrived.wake();
        });
        connection.set_onconnectionstatechange(Some(change.as_ref().unchecked_ref()));
        connection.set_ondatachannel(Some(channel.as_ref().unchecked_ref()));
        let closing = connection.clone();
        let open = sockets.insert(move || closing.close());
        let farewells = FuturesUnordered::new();
        let inner = Inner {
            connection,
            state,
            farewells,
            look: Delay::new(WEBRTC_SILENCE_MAX),
            _change: change,
            _channel: channel,
            _open: open,
        };
        Self { inner: SendWrapper::new(inner) }
    }

    /// Opens the channel that makes an offer one for data.
    pub fn open_first(&self) -> Result<RtcDataChannel, Error> {
        self.inner.open(FIRST_CHANNEL)
    }

    /// Waits until there is a way to the other side.
    pub async fn connected(&self) -> Result<(), Error> {
        std::future::poll_fn(|context| {
            self.inner.state.changed.register(context.waker());
            match self.inner.connection.connection_state() {
                RtcPeerConnectionState::Connected => {
                    self.inner.state.bundle.hear();
                    Poll::Ready(Ok(()))
                }
                RtcPeerConnectionState::Failed | RtcPeerConnectionState::Closed => Poll::Ready(Err(Error::NoWay)),
                _ => Poll::Pending,
            }
        })
        .await
    }
}

impl Inner {
    /// Opens a channel; unlike the binding, a refusal is an error and not an exception.
    fn open(&self, label: &str) -> Result<RtcDataChannel, Error> {
        let open: Function = Reflect::get(&self.connection, &"createDataChannel".into())?.unchecked_into();
        Ok(open.call1(&self.connection, &JsValue::from_str(label))?.unchecked_into())
    }

    fn stream(&mut self, channel: Channel) -> Stream {
        let (stream, farewell) = utils::Stream::new(channel);
        self.farewells.push(farewell);
        self.state.bundle.changed.wake();
        Stream { inner: SendWrapper::new(stream) }
    }

    /// Whether the connection still stands.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        if self.state.bundle.is_flooded() {
            return Poll::Ready(Error::Flooded);
        }
        let state = self.connection.connection_state();
        if matches!(state, RtcPeerConnectionState::Failed | RtcPeerConnectionState::Closed) {
            return Poll::Ready(Error::NoWay);
        }
        while self.look.poll_unpin(context).is_ready() {
            let silence = self.state.bundle.silence();
            if silence >= WEBRTC_SILENCE_MAX {
                return Poll::Ready(Error::NoWay);
            }
            self.look.reset(WEBRTC_SILENCE_MAX - silence);
        }
        Poll::Pending
    }
}

impl StreamMuxer for Connection {
    type Substream = Stream;
    type Error = Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Stream, Error>> {
        let inner = &mut *self.inner;
        inner.state.arrived.register(context.waker());
        let channel = inner.state.inbound.borrow_mut().pop_front();
        channel.map_or(Poll::Pending, |channel| Poll::Ready(Ok(inner.stream(channel))))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Stream, Error>> {
        let inner = &mut *self.inner;
        if inner.state.bundle.is_full() {
            inner.state.room.register(context.waker());
            return Poll::Pending;
        }
        let channel = inner.open("")?;
        let channel = Channel::new(channel, &inner.state.bundle);
        Poll::Ready(Ok(inner.stream(channel)))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.connection.close();
        Poll::Ready(Ok(()))
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Error>> {
        let inner = &mut *self.inner;
        inner.state.bundle.changed.register(context.waker());
        // A farewell that cannot be said any more is none.
        while let Poll::Ready(Some(_)) = inner.farewells.poll_next_unpin(context) {}
        if !inner.state.bundle.is_full() {
            inner.state.room.wake();
        }
        inner.poll_end(context).map(Err)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Before the closures go: an event must not find them gone.
        self.connection.set_onconnectionstatechange(None);
        self.connection.set_ondatachannel(None);
        self.connection.close();
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_close(context)
    }
}
