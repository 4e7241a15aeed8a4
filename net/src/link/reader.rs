//! The receiving half of a link: bytes to frames, frames to the inbox, a grant for every body taken.

use std::sync::atomic::Ordering;

use futures::future::{Either, select};
use futures::{AsyncRead, AsyncReadExt};
use protocol::frame::{Decoder, Frame, FrameError};
use protocol::{Message, PeerId};

use super::{Flow, LinkEnd};
use crate::delay::Delay;
use crate::event::DropReason;
use crate::limits::{PROGRESS_BYTES_MIN, PROGRESS_TIME_MAX, READ_BYTES};
use crate::roster::{Counters, Roster};

/// Reads until the stream ends, the peer breaks the protocol or stalls, or the node stops listening.
///
/// While the inbox is full nothing is read, and while nothing is read nothing is granted: the peer must wait.
pub(super) async fn read<S: AsyncRead + Unpin>(
    mut stream: S,
    peer: &PeerId,
    roster: &Roster,
    counters: &Counters,
    flow: &Flow,
) -> LinkEnd {
    let mut decoder = Decoder::<Message>::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut deadline = Delay::new(PROGRESS_TIME_MAX);
    let mut progress = 0;
    loop {
        let is_amid = decoder.is_amid();
        if !is_amid || progress >= PROGRESS_BYTES_MIN {
            deadline.reset(PROGRESS_TIME_MAX);
            progress = 0;
        }
        let bytes = match select(stream.read(&mut buffer), &mut deadline).await {
            Either::Left((Ok(0) | Err(_), _)) => return LinkEnd::Closed,
            Either::Left((Ok(count), _)) => &buffer[..count],
            Either::Right(((), _)) if is_amid => return LinkEnd::Dropped(DropReason::Stalled),
            // A link without traffic is healthy; pings watch over its connection.
            Either::Right(((), _)) => continue,
        };
        counters.bytes_in.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        progress += bytes.len();
        decoder.push(bytes);
        match deliver_all(&mut decoder, peer, roster, flow).await {
            Ok(Delivery { is_heard: false, .. }) => return LinkEnd::Closed,
            Ok(Delivery { is_complete: true, .. }) => progress = PROGRESS_BYTES_MIN,
            Ok(Delivery { is_complete: false, .. }) => (),
            Err(error) => return LinkEnd::Dropped(DropReason::Malformed(error)),
        }
        let grant = decoder.take_grant();
        if grant > 0 {
            flow.owe(grant);
        }
    }
}

struct Delivery {
    /// Whether the node still takes messages.
    is_heard: bool,
    /// Whether some frame was completed.
    is_complete: bool,
}

async fn deliver_all(
    decoder: &mut Decoder<Message>,
    peer: &PeerId,
    roster: &Roster,
    flow: &Flow,
) -> Result<Delivery, FrameError> {
    let mut delivery = Delivery { is_heard: true, is_complete: false };
    while let Some(frame) = decoder.next_frame()? {
        delivery.is_complete = true;
        match frame {
            Frame::Message(message, body) => {
                roster.announce(peer);
                delivery.is_heard &= roster.outlet.push_message(peer.clone(), message, body).await;
            }
            Frame::Credit(bytes) => flow.handle_grant(bytes)?,
        }
    }
    Ok(delivery)
}
