//! The meeting place: libp2p relay, rendezvous and HTTP API.
