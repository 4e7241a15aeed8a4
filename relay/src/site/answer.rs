//! One file's answer: its headers, its representation, and the part of it that was asked for.

use std::io::SeekFrom;
use std::ops::Range;
use std::path::Path;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::list::{Listing, brotli_of};
use crate::limits::SITE_CHUNK_BYTES;

/// Scripts come from here alone and none stands in the page; connections go anywhere, because relays and members do. Text
/// becomes a script's address only by the page's own policy, and markup by none (Trusted Types, where browsers have them).
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; \
     img-src 'self' blob: data:; connect-src *; worker-src 'self'; manifest-src 'self'; object-src 'none'; \
     base-uri 'none'; frame-ancestors 'none'; form-action 'none'; require-trusted-types-for 'script'; \
     trusted-types default";

/// What goes with every answer, also with those that say no.
const ALWAYS: [(HeaderName, &str); 8] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    // Together these two give the page shared memory, and thereby threads.
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-embedder-policy"), "credentialless"),
    // Other sites may import the JavaScript API. There are no cookies, so nothing here is anyone's secret.
    (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), microphone=(), geolocation=(), payment=(), usb=(), serial=(), midi=()",
    ),
];

/// An address with `?v=` and at least so many characters of the file's hash names its content, which then never changes.
const VERSION_CHARACTERS_MIN: usize = 16;

/// Which bytes of a file to send.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Some(Range<u64>),
    /// Asked for what the file does not have.
    None,
}

/// Answers for a listed file; `path` is its name on the list.
pub async fn serve(on_disk: &Path, path: &str, file: &Listing, query: Option<&str>, request: &HeaderMap) -> Response {
    let text = |name: HeaderName| request.get(name).and_then(|value| value.to_str().ok());
    let plain_tag = format!("\"{}\"", file.sha256);
    let part = match text(header::RANGE) {
        // A part of something older is of no use to who holds the rest of it.
        Some(range) if text(header::IF_RANGE).is_none_or(|tag| tag == plain_tag) => part(range, file.bytes),
        _ => Part::Whole,
    };
    let takes_brotli = part == Part::Whole && text(header::ACCEPT_ENCODING).is_some_and(takes_brotli);
    let brotli_bytes = file.brotli_bytes.filter(|_| takes_brotli);
    let tag = brotli_bytes.map_or(plain_tag, |_| format!("\"{}-br\"", file.sha256));
    let mut headers = HeaderMap::from_iter(ALWAYS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    let mut set = |name: HeaderName, value: &str| {
        headers.insert(name, value.parse().expect("hashes, numbers and constants are header values"));
    };
    set(
        header::CACHE_CONTROL,
        if is_versioned(query, file) { "public, max-age=31536000, immutable" } else { "no-cache" },
    );
    set(header::VARY, "accept-encoding");
    set(header::ACCEPT_RANGES, "bytes");
    set(header::CONTENT_TYPE, content_type(path));
    set(header::ETAG, &tag);
    if text(header::IF_NONE_MATCH).is_some_and(|tags| holds(tags, &tag)) {
        return (StatusCode::NOT_MODIFIED, headers, Body::empty()).into_response();
    }
    let (status, range, source) = match (part, brotli_bytes) {
        (Part::None, _) => {
            set(header::CONTENT_RANGE, &format!("bytes */{}", file.bytes));
            return (StatusCode::RANGE_NOT_SATISFIABLE, headers, Body::empty()).into_response();
        }
        (Part::Some(range), _) => {
            set(header::CONTENT_RANGE, &format!("bytes {}-{}/{}", range.start, range.end - 1, file.bytes));
            (StatusCode::PARTIAL_CONTENT, range, on_disk.to_owned())
        }
        (Part::Whole, Some(bytes)) => {
            set(header::CONTENT_ENCODING, "br");
            (StatusCode::OK, 0..bytes, brotli_of(on_disk))
        }
        (Part::Whole, None) => (StatusCode::OK, 0..file.bytes, on_disk.to_owned()),
    };
    set(header::CONTENT_LENGTH, &(range.end - range.start).to_string());
    match body(&source, range).await {
        Ok(body) => (status, headers, body).into_response(),
        // It is on the list and was there when the list was read.
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "this file is being replaced; ask again\n"),
    }
}

/// Whether the address names the content: `?v=` and enough of its hash.
fn is_versioned(query: Option<&str>, file: &Listing) -> bool {
    let version = query.and_then(|query| query.strip_prefix("v="));
    version.is_some_and(|version| version.len() >= VERSION_CHARACTERS_MIN && file.sha256.starts_with(version))
}

