//! A relay inside the test, and the least of an HTTP client.

use std::net::SocketAddr;

use net::{Config, Multiaddr, NetError};
use protocol::RoomKeys;
use relay::{Relay, RelayError, Settings, Stats};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::world::{PATIENCE, config};

pub struct Place {
    pub http: SocketAddr,
    pub addresses: Vec<Multiaddr>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Place {
    pub async fn open(settings: Settings) -> Self {
        let relay = loop {
            // A relay of this process that has just closed holds its ports until QUIC and TCP have said their farewells.
            match Relay::bind(settings.clone()).await {
                Err(RelayError::Listen(NetError::AddressInUse { .. } | NetError::Listen { .. })) => {
                    tokio::task::yield_now().await
                }
                bound => break bound.unwrap(),
            }
        };
        let (http, addresses) = (relay.http(), relay.addresses());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(relay.run(async move {
            let _ = stopped.await;
        }));
        Self { http, addresses, stop, task }
    }

    pub async fn close(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }

    /// A member that meets others here.
    pub fn member(&self, keys: &RoomKeys) -> Config {
        Config { relays: self.addresses.clone(), ..config(keys) }
    }

    /// A member that nobody can dial and that dials nobody.
    pub fn quiet(&self, keys: &RoomKeys) -> Config {
        Config { listen: Vec::new(), ..self.member(keys) }
    }

    /// A member that can only be reached through this relay.
    pub fn hidden(&self, keys: &RoomKeys) -> Config {
        Config { relayed_only: true, ..self.member(keys) }
    }

    /// Waits until the statistics, which are renewed four times a second, are as wanted.
    pub async fn stats(&self, wanted: impl Fn(&Stats) -> bool) {
        let mut last = Stats::default();
        let waiting = async {
            while !wanted(&last) {
                last = serde_json::from_str(&get(self.http, "/api/stats").await.1).unwrap();
            }
        };
        let outcome = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(outcome.is_ok(), "{last:?}");
    }
}

/// Status and body of a GET.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
