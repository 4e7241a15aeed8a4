//! What is said at the rendezvous: requests as they arrive, answers as they leave, and their protobuf bytes.
//!
//! Source: <https://github.com/libp2p/specs/tree/master/rendezvous>, as spoken by libp2p's own client.

use std::io;
use std::sync::Arc;

use libp2p::PeerId;
use libp2p::core::{PeerRecord, SignedEnvelope};
use prost::Message;
use prost::bytes::Bytes;

use crate::limits::{NAMESPACE_BYTES_MAX, RECORD_BYTES_MAX};

/// The name under which the members of one room meet: 1 to [`NAMESPACE_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Namespace(Arc<str>);

impl Namespace {
    pub fn new(name: &str) -> Option<Self> {
        (!name.is_empty() && name.len() <= NAMESPACE_BYTES_MAX).then(|| Self(name.into()))
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Where a member's addresses are, in its own words: a peer record whose signature has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Who signed it.
    pub signer: PeerId,
    /// The signed envelope as it came, at most [`RECORD_BYTES_MAX`].
    pub envelope: Bytes,
}

impl Record {
    fn decode(envelope: &[u8]) -> Option<Self> {
        if envelope.len() > RECORD_BYTES_MAX {
            return None;
        }
        let record = PeerRecord::from_signed_envelope(SignedEnvelope::from_protobuf_encoding(envelope).ok()?).ok()?;
        Some(Self { signer: record.peer_id(), envelope: Bytes::copy_from_slice(envelope) })
    }
}

/// How far somebody has read the list of a namespace: the number of the last registration it was told, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(pub u64);

impl Place {
    /// A cookie: the number, most significant byte first, and the namespace it is for.
    fn encode(self, namespace: &Namespace) -> Vec<u8> {
        [&self.0.to_be_bytes(), namespace.0.as_bytes()].concat()
    }

    /// `None` unless it is a cookie for `namespace`.
    fn decode(cookie: &[u8], namespace: &Namespace) -> Option<Self> {
        let (number, name) = cookie.split_first_chunk()?;
        (name == namespace.0.as_bytes()).then(|| Self(u64::from_be_bytes(*number)))
    }
}

/// What a peer asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// To be listed, for so many seconds.
    Register { namespace: Namespace, record: Record, seconds: Option<u64> },
    /// To be listed no longer; not answered.
    Unregister(Namespace),
    /// For those listed after a place, at most so many.
    Discover { namespace: Namespace, after: Place, limit: usize },
    /// Something that is refused whatever the state: with this answer.
    Wrong(Answer),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It names no namespace, or one that is too long.
    Namespace = 100,
    /// The record is too large, not one, or not signed by whom it is about.
    Record = 101,
    /// The registration would be too short or too long.
    Ttl = 102,
    /// The cookie is none of this namespace.
    Cookie = 103,
    /// The record is somebody else's.
    NotAuthorized = 200,
    /// There are too many registrations.
    Unavailable = 400,
}

/// What the relay answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Listed, for so many seconds.
    Registered(Result<u64, Refusal>),
    /// Some of those who are listed.
    Discovered(Result<Page, Refusal>),
}

/// A part of a namespace's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub namespace: Namespace,
    /// Records, and the seconds they have left.
    pub registrations: Vec<(Record, u64)>,
    /// Where the next page begins.
    pub next: Place,
}

const REGISTER: i32 = 0;
const REGISTER_RESPONSE: i32 = 1;
const UNREGISTER: i32 = 2;
const DISCOVER: i32 = 3;
const DISCOVER_RESPONSE: i32 = 4;
const OK: i32 = 0;

