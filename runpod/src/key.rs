//! The endpoint's key: goes into one header, and nowhere else.

use std::borrow::Cow;
use std::fmt;
use std::hint::black_box;
use std::mem::take;

use reqwest::header::HeaderValue;

use crate::limits::{KEY_BYTES_MAX, KEY_BYTES_MIN};

/// What stands in a text where the key stood.
const REDACTED: &str = "(redacted)";

/// A text cannot be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is {KEY_BYTES_MIN} to {KEY_BYTES_MAX} visible ASCII characters")]
pub struct KeyError;

/// A key, never printed, and overwritten when dropped. The header made of it for a call is not overwritten: its copies are the
/// HTTP client's.
#[derive(Clone)]
pub struct Key(String);

impl Key {
    /// Checks that it can stand in a header; surrounding white space (a file's last newline) is left out.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let fits =
            (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.to_owned())).ok_or(KeyError)
    }

    /// `text` without this key: an endpoint may repeat what it was sent.
    pub(crate) fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if text.contains(&self.0) { Cow::Owned(text.replace(&self.0, REDACTED)) } else { Cow::Borrowed(text) }
    }

    /// `Bearer` and the key, marked so that the HTTP client does not print it either.
    pub(crate) fn bearer(&self) -> HeaderValue {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0)).expect("a key is visible ASCII");
        value.set_sensitive(true);
        value
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let mut bytes = take(&mut self.0).into_bytes();
        bytes.fill(0);
        // Somebody seems to look, so the zeros are really written.
        black_box(&bytes);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(redacted)")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_printed() {
        let key = Key::new("rpa_CANARY\n").unwrap();
        for text in [
            format!("{key}"),
            format!("{key:?}"),
            format!("{:?}", key.bearer()),
            key.redact("at rpa_CANARY!").into_owned(),
        ] {
            assert!(!text.contains("CANARY"), "{text}");
        }
        assert_eq!(key.bearer().as_bytes(), b"Bearer rpa_CANARY");
    }

    #[test]
    fn what_cannot_stand_in_a_header_is_no_key() {
        for text in ["", " ", "abcdefg ", "abcd efgh", "abcd\nefgh", "abcdefgä", &"a".repeat(KEY_BYTES_MAX + 1)] {
            assert!(Key::new(text).is_err(), "{text:?}");
        }
    }
}
