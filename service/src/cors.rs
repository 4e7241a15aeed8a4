//! Which pages may use the API, and under which names the relay is called: exact origins, and no name that others could point
//! at this machine.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::settings::Settings;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE");
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, idempotency-key, last-event-id, x-manyhands-room");
const EXPOSED: HeaderValue = HeaderValue::from_static("location, retry-after");
const SECONDS: HeaderValue = HeaderValue::from_static("600");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// What a browser said of the page that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nothing: it is no page, or a plain navigation.
    None,
    /// The relay's own page.
    Own,
    /// A page that may use the API.
    Allowed(HeaderValue),
    /// Any other page.
    Foreign,
}

impl Origin {
    /// Reads it.
    pub(crate) fn of(settings: &Settings, headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(header::ORIGIN) else { return Self::None };
        let Ok(origin) = value.to_str() else { return Self::Foreign };
        let host = origin.split_once("://").map(|(_, host)| host);
        if host.is_some() && host == headers.get(header::HOST).and_then(|host| host.to_str().ok()) {
            return Self::Own;
        }
        if settings.public_url.as_deref() == Some(origin) {
            return Self::Own;
        }
        let is_allowed = settings.cors_origins.iter().any(|allowed| allowed == origin);
        if is_allowed { Self::Allowed(value.clone()) } else { Self::Foreign }
    }

    /// Refuses other pages: there is nothing here that they need.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        match self {
            Self::None | Self::Own | Self::Allowed(_) => Ok(()),
            Self::Foreign => Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "foreign_origin",
                "pages of this origin may not use this relay; its operator may add it to cors_origins",
            )),
        }
    }

    /// Tells the browser that the page may read the answer, and that nobody else should keep it.
    pub(crate) fn stamp(&self, headers: &mut HeaderMap) {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        match self {
            Self::Allowed(origin) => {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
                headers.insert(RESOURCE_POLICY, HeaderValue::from_static("cross-origin"));
            }
            Self::None | Self::Own | Self::Foreign => {}
        }
    }
}

/// Whether a browser asks what it may ask.
pub(crate) fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// What it may.
pub(crate) fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, SECONDS);
    response
}

/// Refuses names that are not this relay's: a page could have its own name point at this machine (DNS rebinding), but never an
/// address or `localhost`.
pub(crate) fn check_host(settings: &Settings, headers: &HeaderMap) -> Result<(), ApiError> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = without_port(host);
    let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    let public = settings.public_url.as_deref().and_then(|url| url.split_once("://")).map(|(_, host)| host);
    let public = public.map(|rest| rest.split('/').next().unwrap_or_default());
    let is_named = |known: &str| known.eq_ignore_ascii_case(host) || known.eq_ignore_ascii_case(name);
    let is_public = public.is_some_and(|public| is_named(public) || is_named(without_port(public)));
    if is_address || is_named("localhost") || is_public || settings.hosts.iter().any(|known| is_named(known)) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::MISDIRECTED_REQUEST,
        "unknown_host",
        "this relay is not called so; its operator may name it in public_url or hosts",
    ))
}

/// `host` without `:port`; an IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => {
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            public_url: Some("https://relay.example".to_owned()),
            hosts: vec!["other.example:8443".to_owned()],
            cors_origins: vec!["https://page.example".to_owned()],
            ..Settings::default()
        }
    }

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_origins_that_are_written_down_may_read_answers() {
        let of = |origin: &str| Origin::of(&settings(), &headers(&[(header::ORIGIN, origin), (header::HOST, "a:1")]));
        assert_eq!(of("https://page.example"), Origin::Allowed(HeaderValue::from_static("https://page.example")));
        assert_eq!(of("https://relay.example"), Origin::Own);
        assert_eq!(of("http://a:1"), Origin::Own);
        for foreign in
            ["http://page.example", "https://page.example:8443", "https://page.example.evil", "null", "*", "a:1", ""]
        {
            assert_eq!(of(foreign), Origin::Foreign, "{foreign}");
        }
        assert_eq!(Origin::of(&settings(), &HeaderMap::new()), Origin::None);
    }

    #[test]
    fn only_names_that_are_ours_are_answered_to() {
        let is_ours = |host: &str| check_host(&settings(), &headers(&[(header::HOST, host)])).is_ok();
        let ours = [
            "relay.example",
            "RELAY.example:443",
            "other.example:8443",
            "localhost",
            "localhost:8080",
            "127.0.0.1:8080",
            "192.0.2.1",
            "[::1]:8080",
            "[2001:db8::1]",
        ];
        for host in ours {
            assert!(is_ours(host), "{host}");
        }
        for host in ["evil.example", "other.example", "localhost.evil.example", "127.0.0.1.evil.example", "", ":80"] {
            assert!(!is_ours(host), "{host}");
        }
        assert!(check_host(&settings(), &HeaderMap::new()).is_err());
    }
}
