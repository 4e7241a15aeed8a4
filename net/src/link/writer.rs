//! The sending half of a link: small messages first, bodies in pieces as far as the peer's credit goes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{AsyncWrite, AsyncWriteExt};
use protocol::frame::{chunk_prefix, encode_credit};
use protocol::limits::CHUNK_BYTES_MAX;
use tokio::sync::mpsc;

use super::{Flow, LinkEnd, within};
use crate::delay::Delay;
use crate::event::DropReason;
use crate::limits::PROGRESS_TIME_MAX;
use crate::roster::{Counters, Outgoing};

/// What is written next.
enum Next {
    Grant(u32),
    Header(Outgoing),
    Chunk(u32),
    Stall,
    Finish,
}

/// The body under way.
struct Body {
    bytes: Arc<[u8]>,
    sent: usize,
}

/// Writes until both queues are closed and empty (then closes the stream), the stream breaks, or the peer stalls.
pub(super) async fn write<S: AsyncWrite + Unpin>(
    mut stream: S,
    control: &mut mpsc::Receiver<Outgoing>,
    bulk: &mut mpsc::Receiver<Outgoing>,
    counters: &Counters,
    flow: &Flow,
) -> LinkEnd {
    let mut body: Option<Body> = None;
    let mut deadline = Delay::new(PROGRESS_TIME_MAX);
    let (mut control_open, mut bulk_open) = (true, true);
    loop {
        let next = tokio::select! {
            biased;
            owed = flow.owed() => Next::Grant(owed),
            message = control.recv(), if control_open => match message {
                Some(outgoing) => Next::Header(outgoing),
                None => { control_open = false; continue }
            },
            credit = flow.credit(), if body.is_some() => Next::Chunk(credit),
            () = &mut deadline, if body.is_some() => Next::Stall,
            message = bulk.recv(), if bulk_open && body.is_none() => match message {
                Some(outgoing) => Next::Header(outgoing),
                None => { bulk_open = false; continue }
            },
            () = std::future::ready(()), if !control_open && !bulk_open && body.is_none() => Next::Finish,
        };
        let written = match next {
            Next::Grant(bytes) => timed_write(&mut stream, &encode_credit(bytes)).await,
            Next::Header(Outgoing { header: mut bytes, body: follows }) => {
                if !follows.is_empty() {
                    deadline.reset(PROGRESS_TIME_MAX);
                    // What is written at once travels in fewer packets, and wakes both ends less often.
                    body = Body { bytes: follows, sent: 0 }.take_chunk(flow.credit_now(), flow, &mut bytes);
                }
                timed_write(&mut stream, &bytes).await
            }
            Next::Chunk(credit) => {
                let under_way = body.take().expect("a chunk is chosen only while a body is under way");
                deadline.reset(PROGRESS_TIME_MAX);
                let mut bytes = Vec::new();
                body = under_way.take_chunk(credit, flow, &mut bytes);
                timed_write(&mut stream, &bytes).await
            }
            Next::Stall => return LinkEnd::Dropped(DropReason::Stalled),
            Next::Finish => {
                let _ = within(PROGRESS_TIME_MAX, stream.close()).await;
                return LinkEnd::Closed;
            }
        };
        match written {
            Some(Ok(count)) => counters.bytes_out.fetch_add(count as u64, Ordering::Relaxed),
            Some(Err(_)) => return LinkEnd::Closed,
            None => return LinkEnd::Dropped(DropReason::Stalled),
        };
    }
}

impl Body {
    /// Moves the next chunk to the end of `to`, as far as the credit goes; what is left of the body, if anything is.
    fn take_chunk(mut self, credit: u32, flow: &Flow, to: &mut Vec<u8>) -> Option<Self> {
        let rest = &self.bytes[self.sent..];
        let chunk = &rest[..rest.len().min(CHUNK_BYTES_MAX).min(credit as usize)];
        if !chunk.is_empty() {
            // The credit is spent before the bytes leave, so that no grant for them can come too early.
            flow.spend(chunk.len() as u32);
            to.reserve(chunk_prefix(chunk.len()).len() + chunk.len());
            to.extend_from_slice(&chunk_prefix(chunk.len()));
            to.extend_from_slice(chunk);
            self.sent += chunk.len();
        }
        (self.sent < self.bytes.len()).then_some(self)
    }
}

/// Writes and flushes `bytes`; how many, or `None` when the peer did not take them in time.
async fn timed_write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Option<io::Result<usize>> {
    let writing = async {
        stream.write_all(bytes).await?;
        stream.flush().await?;
        Ok(bytes.len())
    };
    within(PROGRESS_TIME_MAX, writing).await
}