impl Request {
    /// Reads one message without its length; fails unless it is a request at all.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        let message = RequestMessage::decode(bytes).map_err(io::Error::other)?;
        match (message.kind, message.register, message.unregister, message.discover) {
            (REGISTER, Some(register), ..) => {
                Ok(register.check().unwrap_or_else(|refusal| Self::Wrong(Answer::Registered(Err(refusal)))))
            }
            (UNREGISTER, _, Some(unregister), _) => {
                Namespace::new(&unregister.namespace).map(Self::Unregister).ok_or(io::ErrorKind::InvalidData.into())
            }
            (DISCOVER, _, _, Some(discover)) => {
                Ok(discover.check().unwrap_or_else(|refusal| Self::Wrong(Answer::Discovered(Err(refusal)))))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Answer {
    /// The message with its length before it.
    pub fn encode(&self) -> Vec<u8> {
        let status = |refusal: &Refusal| Some(*refusal as i32);
        let message = match self {
            Self::Registered(outcome) => AnswerMessage {
                kind: REGISTER_RESPONSE,
                registered: Some(match outcome {
                    Ok(seconds) => RegisteredMessage { status: Some(OK), seconds: *seconds },
                    Err(refusal) => RegisteredMessage { status: status(refusal), seconds: 0 },
                }),
                discovered: None,
            },
            Self::Discovered(outcome) => AnswerMessage {
                kind: DISCOVER_RESPONSE,
                registered: None,
                discovered: Some(match outcome {
                    Ok(page) => page.message(),
                    Err(refusal) => DiscoveredMessage { status: status(refusal), ..DiscoveredMessage::default() },
                }),
            },
        };
        message.encode_length_delimited_to_vec()
    }
}

impl Page {
    fn message(&self) -> DiscoveredMessage {
        let registrations = self.registrations.iter().map(|(record, seconds)| RegisterMessage {
            namespace: self.namespace.0.to_string(),
            record: record.envelope.clone(),
            seconds: *seconds,
        });
        DiscoveredMessage {
            registrations: registrations.collect(),
            cookie: self.next.encode(&self.namespace),
            status: Some(OK),
        }
    }
}

impl RegisterMessage {
    fn check(&self) -> Result<Request, Refusal> {
        let namespace = Namespace::new(&self.namespace).ok_or(Refusal::Namespace)?;
        let record = Record::decode(&self.record).ok_or(Refusal::Record)?;
        Ok(Request::Register { namespace, record, seconds: (self.seconds > 0).then_some(self.seconds) })
    }
}

impl DiscoverMessage {
    fn check(&self) -> Result<Request, Refusal> {
        let namespace = Namespace::new(&self.namespace).ok_or(Refusal::Namespace)?;
        let after = match &self.cookie {
            Some(cookie) => Place::decode(cookie, &namespace).ok_or(Refusal::Cookie)?,
            None => Place::default(),
        };
        let limit = self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(Request::Discover { namespace, after, limit })
    }
}

// The protocol has one message for both directions. Here there are two, so that a request cannot make the relay build
// lists that only an answer has: unknown fields are skipped.

#[derive(Clone, PartialEq, Message)]
struct RequestMessage {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    register: Option<RegisterMessage>,
    #[prost(message, optional, tag = "4")]
    unregister: Option<UnregisterMessage>,
    #[prost(message, optional, tag = "5")]
    discover: Option<DiscoverMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct RegisterMessage {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(bytes = "bytes", tag = "2")]
    record: Bytes,
    #[prost(uint64, tag = "3")]
    seconds: u64,
}

#[derive(Clone, PartialEq, Message)]
struct UnregisterMessage {
    #[prost(string, tag = "1")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct DiscoverMessage {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(uint64, optional, tag = "2")]
    limit: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "3")]
    cookie: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct AnswerMessage {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "3")]
    registered: Option<RegisteredMessage>,
    #[prost(message, optional, tag = "6")]
    discovered: Option<DiscoveredMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct RegisteredMessage {
    // OK is 0, which must be written all the same.
    #[prost(int32, optional, tag = "1")]
    status: Option<i32>,
    #[prost(uint64, tag = "3")]
    seconds: u64,
}

#[derive(Clone, PartialEq, Message)]
struct DiscoveredMessage {
    #[prost(message, repeated, tag = "1")]
    registrations: Vec<RegisterMessage>,
    #[prost(bytes = "vec", tag = "2")]
    cookie: Vec<u8>,
    #[prost(int32, optional, tag = "3")]
    status: Option<i32>,
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    fn namespace() -> Namespace {
        Namespace::new("a room").unwrap()
    }

