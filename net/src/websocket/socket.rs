//! One WebSocket as a stream of bytes.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures::task::AtomicWaker;
use futures::{AsyncRead, AsyncWrite, FutureExt};
use js_sys::{ArrayBuffer, Uint8Array};
use send_wrapper::SendWrapper;
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::Closure;
use web_sys::{BinaryType, Event, MessageEvent, WebSocket};

use crate::backlog::{Backlog, Budget};
use crate::browser::{self, Sockets, words};
use crate::delay::Delay;
use crate::limits::{PIECE_BYTES_MAX, SEND_BYTES_MAX, SEND_LOOK_EVERY};

/// An open WebSocket.
pub(crate) struct Socket {
    inner: SendWrapper<Inner>,
}

struct Inner {
    socket: WebSocket,
    state: Rc<State>,
    /// Set while the browser holds as much as it should: WebSockets do not tell when they have sent it.
    look_again: Option<Delay>,
    _handlers: Handlers,
    _open: browser::Socket,
}

struct State {
    backlog: Backlog,
    is_flooded: Cell<bool>,
    opened: AtomicWaker,
    readable: AtomicWaker,
    writable: AtomicWaker,
}

struct Handlers {
    _change: Closure<dyn FnMut(Event)>,
    _message: Closure<dyn FnMut(MessageEvent)>,
}

impl Socket {
    /// Connects; takes as long as the browser likes.
    pub async fn open(url: &str, sockets: &Sockets) -> io::Result<Self> {
        let socket = WebSocket::new(url).map_err(|error| io::Error::other(words(&error)))?;
        socket.set_binary_type(BinaryType::Arraybuffer);
        let state = Rc::new(State {
            backlog: Backlog::new(Budget::default()),
            is_flooded: Cell::new(false),
            opened: AtomicWaker::new(),
            readable: AtomicWaker::new(),
            writable: AtomicWaker::new(),
        });
        let handlers = Handlers::attach(&socket, &state);
        let closing = socket.clone();
        let open = sockets.insert(move || drop(closing.close()));
        let inner = Inner { socket, state, look_again: None, _handlers: handlers, _open: open };
        let opened = Self { inner: SendWrapper::new(inner) };
        poll_fn(|context| {
            opened.inner.state.opened.register(context.waker());
            match opened.inner.socket.ready_state() {
                WebSocket::CONNECTING => Poll::Pending,
                WebSocket::OPEN => Poll::Ready(Ok(())),
                _ => Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionRefused))),
            }
        })
        .await?;
        Ok(opened)
    }
}

impl Handlers {
    fn attach(socket: &WebSocket, state: &Rc<State>) -> Self {
        let (changed, received, receiving) = (Rc::clone(state), Rc::clone(state), socket.clone());
        let change = Closure::<dyn FnMut(Event)>::new(move |_| {
            changed.opened.wake();
            changed.readable.wake();
            changed.writable.wake();
        });
        let message = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
            let fits = event
                .data()
                .dyn_ref::<ArrayBuffer>()
                .is_none_or(|buffer| received.backlog.push(&Uint8Array::new(buffer)));
            if !fits {
                received.is_flooded.set(true);
                let _ = receiving.close();
            }
            received.readable.wake();
            // Who hears from the other side may have been waited for: a grant, an answer.
            received.writable.wake();
        });
        let listener = Some(change.as_ref().unchecked_ref());
        socket.set_onopen(listener);
        socket.set_onclose(listener);
        socket.set_onerror(listener);
        socket.set_onmessage(Some(message.as_ref().unchecked_ref()));
        Self { _change: change, _message: message }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Inner { socket, state, .. } = &*self.inner;
        state.readable.register(context.waker());
        if state.is_flooded.get() {
            return Poll::Ready(Err(io::Error::other("the peer sends faster than it may")));
        }
        match state.backlog.read(buffer) {
            0 if socket.ready_state() == WebSocket::OPEN => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Inner { socket, state, look_again, .. } = &mut *self.inner;
        loop {
            if socket.ready_state() != WebSocket::OPEN {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if socket.buffered_amount() < SEND_BYTES_MAX {
                break;
            }
            state.writable.register(context.waker());
            let delay = look_again.get_or_insert_with(|| Delay::new(SEND_LOOK_EVERY));
            ready!(delay.poll_unpin(context));
            *look_again = None;
        }
        let bytes = &bytes[..bytes.len().min(PIECE_BYTES_MAX)];
        socket.send_with_u8_array(bytes).map_err(|error| io::Error::other(words(&error)))?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The browser sends what it has been given without being asked.
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = self.inner.socket.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Before the closures go: an event must not find them gone.
        self.socket.set_onopen(None);
        self.socket.set_onclose(None);
        self.socket.set_onerror(None);
        self.socket.set_onmessage(None);
        let _ = self.socket.close();
    }
}
