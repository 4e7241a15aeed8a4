//! Rendezvous messages on a stream: each has its length before it, and too long a one is never read.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};

use crate::limits::REQUEST_BYTES_MAX;
use crate::rendezvous::message::{Answer, Request};

/// The name of the protocol.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/rendezvous/1.0.0");

/// Reads requests and writes answers; the relay asks nobody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Codec;

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Answer;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        stream: &mut T,
    ) -> io::Result<Request> {
        let mut bytes = vec![0; read_length(stream).await?];
        stream.read_exact(&mut bytes).await?;
        Request::decode(&bytes)
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        stream: &mut T,
        answer: Answer,
    ) -> io::Result<()> {
        stream.write_all(&answer.encode()).await
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
    ) -> io::Result<Answer> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
        _: Request,
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Seven bits a byte, the least significant first, until a byte below 128; at most [`REQUEST_BYTES_MAX`].
async fn read_length<T: AsyncRead + Unpin>(stream: &mut T) -> io::Result<usize> {
    let mut length = 0;
    for shift in [0, 7, 14] {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            let fits = length <= REQUEST_BYTES_MAX;
            return if fits { Ok(length) } else { Err(io::ErrorKind::FileTooLarge.into()) };
        }
    }
    Err(io::ErrorKind::FileTooLarge.into())
}

const _: () = assert!(REQUEST_BYTES_MAX < 1 << 21, "its length takes at most three bytes");

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use libp2p::request_response::Codec as _;

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Request> {
        Codec.read_request(&PROTOCOL, &mut futures::io::Cursor::new(bytes)).now_or_never().unwrap()
    }

    #[test]
    fn a_request_is_read_to_its_end_and_not_beyond() {
        // Unregister (2) from the namespace "a".
        let bytes = b"\x07\x08\x02\x22\x03\x0a\x01a and more";
        assert!(matches!(read(bytes), Ok(Request::Unregister(_))));
        for length in 0..8 {
            assert_eq!(read(&bytes[..length]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{length} bytes");
        }
    }

    #[test]
    fn a_long_request_fails_before_anything_of_it_is_read() {
        for length in [&b"\x81\x80\x01"[..], b"\xff\xff\x7f", b"\x80\x80\x80\x80\x01", b"\xff\xff\xff\xff\xff\xff\xff"]
        {
            assert_eq!(read(length).unwrap_err().kind(), io::ErrorKind::FileTooLarge, "{length:?}");
        }
        assert_eq!(read(b"\x80\x40").unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "8 KiB are allowed");
    }
}
