//! Carries protocol frames between peers over libp2p.
