//! Frames: how messages and their bodies become bytes on a stream, and back, without trusting a single length.
//!
//! A frame is one kind byte, a little-endian u32 length and that many bytes:
//!
//! | kind | payload |
//! |--:|---|
//! | 0 | a CBOR header: a little-endian u32 body length, then the message |
//! | 1 | a piece of the body that the last such header announced |
//! | 2 | a little-endian u32: body bytes the receiver grants in addition |
//!
//! Headers without a body may stand between the pieces of a body, so that a heartbeat never waits behind a picture. One
//! body is under way at a time. Lengths are checked against [`crate::limits`] before any memory is taken, and a body's
//! memory grows only as its bytes arrive.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::{BODY_BYTES_MAX, CHUNK_BYTES_MAX, CREDIT_BYTES, HEADER_BYTES_MAX, HEADER_DEPTH_MAX};

const KIND_HEADER: u8 = 0;
const KIND_CHUNK: u8 = 1;
const KIND_CREDIT: u8 = 2;
const PREFIX_BYTES: usize = 5;
const BODY_LENGTH_BYTES: usize = 4;

/// Why a peer's bytes are not a frame; the stream is closed on any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A kind byte that does not exist.
    #[error("unknown kind of frame")]
    Kind,
    /// A header, piece or body over its limit, or a frame of an impossible length.
    #[error("frame or body over its limit")]
    TooLong,
    /// Not CBOR, not the expected type, too deep, or with bytes left over.
    #[error("malformed header")]
    Header,
    /// A piece without a header, or longer than its body.
    #[error("body bytes that no header announced")]
    StrayChunk,
    /// A header that announces a body while another is under way.
    #[error("two bodies at once")]
    TwoBodies,
    /// More body bytes than the receiver granted, or more granted than can be counted.
    #[error("credit exceeded")]
    Credit,
}

/// Something complete that a stream carried.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame<M> {
    /// A message and its body, empty if it has none.
    Message(M, Vec<u8>),
    /// The receiver of our bodies grants this many more bytes.
    Credit(u32),
}

/// Decodes one CBOR value that must fill `bytes`, no deeper than [`HEADER_DEPTH_MAX`].
pub fn decode_cbor<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    let mut rest = bytes;
    let value =
        ciborium::de::from_reader_with_recursion_limit(&mut rest, HEADER_DEPTH_MAX).map_err(|_| FrameError::Header)?;
    if rest.is_empty() { Ok(value) } else { Err(FrameError::Header) }
}

/// Encodes `value` as CBOR that [`decode_cbor`] reads.
pub fn encode_cbor<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|_| FrameError::Header)?;
    Ok(bytes)
}

