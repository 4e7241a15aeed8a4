//! WebRTC of a page: its browser does the protocols.

mod channel;
mod connection;
mod introduction;

use std::task::Context;

use futures::FutureExt;
use futures::future::BoxFuture;
use js_sys::Array;
use send_wrapper::SendWrapper;
use wasm_bindgen::JsValue;
use web_sys::{RtcConfiguration, RtcIceServer, RtcPeerConnection};

pub(crate) use self::connection::Connection;
use self::introduction::introduce;
use super::{Error, Opening, Role};
use crate::browser::{Sockets, words};
use crate::handle::IceServer;

impl From<JsValue> for Error {
    fn from(error: JsValue) -> Self {
        Self::Refused(words(&error))
    }
}

/// The browser's settings for these servers, tried out; a server that cannot be used is named in the error.
pub(crate) fn configuration(servers: &[IceServer]) -> Result<RtcConfiguration, String> {
    let configuration = RtcConfiguration::new();
    let list = Array::new();
    for server in servers {
        let entry = RtcIceServer::new();
        entry.set_urls(&server.urls.iter().map(|url| JsValue::from_str(url)).collect::<Array>());
        if !server.username.is_empty() {
            entry.set_username(&server.username);
            entry.set_credential(&server.credential);
        }
        list.push(&entry);
    }
    configuration.set_ice_servers(&list);
    let connection = RtcPeerConnection::new_with_configuration(&configuration).map_err(|error| words(&error))?;
    connection.close();
    Ok(configuration)
}

/// Introduces this page to others.
pub(crate) struct Introducer {
    inner: SendWrapper<(RtcConfiguration, Sockets)>,
}

impl Introducer {
    pub fn new(servers: RtcConfiguration, sockets: Sockets) -> Self {
        Self { inner: SendWrapper::new((servers, sockets)) }
    }

    /// Browsers follow their addresses by themselves.
    pub fn poll(&mut self, _: &mut Context<'_>) {}

    pub(super) fn introduce(&self, role: Role, stream: Opening) -> BoxFuture<'static, Result<Connection, Error>> {
        let (servers, sockets) = (*self.inner).clone();
        SendWrapper::new(async move { introduce(stream.await?, role, &servers, &sockets).await }).boxed()
    }
}