    fn signed(key: &Keypair, addresses: usize) -> Vec<u8> {
        let address = "/ip4/192.0.2.1/udp/4001/quic-v1".parse().unwrap();
        PeerRecord::new(key, vec![address; addresses]).unwrap().into_signed_envelope().into_protobuf_encoding()
    }

    fn register(namespace: &str, record: Vec<u8>) -> Request {
        let register = RegisterMessage { namespace: namespace.to_owned(), record: record.into(), seconds: 30 };
        let message = RequestMessage { kind: REGISTER, register: Some(register), ..RequestMessage::default() };
        Request::decode(&message.encode_to_vec()).unwrap()
    }

    fn discover(namespace: &str, cookie: Option<Vec<u8>>) -> Request {
        let discover = DiscoverMessage { namespace: namespace.to_owned(), limit: None, cookie };
        let message = RequestMessage { kind: DISCOVER, discover: Some(discover), ..RequestMessage::default() };
        Request::decode(&message.encode_to_vec()).unwrap()
    }

    fn refused_to_register(refusal: Refusal) -> Request {
        Request::Wrong(Answer::Registered(Err(refusal)))
    }

    fn refused_to_discover(refusal: Refusal) -> Request {
        Request::Wrong(Answer::Discovered(Err(refusal)))
    }

    #[test]
    fn a_record_names_its_signer_and_no_altered_byte_gets_through() {
        let key = Keypair::generate_ed25519();
        let envelope = signed(&key, 2);
        let Request::Register { record, .. } = register("a room", envelope.clone()) else { panic!("refused") };
        assert_eq!((record.signer, record.envelope.as_ref()), (key.public().to_peer_id(), envelope.as_slice()));
        for index in 0..envelope.len() {
            let mut altered = envelope.clone();
            altered[index] ^= 1;
            assert_eq!(register("a room", altered), refused_to_register(Refusal::Record), "byte {index}");
        }
    }

    #[test]
    fn a_record_that_is_large_or_missing_is_refused() {
        let key = Keypair::generate_ed25519();
        assert_eq!(register("a room", signed(&key, 1000)), refused_to_register(Refusal::Record));
        assert_eq!(register("a room", Vec::new()), refused_to_register(Refusal::Record));
    }

    #[test]
    fn nothing_happens_without_a_namespace() {
        let key = Keypair::generate_ed25519();
        for name in [String::new(), "n".repeat(NAMESPACE_BYTES_MAX + 1)] {
            assert_eq!(register(&name, signed(&key, 1)), refused_to_register(Refusal::Namespace));
            assert_eq!(discover(&name, None), refused_to_discover(Refusal::Namespace));
        }
        assert!(matches!(discover(&"n".repeat(NAMESPACE_BYTES_MAX), None), Request::Discover { .. }));
    }

    #[test]
    fn a_cookie_is_good_for_its_own_namespace_only() {
        let cookie = Place(7).encode(&namespace());
        let found = Request::Discover { namespace: namespace(), after: Place(7), limit: usize::MAX };
        assert_eq!(discover("a room", Some(cookie.clone())), found);
        assert_eq!(discover("another room", Some(cookie.clone())), refused_to_discover(Refusal::Cookie));
        for length in 0..cookie.len() {
            let cut = Some(cookie[..length].to_vec());
            assert_eq!(discover("a room", cut), refused_to_discover(Refusal::Cookie), "{length} bytes");
        }
    }

    #[test]
    fn bytes_that_are_no_request_are_an_error() {
        let answer = Answer::Registered(Ok(30)).encode();
        for bytes in [b"".as_slice(), b"\xff\xff\xff", b"\x08\x63", &answer[1..]] {
            assert!(Request::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_success_says_so() {
        // The protocol's own encoding: type 1, and in field 3 the status 0 and the time 30.
        assert_eq!(Answer::Registered(Ok(30)).encode(), b"\x08\x08\x01\x1a\x04\x08\x00\x18\x1e");
        assert_eq!(Answer::Discovered(Err(Refusal::Namespace)).encode(), b"\x06\x08\x04\x32\x02\x18\x64");
    }
}