/// Encodes the header frame of `message`, announcing a body of `body_bytes`.
pub fn encode_header<M: Serialize>(message: &M, body_bytes: usize) -> Result<Vec<u8>, FrameError> {
    if body_bytes > BODY_BYTES_MAX {
        return Err(FrameError::TooLong);
    }
    let mut frame = vec![KIND_HEADER, 0, 0, 0, 0];
    frame.extend((body_bytes as u32).to_le_bytes());
    ciborium::into_writer(message, &mut frame).map_err(|_| FrameError::Header)?;
    let length = frame.len() - PREFIX_BYTES;
    if length > HEADER_BYTES_MAX {
        return Err(FrameError::TooLong);
    }
    frame[1..PREFIX_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// The prefix of a body piece of `length` bytes, at most [`CHUNK_BYTES_MAX`]; the piece itself follows it.
pub fn chunk_prefix(length: usize) -> [u8; PREFIX_BYTES] {
    debug_assert!(length <= CHUNK_BYTES_MAX);
    let length = (length as u32).to_le_bytes();
    [KIND_CHUNK, length[0], length[1], length[2], length[3]]
}

/// Encodes a grant of `bytes` more body bytes.
pub fn encode_credit(bytes: u32) -> Vec<u8> {
    let mut frame = vec![KIND_CREDIT, 4, 0, 0, 0];
    frame.extend(bytes.to_le_bytes());
    frame
}

/// Reads frames from bytes as they arrive, in pieces of any size. After an error the decoder must not be used again.
#[derive(Debug)]
pub struct Decoder<M> {
    buffer: Vec<u8>,
    read: usize,
    body: Option<Body<M>>,
    /// Body bytes the sender may still send.
    credit: u32,
    /// Body bytes received since the last grant.
    consumed: u32,
}

#[derive(Debug)]
struct Body<M> {
    message: M,
    bytes: Vec<u8>,
    expected: usize,
}

impl<M: DeserializeOwned> Decoder<M> {
    /// A decoder whose sender begins with [`CREDIT_BYTES`] of credit.
    pub fn new() -> Self {
        Self { buffer: Vec::new(), read: 0, body: None, credit: CREDIT_BYTES, consumed: 0 }
    }

    /// Appends bytes from the stream. Call [`Decoder::next_frame`] until it returns `None` before pushing more, so that
    /// the buffer never holds more than one frame and one read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete frame, `None` until more bytes are pushed, or why the peer must be dropped.
    pub fn next_frame(&mut self) -> Result<Option<Frame<M>>, FrameError> {
        while let Some((kind, payload)) = self.next_payload()? {
            let frame = match kind {
                KIND_HEADER => self.accept_header(payload)?,
                KIND_CHUNK => self.accept_chunk(payload)?,
                KIND_CREDIT => Some(accept_credit(&self.buffer[payload])?),
                _ => return Err(FrameError::Kind),
            };
            if frame.is_some() {
                return Ok(frame);
            }
        }
        Ok(None)
    }

    /// Credit to grant to the sender for body bytes that have been taken; zero while a grant would be small.
    pub fn take_grant(&mut self) -> u32 {
        if self.consumed < CREDIT_BYTES / 2 {
            return 0;
        }
        self.credit += self.consumed;
        std::mem::take(&mut self.consumed)
    }

    /// Whether a frame or a body is half received: a peer that leaves it so for long is stalling.
    pub fn is_amid(&self) -> bool {
        self.body.is_some() || self.read < self.buffer.len()
    }

    fn next_payload(&mut self) -> Result<Option<(u8, std::ops::Range<usize>)>, FrameError> {
        let rest = &self.buffer[self.read..];
        let Some((&kind, _)) = rest.split_first() else { return Ok(None) };
        let limit = match kind {
            KIND_HEADER => BODY_LENGTH_BYTES..=HEADER_BYTES_MAX,
            KIND_CHUNK => 1..=CHUNK_BYTES_MAX,
            KIND_CREDIT => 4..=4,
            _ => return Err(FrameError::Kind),
        };
        let Some(length) = rest.get(1..PREFIX_BYTES) else { return Ok(None) };
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        if !limit.contains(&length) {
            return Err(FrameError::TooLong);
        }
        let start = self.read + PREFIX_BYTES;
        if self.buffer.len() < start + length {
            return Ok(None);
        }
        self.read = start + length;
        Ok(Some((kind, start..start + length)))
    }

    fn accept_header(&mut self, payload: std::ops::Range<usize>) -> Result<Option<Frame<M>>, FrameError> {
        let (length, header) =
            self.buffer[payload].split_first_chunk::<BODY_LENGTH_BYTES>().ok_or(FrameError::TooLong)?;
        let expected = u32::from_le_bytes(*length) as usize;
        if expected > BODY_BYTES_MAX {
            return Err(FrameError::TooLong);
        }
        let message = decode_cbor(header)?;
        if expected == 0 {
            return Ok(Some(Frame::Message(message, Vec::new())));
        }
        if self.body.is_some() {
            return Err(FrameError::TwoBodies);
        }
        self.body = Some(Body { message, bytes: Vec::new(), expected });
        Ok(None)
    }

    fn accept_chunk(&mut self, payload: std::ops::Range<usize>) -> Result<Option<Frame<M>>, FrameError> {
        let chunk = &self.buffer[payload];
        let body = self.body.as_mut().ok_or(FrameError::StrayChunk)?;
        if body.bytes.len() + chunk.len() > body.expected {
            return Err(FrameError::StrayChunk);
        }
        let length = chunk.len() as u32;
        self.credit = self.credit.checked_sub(length).ok_or(FrameError::Credit)?;
        self.consumed += length;
        body.bytes.extend_from_slice(chunk);
        if body.bytes.len() < body.expected {
            return Ok(None);
        }
        Ok(self.body.take().map(|body| Frame::Message(body.message, body.bytes)))
    }
}

impl<M: DeserializeOwned> Default for Decoder<M> {
    fn default() -> Self {
        Self::new()
    }
}

fn accept_credit<M>(payload: &[u8]) -> Result<Frame<M>, FrameError> {
    let bytes = payload.try_into().map(u32::from_le_bytes).map_err(|_| FrameError::Credit)?;
    if (1..=CREDIT_BYTES).contains(&bytes) { Ok(Frame::Credit(bytes)) } else { Err(FrameError::Credit) }
}

#[cfg(test)]
mod tests;