/// Answers for what is not on the list.
pub fn missing() -> Response {
    refusal(StatusCode::NOT_FOUND, "there is nothing here\n")
}

fn refusal(status: StatusCode, text: &'static str) -> Response {
    let always = ALWAYS.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (status, HeaderMap::from_iter(always), text).into_response()
}

/// Reads as the browser takes it, never more than one chunk ahead.
async fn body(source: &Path, range: Range<u64>) -> std::io::Result<Body> {
    let mut file = File::open(source).await?;
    if range.start > 0 {
        file.seek(SeekFrom::Start(range.start)).await?;
    }
    let left = range.end - range.start;
    let chunks = stream::try_unfold((file, left), async |(mut file, left)| {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(SITE_CHUNK_BYTES);
        if wanted == 0 {
            return Ok(None);
        }
        let mut chunk = vec![0; wanted];
        let read = file.read(&mut chunk).await?;
        if read == 0 {
            // Shorter than announced: cutting the connection is the only way left to say so.
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
        }
        chunk.truncate(read);
        Ok(Some((Bytes::from(chunk), (file, left - read as u64))))
    });
    Ok(Body::from_stream(chunks))
}

/// One range as `bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-COUNT`. Anything else is answered with the whole, as allowed.
fn part(header: &str, bytes: u64) -> Part {
    let Some((first, last)) = header.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Part::Whole;
    };
    let range = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(bytes),
        (Ok(first), Err(_)) if last.trim().is_empty() => first..bytes,
        (Err(_), Ok(count)) if first.trim().is_empty() => bytes.saturating_sub(count)..bytes,
        _ => return Part::Whole,
    };
    if range.is_empty() { Part::None } else { Part::Some(range) }
}

/// Whether brotli is among the accepted encodings, and not with a weight of nothing.
fn takes_brotli(accepted: &str) -> bool {
    accepted.split(',').any(|choice| {
        let mut words = choice.split(';').map(str::trim);
        let is_brotli = words.next().is_some_and(|name| name.eq_ignore_ascii_case("br"));
        let weight = words.find_map(|word| word.strip_prefix("q=")).and_then(|weight| weight.parse::<f32>().ok());
        is_brotli && weight.is_none_or(|weight| weight > 0.0)
    })
}

/// Whether a list of entity tags has this one.
fn holds(tags: &str, tag: &str) -> bool {
    tags.split(',').map(str::trim).any(|held| held == "*" || held.trim_start_matches("W/") == tag)
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "css" => "text/css; charset=utf-8",
        "html" => "text/html; charset=utf-8",
        "ico" => "image/x-icon",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "md" | "ts" | "txt" | "wgsl" => "text/plain; charset=utf-8",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "wasm" => "application/wasm",
        "webmanifest" => "application/manifest+json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_range_is_cut_to_the_file() {
        assert_eq!(part("bytes=0-0", 10), Part::Some(0..1));
        assert_eq!(part("bytes=4-", 10), Part::Some(4..10));
        assert_eq!(part("bytes=4-99", 10), Part::Some(4..10));
        assert_eq!(part("bytes=-3", 10), Part::Some(7..10));
        assert_eq!(part("bytes=-99", 10), Part::Some(0..10));
        assert_eq!(part("bytes=0-18446744073709551615", 10), Part::Some(0..10));
    }

    #[test]
    fn a_range_outside_the_file_is_refused_and_nonsense_is_ignored() {
        for outside in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(part(outside, 10), Part::None, "{outside}");
        }
        assert_eq!(part("bytes=0-", 0), Part::None);
        for nonsense in ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "lines=1-2", "bytes=0-1,3-4"] {
            assert_eq!(part(nonsense, 10), Part::Whole, "{nonsense}");
        }
    }

    #[test]
    fn brotli_goes_only_to_those_who_take_it() {
        for takes in ["br", "gzip, deflate, br", "gzip, BR;q=0.5, *;q=0"] {
            assert!(takes_brotli(takes), "{takes}");
        }
        for refuses in ["", "gzip", "br;q=0", "br; q=0.0", "brotli", "*"] {
            assert!(!takes_brotli(refuses), "{refuses}");
        }
    }

    #[test]
    fn tags_are_compared_whole() {
        assert!(holds("\"a\", W/\"b\"", "\"b\"") && holds("*", "\"b\""));
        assert!(!holds("\"ab\"", "\"b\"") && !holds("", "\"b\""));
    }

    #[test]
    fn every_constant_header_is_valid() {
        let refused = refusal(StatusCode::NOT_FOUND, "");
        for (name, value) in ALWAYS {
            assert_eq!(refused.headers().get(&name).unwrap(), value, "{name}");
        }
    }
}
