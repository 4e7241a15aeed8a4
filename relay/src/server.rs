//! The whole relay: its sockets, its identity, its two halves, libp2p and HTTP, and its queue.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use axum::serve::ListenerExt;
use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use net::NetError;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::debug;

use crate::http::{Whereabouts, router};
use crate::identity;
use crate::limits::FAREWELL_TIME_MAX;
use crate::listener::Bounded;
use crate::numbers;
use crate::queue::Queue;
use crate::settings::Settings;
use crate::site::{Site, SiteError};
use crate::swarm::Meeting;
use crate::tap::Meter;

/// Why the relay cannot start; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The HTTP address cannot be listened on.
    #[error("cannot listen for HTTP on {address}: {reason}; {}", advice(.reason))]
    Http {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        reason: io::Error,
    },
    /// The data folder cannot be used.
    #[error("cannot keep the identity key in {folder}: {reason}; choose another folder with --data")]
    Data {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        reason: io::Error,
    },
    /// The page cannot be served.
    #[error(
        "cannot serve the page from {folder}: {reason}; make the folder with `cargo xtask web`, or choose another with --web"
    )]
    Web {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        reason: SiteError,
    },
    /// The queue cannot be kept.
    #[error("cannot keep the queue: {0:#} ([queue] in the file of --config; --no-queue runs without)")]
    Queue(anyhow::Error),
    /// A peer address cannot be listened on.
    #[error("cannot listen for peers: {0} (--listen)")]
    Listen(#[from] NetError),
}

/// A relay whose sockets are open.
pub struct Relay {
    http: TcpListener,
    http_address: SocketAddr,
    site: Option<Site>,
    meeting: Meeting,
    queue: Option<Queue>,
}

impl Relay {
    /// Loads or makes the identity and opens all sockets.
    pub async fn bind(settings: Settings) -> Result<Self, RelayError> {
        let keypair = match &settings.data {
            Some(folder) => identity::load_or_create(folder)
                .map_err(|reason| RelayError::Data { folder: folder.clone(), reason })?,
            None => Keypair::generate_ed25519(),
        };
        let open =
            |folder: &PathBuf| Site::open(folder).map_err(|reason| RelayError::Web { folder: folder.clone(), reason });
        let site = settings.web.as_ref().map(open).transpose()?;
        let address = settings.http;
        let failed = |reason| RelayError::Http { address, reason };
        let http = TcpListener::bind(address).await.map_err(failed)?;
        let http_address = http.local_addr().map_err(failed)?;
        let meeting = Meeting::bind(&keypair, &settings.listen, settings.external, Meter::new(settings.tap)).await?;
        let registry = numbers::registry(meeting.stats());
        let queue = match settings.queue {
            Some(queue) => {
                let base = format!("http://{http_address}");
                Some(Queue::open(queue, settings.data.as_deref(), &base, registry).await.map_err(RelayError::Queue)?)
            }
            None => None,
        };
        Ok(Self { http, http_address, site, meeting, queue })
    }

    /// Serves until `shutdown` completes, then closes everything within [`FAREWELL_TIME_MAX`], and the queue within
    /// [`crate::limits::QUEUE_FAREWELL_TIME_MAX`].
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let whereabouts = Whereabouts { peer: self.peer(), addresses: self.meeting.addresses() };
        let Self { http, site, meeting, queue, .. } = self;
        let (order, ordered) = watch::channel(false);
        let app = router(whereabouts, meeting.stats(), site, queue.as_ref().map(Queue::app));
        let keeping = queue.map(|queue| queue.run(ordered.clone()));
        let mut until = ordered.clone();
        let until = async move {
            // An error means that the relay is being dropped, which is a shutdown as well.
            let _ = until.wait_for(|ordered| *ordered).await;
        };
        // Only behind a tap, though an empty one, does axum tell handlers the address of a listener that is not its own.
        let listener = Bounded::new(http).tap_io(|_| ());
        let serving = axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
            .with_graceful_shutdown(until)
            .into_future();
        let serving = async {
            match serving.await {
                Ok(()) => (),
                Err(error) => debug!(%error, "HTTP ended"),
            }
        };
        let ordering = async {
            shutdown.await;
            order.send_replace(true);
            tokio::time::sleep(FAREWELL_TIME_MAX).await;
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(serving, meeting.run(ordered)) } => (),
            () = ordering => (),
        }
        if let Some(keeping) = keeping {
            order.send_replace(true);
            keeping.end().await;
        }
    }

    /// Where the HTTP API listens.
    pub fn http(&self) -> SocketAddr {
        self.http_address
    }

    /// The relay's peer id.
    pub fn peer(&self) -> String {
        self.meeting.peer().to_base58()
    }

    /// Where peers connect, each address ending in the peer id; later ones are told by `GET /addrs`.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.meeting.addresses().borrow().clone()
    }
}

fn advice(reason: &io::Error) -> &'static str {
    match reason.kind() {
        io::ErrorKind::AddrInUse => {
            "stop the program that uses it, or choose another port with --http (0 picks a free one)"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need privileges; choose another with --http",
        _ => "choose another address with --http",
    }
}
