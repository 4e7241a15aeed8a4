//! WebRTC of a native node: str0m does the protocols, one task for each connection moves datagrams and bytes.

mod connection;
mod driver;
mod introduction;
mod line;
mod sockets;
mod stun;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use if_watch::IfEvent;
use if_watch::tokio::IfWatcher;
use str0m::RtcError;
use str0m::config::CryptoProvider;
use str0m::crypto::from_feature_flags;

pub(crate) use self::connection::Connection;
use self::introduction::introduce;
use super::{Error, Opening, Role};
use crate::handle::IceServer;

/// Introduces this node to others.
pub(crate) struct Introducer {
    /// Tells the addresses of this machine; `None` once it has failed.
    interfaces: Option<IfWatcher>,
    means: Means,
}

/// What an introduction needs.
#[derive(Clone)]
struct Means {
    /// Addresses of this machine.
    ips: BTreeSet<IpAddr>,
    /// STUN servers.
    servers: Arc<[String]>,
    crypto: Arc<CryptoProvider>,
}

impl Introducer {
    pub fn new(servers: &[IceServer]) -> std::io::Result<Self> {
        let (servers, crypto) = (stun::servers(servers).into(), Arc::new(from_feature_flags()));
        let means = Means { ips: BTreeSet::new(), servers, crypto };
        Ok(Self { interfaces: Some(IfWatcher::new()?), means })
    }

    /// Hears of addresses that come and go.
    pub fn poll(&mut self, context: &mut Context<'_>) {
        let Some(interfaces) = &mut self.interfaces else { return };
        while let Poll::Ready(event) = interfaces.poll_if_event(context) {
            match event {
                Ok(IfEvent::Up(network)) => _ = self.means.ips.insert(network.addr()),
                Ok(IfEvent::Down(network)) => _ = self.means.ips.remove(&network.addr()),
                Err(error) => {
                    tracing::warn!(%error, "the addresses of this machine are not followed any more");
                    self.interfaces = None;
                    return;
                }
            }
        }
    }

    pub(super) fn introduce(&self, role: Role, stream: Opening) -> BoxFuture<'static, Result<Connection, Error>> {
        let means = self.means.clone();
        async move { introduce(stream.await?, role, &means).await }.boxed()
    }
}

impl From<RtcError> for Error {
    fn from(error: RtcError) -> Self {
        Self::Refused(error.to_string())
    }
}
