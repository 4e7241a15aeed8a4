//! What two peers say to each other before they are connected: libp2p's signalling messages, length-prefixed.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use prost::Message;

use crate::limits::SIGNAL_BYTES_MAX;

/// One message.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Signal {
    #[prost(enumeration = "Kind", optional, tag = "1")]
    pub kind: Option<i32>,
    #[prost(string, optional, tag = "2")]
    pub data: Option<String>,
}

/// What a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Kind {
    /// A session description by the dialer.
    Offer = 0,
    /// The other side's.
    Answer = 1,
    /// An ICE candidate as JSON.
    Candidate = 2,
}

/// Bytes of the longest length prefix that is read.
const PREFIX_BYTES_MAX: usize = 3;

const _: () = assert!(SIGNAL_BYTES_MAX < 1 << (7 * PREFIX_BYTES_MAX), "every length fits its prefix");

/// Writes one message and flushes.
pub(crate) async fn write<W: AsyncWrite + Unpin>(stream: &mut W, kind: Kind, data: String) -> io::Result<()> {
    let signal = Signal { kind: Some(kind as i32), data: Some(data) };
    if signal.encoded_len() > SIGNAL_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the description is too long"));
    }
    stream.write_all(&signal.encode_length_delimited_to_vec()).await?;
    stream.flush().await
}

/// Reads one message of at most [`SIGNAL_BYTES_MAX`] bytes; `None` if it is of a kind that is not known.
pub(crate) async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<Option<(Kind, String)>> {
    let malformed = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut length = 0;
    for index in 0.. {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        length |= usize::from(byte[0] & 0x7f) << (7 * index);
        if byte[0] < 0x80 {
            break;
        }
        if index + 1 >= PREFIX_BYTES_MAX {
            return Err(malformed("a signal's length is malformed"));
        }
    }
    if length > SIGNAL_BYTES_MAX {
        return Err(malformed("a signal is too long"));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    let signal = Signal::decode(&*bytes).map_err(|_| malformed("a signal is malformed"))?;
    // An absent kind is the first one, as protobuf has it.
    let kind = Kind::try_from(signal.kind.unwrap_or_default()).ok();
    Ok(kind.map(|kind| (kind, signal.data.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;

    use super::*;

    fn said(bytes: &[u8]) -> io::Result<Option<(Kind, String)>> {
        block_on(read(&mut Cursor::new(bytes)))
    }

    #[test]
    fn a_signal_comes_back_as_it_was_written_in_the_bytes_of_the_specification() {
        let mut bytes = Vec::new();
        block_on(write(&mut bytes, Kind::Answer, "v=0".into())).unwrap();
        assert_eq!(bytes, [7, 0x08, 1, 0x12, 3, b'v', b'=', b'0']);
        assert_eq!(said(&bytes).unwrap(), Some((Kind::Answer, "v=0".into())));
        let long = "x".repeat(SIGNAL_BYTES_MAX - 6);
        let mut bytes = Vec::new();
        block_on(write(&mut bytes, Kind::Offer, long.clone())).unwrap();
        assert_eq!(said(&bytes).unwrap(), Some((Kind::Offer, long)));
        assert_eq!(said(&[2, 0x08, 9]).unwrap(), None);
    }

    #[test]
    fn too_much_and_nonsense_are_refused_before_memory_is_spent() {
        let too_long = "x".repeat(SIGNAL_BYTES_MAX);
        assert!(block_on(write(&mut Vec::new(), Kind::Offer, too_long)).is_err());
        assert_eq!(said(&[0xff, 0xff, 0x7f]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(said(&[0xff; 9]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(said(&[2, 0x12, 5]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(said(&[200]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
