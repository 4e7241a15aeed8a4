//! One link: a stream to a peer that has proved membership, carrying frames both ways until it ends.
//!
//! Needs no runtime: the connection's handler polls it.

mod handshake;
mod reader;
mod writer;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::{Either, select};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite};
use protocol::frame::FrameError;
use protocol::limits::CREDIT_BYTES;
use tokio::sync::Notify;

pub use handshake::HandshakeError;
pub(crate) use handshake::{Identity, shake_hands};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use handshake::{read_message, write_message};

use crate::event::DropReason;
use crate::limits::FAREWELL_TIME_MAX;
use crate::roster::{Membership, pause};

/// How a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// One side closed it, or the connection broke.
    Closed,
    /// The peer must be dropped.
    Dropped(DropReason),
}

/// Carries frames between `stream` and `membership` until either side closes or the peer misbehaves.
pub(crate) async fn run<S: AsyncRead + AsyncWrite + Unpin>(stream: S, mut membership: Membership) -> LinkEnd {
    let connection = membership.connection();
    let flow = Flow::default();
    let (read_half, write_half) = stream.split();
    let (roster, peer) = (membership.roster.clone(), membership.peer.clone());
    let counters = membership.counters.clone();
    let reader = pin!(reader::read(read_half, &peer, &roster, &counters, &flow));
    let writer = pin!(writer::write(write_half, &mut membership.control, &mut membership.bulk, &counters, &flow));
    let end = match select(reader, writer).await {
        Either::Left((LinkEnd::Closed, writer)) => {
            // The peer has said all it will say: let what is queued for it go out, then close.
            Membership::retire(&roster, &peer, connection);
            within(FAREWELL_TIME_MAX, writer).await.unwrap_or(LinkEnd::Closed)
        }
        Either::Right((LinkEnd::Closed, reader)) => within(FAREWELL_TIME_MAX, reader).await.unwrap_or(LinkEnd::Closed),
        Either::Left((end @ LinkEnd::Dropped(_), _)) | Either::Right((end @ LinkEnd::Dropped(_), _)) => end,
    };
    if let LinkEnd::Dropped(reason) = end {
        roster.drop_peer(&peer, reason);
    }
    end
}

/// `future`'s output unless `time` passes first.
async fn within<F: Future>(time: Duration, future: F) -> Option<F::Output> {
    match select(pin!(future), pin!(pause(time))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(((), _)) => None,
    }
}

/// The credit of both directions, shared by a link's two halves.
#[derive(Debug)]
struct Flow {
    /// Body bytes that we may still send.
    credit: AtomicU32,
    /// Body bytes that we grant but have not said so.
    owed: AtomicU32,
    credited: Notify,
    owing: Notify,
}

impl Default for Flow {
    fn default() -> Self {
        let (credited, owing) = (Notify::new(), Notify::new());
        Self { credit: AtomicU32::new(CREDIT_BYTES), owed: AtomicU32::new(0), credited, owing }
    }
}

impl Flow {
    /// The peer grants us `bytes` more; it cannot grant more than we have used.
    fn handle_grant(&self, bytes: u32) -> Result<(), FrameError> {
        let before = self.credit.fetch_add(bytes, Ordering::Relaxed);
        self.credited.notify_one();
        if before <= CREDIT_BYTES - bytes.min(CREDIT_BYTES) { Ok(()) } else { Err(FrameError::Credit) }
    }

    /// We grant the peer `bytes` more.
    fn owe(&self, bytes: u32) {
        self.owed.fetch_add(bytes, Ordering::Relaxed);
        self.owing.notify_one();
    }

    /// Waits until there is a grant to be sent.
    async fn owed(&self) -> u32 {
        loop {
            let owed = self.owed.swap(0, Ordering::Relaxed);
            if owed > 0 {
                return owed;
            }
            self.owing.notified().await;
        }
    }

    /// The credit that is there.
    fn credit_now(&self) -> u32 {
        self.credit.load(Ordering::Relaxed)
    }

    /// Waits until some credit is there; how much.
    async fn credit(&self) -> u32 {
        loop {
            let credit = self.credit_now();
            if credit > 0 {
                return credit;
            }
            self.credited.notified().await;
        }
    }

    fn spend(&self, bytes: u32) {
        self.credit.fetch_sub(bytes, Ordering::Relaxed);
    }
}
