//! Frames survive honest streams cut anywhere, and refuse every dishonest one.

use super::*;
use crate::ids::{Hash, LeaseId};
use crate::message::{Message, ToRequester, ToWorker};

fn deliver(lease: u64) -> Message {
    Message::ToRequester(ToRequester::Deliver { lease: LeaseId(lease), compute_ms: 3 })
}

fn encode(message: &Message, body: &[u8]) -> Vec<u8> {
    let mut bytes = encode_header(message, body.len()).unwrap();
    for chunk in body.chunks(CHUNK_BYTES_MAX) {
        bytes.extend(chunk_prefix(chunk.len()));
        bytes.extend(chunk);
    }
    bytes
}

fn decode_all(decoder: &mut Decoder<Message>, bytes: &[u8]) -> Result<Vec<Frame<Message>>, FrameError> {
    decoder.push(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next_frame()? {
        frames.push(frame);
    }
    Ok(frames)
}

#[test]
fn a_stream_may_be_cut_anywhere() {
    let body: Vec<u8> = (0..CHUNK_BYTES_MAX + 100).map(|index| index as u8).collect();
    let heartbeat = Message::ToRequester(ToRequester::Heartbeat { lease: LeaseId(2) });
    let mut bytes = encode(&deliver(1), &body);
    bytes.extend(encode(&heartbeat, &[]));
    bytes.extend(encode_credit(9));
    for step in [1, 7, 4096, bytes.len()] {
        let mut decoder = Decoder::new();
        let frames: Vec<_> = bytes.chunks(step).flat_map(|piece| decode_all(&mut decoder, piece).unwrap()).collect();
        assert_eq!(
            frames,
            [Frame::Message(deliver(1), body.clone()), Frame::Message(heartbeat.clone(), vec![]), Frame::Credit(9)]
        );
    }
}

#[test]
fn a_heartbeat_passes_between_the_pieces_of_a_body() {
    let heartbeat = Message::ToRequester(ToRequester::Heartbeat { lease: LeaseId(2) });
    let mut bytes = encode_header(&deliver(1), 2).unwrap();
    bytes.extend(chunk_prefix(1));
    bytes.push(5);
    bytes.extend(encode(&heartbeat, &[]));
    bytes.extend(chunk_prefix(1));
    bytes.push(6);
    let frames = decode_all(&mut Decoder::new(), &bytes).unwrap();
    assert_eq!(frames, [Frame::Message(heartbeat, vec![]), Frame::Message(deliver(1), vec![5, 6])]);
}

#[test]
fn lengths_over_the_limits_are_refused_before_memory_is_taken() {
    for (kind, length) in [
        (KIND_HEADER, HEADER_BYTES_MAX + 1),
        (KIND_HEADER, 0),
        (KIND_CHUNK, CHUNK_BYTES_MAX + 1),
        (KIND_CHUNK, 0),
        (KIND_CREDIT, 5),
        (KIND_HEADER, u32::MAX as usize),
    ] {
        let mut bytes = vec![kind];
        bytes.extend((length as u32).to_le_bytes());
        let mut decoder = Decoder::new();
        assert_eq!(decode_all(&mut decoder, &bytes), Err(FrameError::TooLong), "{kind} {length}");
        assert!(decoder.buffer.capacity() < 64);
    }
    assert_eq!(encode_header(&deliver(1), BODY_BYTES_MAX + 1), Err(FrameError::TooLong));
    let mut header = encode_header(&deliver(1), 1).unwrap();
    header[PREFIX_BYTES..PREFIX_BYTES + 4].copy_from_slice(&(BODY_BYTES_MAX as u32 + 1).to_le_bytes());
    assert_eq!(decode_all(&mut Decoder::new(), &header), Err(FrameError::TooLong));
}

#[test]
fn an_announced_body_takes_memory_only_as_it_arrives() {
    let mut decoder = Decoder::new();
    assert_eq!(decode_all(&mut decoder, &encode_header(&deliver(1), BODY_BYTES_MAX).unwrap()), Ok(vec![]));
    assert_eq!(decoder.body.as_ref().unwrap().bytes.capacity(), 0);
}

#[test]
fn bodies_that_no_header_announced_are_refused() {
    let mut stray = chunk_prefix(1).to_vec();
    stray.push(0);
    assert_eq!(decode_all(&mut Decoder::new(), &stray), Err(FrameError::StrayChunk));
    let mut long = encode_header(&deliver(1), 1).unwrap();
    long.extend(chunk_prefix(2));
    long.extend([0, 0]);
    assert_eq!(decode_all(&mut Decoder::new(), &long), Err(FrameError::StrayChunk));
    let twice = [encode_header(&deliver(1), 1).unwrap(), encode_header(&deliver(2), 1).unwrap()].concat();
    assert_eq!(decode_all(&mut Decoder::new(), &twice), Err(FrameError::TwoBodies));
}

#[test]
fn a_sender_that_ignores_its_credit_is_refused() {
    let body = vec![0; CREDIT_BYTES as usize + 1];
    assert_eq!(decode_all(&mut Decoder::new(), &encode(&deliver(1), &body)), Err(FrameError::Credit));
    let body = vec![0; CREDIT_BYTES as usize];
    let mut decoder = Decoder::new();
    assert_eq!(decode_all(&mut decoder, &encode(&deliver(1), &body)).unwrap().len(), 1);
    assert_eq!(decoder.take_grant(), CREDIT_BYTES);
    assert_eq!(decoder.take_grant(), 0);
    assert_eq!(decode_all(&mut decoder, &encode(&deliver(1), &body)).unwrap().len(), 1);
    for grant in [0, CREDIT_BYTES + 1] {
        assert_eq!(decode_all(&mut Decoder::new(), &encode_credit(grant)), Err(FrameError::Credit));
    }
}

#[test]
fn headers_that_are_deep_trailing_or_foreign_are_refused() {
    let frame = |cbor: &[u8]| {
        let mut bytes = vec![KIND_HEADER];
        bytes.extend((cbor.len() as u32 + 4).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(cbor);
        bytes
    };
    let mut good = Vec::new();
    ciborium::into_writer(&Message::ToWorker(ToWorker::Store { blob: Hash::of(b"") }), &mut good).unwrap();
    assert_eq!(decode_all(&mut Decoder::new(), &frame(&good)).unwrap().len(), 1);
    good.push(0);
    assert_eq!(decode_all(&mut Decoder::new(), &frame(&good)), Err(FrameError::Header), "trailing byte");
    assert_eq!(decode_all(&mut Decoder::new(), &frame(&[0x81; 60_000])), Err(FrameError::Header), "deep");
    assert_eq!(decode_all(&mut Decoder::new(), &frame(b"")), Err(FrameError::Header), "empty");
    assert_eq!(decode_all(&mut Decoder::new(), &[9]), Err(FrameError::Kind));
}

/// A xorshift generator (Marsaglia 2003), so that a failing case can be run again.
fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn mutated_streams_never_panic_and_never_take_more_memory_than_they_sent() {
    let good = [encode(&deliver(1), &[1; 300]), encode_credit(77), encode(&deliver(2), &[])].concat();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for case in 0..100_000 {
        let mut bytes = good.clone();
        for _ in 0..=xorshift(&mut state) % 4 {
            let at = xorshift(&mut state) as usize % bytes.len();
            match xorshift(&mut state) % 3 {
                0 => bytes[at] = xorshift(&mut state) as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, xorshift(&mut state) as u8),
            }
        }
        let mut decoder = Decoder::<Message>::new();
        let _ = decode_all(&mut decoder, &bytes);
        let held = decoder.buffer.capacity() + decoder.body.as_ref().map_or(0, |body| body.bytes.capacity());
        assert!(held <= 4 * bytes.len() + 64, "case {case} holds {held} bytes");
    }
}
