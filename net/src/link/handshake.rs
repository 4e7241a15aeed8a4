//! The proof of membership on a new stream, before anything else is said; the order is that of
//! [`protocol::membership`].

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use protocol::frame::decode_cbor;
use protocol::membership::{Handshake, Hello, Proof, Role};
use protocol::{PeerId, RoomKeys};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::HANDSHAKE_BYTES_MAX;

/// Why a peer is not a member on this stream.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It is in another room.
    #[error("the peer is in another room")]
    OtherRoom,
    /// It does not know the secret.
    #[error("the peer does not know the room's secret")]
    Proof,
    /// What it sent is no handshake message.
    #[error("the peer's handshake is malformed")]
    Malformed,
    /// The stream broke or was closed.
    #[error("the stream closed during the handshake: {0}")]
    Closed(#[from] io::Error),
}

/// Who shakes hands with whom, in which room.
#[derive(Clone, Debug)]
pub(crate) struct Identity<'a> {
    pub keys: &'a RoomKeys,
    pub local: &'a PeerId,
    pub remote: &'a PeerId,
    pub role: Role,
}

/// Proves our membership and checks the peer's. Returns only when both sides have proved theirs.
pub(crate) async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    identity: Identity<'_>,
) -> Result<(), HandshakeError> {
    let Identity { keys, local, remote, role } = identity;
    let hello = Hello { room: keys.id(), nonce: rand::random() };
    match role {
        Role::Dialer => {
            write_message(stream, &hello).await?;
            let theirs = read_hello(stream, keys).await?;
            let (dialer_nonce, listener_nonce) = (hello.nonce, theirs.nonce);
            let handshake = Handshake { keys, dialer: local, listener: remote, dialer_nonce, listener_nonce };
            write_message(stream, &handshake.prove(Role::Dialer)).await?;
            read_proof(stream, &handshake, Role::Listener).await
        }
        Role::Listener => {
            let theirs = read_hello(stream, keys).await?;
            write_message(stream, &hello).await?;
            let (dialer_nonce, listener_nonce) = (theirs.nonce, hello.nonce);
            let handshake = Handshake { keys, dialer: remote, listener: local, dialer_nonce, listener_nonce };
            read_proof(stream, &handshake, Role::Dialer).await?;
            Ok(write_message(stream, &handshake.prove(Role::Listener)).await?)
        }
    }
}

/// Writes a handshake message: its length as a little-endian u16, then CBOR.
pub(crate) async fn write_message<S: AsyncWrite + Unpin, M: Serialize>(stream: &mut S, message: &M) -> io::Result<()> {
    let mut bytes = vec![0, 0];
    ciborium::into_writer(message, &mut bytes).expect("writing CBOR to memory cannot fail");
    let length = u16::try_from(bytes.len() - 2).expect("handshake messages are small");
    bytes[..2].copy_from_slice(&length.to_le_bytes());
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Reads what [`write_message`] wrote, at most [`HANDSHAKE_BYTES_MAX`] bytes.
pub(crate) async fn read_message<S: AsyncRead + Unpin, M: DeserializeOwned>(
    stream: &mut S,
) -> Result<M, HandshakeError> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut buffer = [0; HANDSHAKE_BYTES_MAX];
    let bytes = buffer.get_mut(..usize::from(u16::from_le_bytes(length))).ok_or(HandshakeError::Malformed)?;
    stream.read_exact(bytes).await?;
    decode_cbor(bytes).map_err(|_| HandshakeError::Malformed)
}

async fn read_hello<S: AsyncRead + Unpin>(stream: &mut S, keys: &RoomKeys) -> Result<Hello, HandshakeError> {
    let hello: Hello = read_message(stream).await?;
    if hello.room == keys.id() { Ok(hello) } else { Err(HandshakeError::OtherRoom) }
}

async fn read_proof<S: AsyncRead + Unpin>(
    stream: &mut S,
    handshake: &Handshake<'_>,
    role: Role,
) -> Result<(), HandshakeError> {
    let proof: Proof = read_message(stream).await?;
    if handshake.verify(role, &proof) { Ok(()) } else { Err(HandshakeError::Proof) }
}
