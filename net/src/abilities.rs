//! Which transports this place offers, so that a page can say what is missing.

/// The transports of a browser that this program may use here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Direct connections to natives and relays.
    pub webtransport: bool,
    /// The fallback for those.
    pub websocket: bool,
    /// Direct connections between browsers.
    pub webrtc: bool,
}
