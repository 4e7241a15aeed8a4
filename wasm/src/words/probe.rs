//! What a script may measure of the path to a member, and what it is told.

use serde::{Deserialize, Serialize};

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// What is measured.
    pub kind: ProbeKind,
    /// Bytes of a message or body.
    pub bytes: usize,
    /// How many.
    pub count: usize,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeKind {
    /// Messages there and back, one after the other.
    Echo,
    /// Bodies to the member.
    Upload,
    /// Bodies from the member.
    Download,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// How the member was reached, in the words of [`super::Peer::path`].
    pub path: String,
    /// Bytes carried one way.
    pub bytes: usize,
    /// Milliseconds from the first byte to the last.
    pub took_ms: f64,
    /// Milliseconds of the middle one of the echoes; `None` for the other kinds.
    pub echo_p50_ms: Option<f64>,
}

impl From<Probe> for net::Probe {
    fn from(Probe { kind, bytes, count }: Probe) -> Self {
        match kind {
            ProbeKind::Echo => Self::Echo { bytes, count },
            ProbeKind::Upload => Self::Upload { bytes, count },
            ProbeKind::Download => Self::Download { bytes, count },
        }
    }
}

impl From<net::Measured> for Measured {
    fn from(measured: net::Measured) -> Self {
        Self {
            path: measured.path.to_string(),
            bytes: measured.bytes,
            took_ms: measured.took.as_secs_f64() * 1e3,
            echo_p50_ms: measured.echo_p50().map(|echo| echo.as_secs_f64() * 1e3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_read_as_scripts_write_it() {
        let probe: Probe = serde_json::from_str(r#"{ "kind": "echo", "bytes": 16384, "count": 3 }"#).unwrap();
        assert_eq!(net::Probe::from(probe), net::Probe::Echo { bytes: 16384, count: 3 });
        assert!(serde_json::from_str::<Probe>(r#"{ "kind": "echo", "bytes": -1, "count": 3 }"#).is_err());
        assert!(serde_json::from_str::<Probe>(r#"{ "kind": "flood", "bytes": 1, "count": 3 }"#).is_err());
    }
}
