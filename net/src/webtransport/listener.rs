//! One WebTransport socket: which addresses it has, which certificate it shows, and who comes.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::future::BoxFuture;
use futures::{FutureExt, ready};
use if_watch::IfEvent;
use if_watch::tokio::IfWatcher;
use libp2p::Multiaddr;
use libp2p::core::transport::{ListenerId, TransportEvent};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use tracing::{debug, info};
use wtransport::config::Ipv6DualStackConfig;
use wtransport::endpoint::IncomingSession;
use wtransport::endpoint::endpoint_side::Server;
use wtransport::{Endpoint, ServerConfig};

use super::certificate::{Certificates, Period};
use super::{Certhash, Clock, Upgrade, accept, multiaddr, quic};
use crate::delay::Delay;
use crate::limits::{
    CALENDAR_PAUSE_MAX, WEBTRANSPORT_CONNECTIONS_MAX, WEBTRANSPORT_INCOMING_BYTES_MAX, WEBTRANSPORT_INCOMING_MAX,
};

type Event = TransportEvent<Upgrade, io::Error>;

/// A bound socket.
pub(super) struct Listener {
    id: ListenerId,
    keypair: Keypair,
    streams_max: usize,
    clock: Clock,
    /// `None` once closed.
    open: Option<Open>,
    events: VecDeque<Event>,
    waker: Option<Waker>,
}

struct Open {
    endpoint: Arc<Endpoint<Server>>,
    socket: SocketAddr,
    certificates: Certificates,
    /// Looks at the calendar when it is over.
    calendar: Delay,
    /// Tells the addresses of a socket that is bound to every interface.
    interfaces: Option<IfWatcher>,
    ips: BTreeSet<IpAddr>,
    next: BoxFuture<'static, IncomingSession>,
}

impl Listener {
    /// Binds `socket`; the address is told as the first event, or as many as there are interfaces.
    pub fn bind(
        id: ListenerId,
        socket: SocketAddr,
        keypair: &Keypair,
        streams_max: usize,
        clock: Clock,
    ) -> io::Result<Self> {
        let certificates = Certificates::derive(keypair, Period::at(clock()))?;
        let endpoint = Endpoint::server(config(socket, &certificates, streams_max))?;
        let socket = endpoint.local_addr()?;
        let is_wildcard = socket.ip().is_unspecified();
        let endpoint = Arc::new(endpoint);
        let mut open = Open {
            calendar: Delay::new(pause(&certificates, &clock)),
            next: next(&endpoint),
            interfaces: if is_wildcard { Some(IfWatcher::new()?) } else { None },
            endpoint,
            socket,
            certificates,
            ips: BTreeSet::new(),
        };
        let mut events = VecDeque::new();
        if !is_wildcard {
            open.ips.insert(socket.ip());
            events.push_back(TransportEvent::NewAddress { listener_id: id, listen_addr: open.address(socket.ip()) });
        }
        Ok(Self { id, keypair: keypair.clone(), streams_max, clock, open: Some(open), events, waker: None })
    }

    pub fn id(&self) -> ListenerId {
        self.id
    }

    /// Closes the socket and all its connections.
    pub fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        open.endpoint.close(0u32.into(), &[]);
        self.events.push_back(TransportEvent::ListenerClosed { listener_id: self.id, reason: Ok(()) });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(event);
            }
            self.waker = Some(context.waker().clone());
            let Some(open) = &mut self.open else { return Poll::Pending };
            if open.calendar.poll_unpin(context).is_ready() {
                self.look_at_calendar();
                continue;
            }
            if let Poll::Ready(event) = open.poll_interfaces(context) {
                self.handle_interface(event);
                continue;
            }
            let session = ready!(open.next.poll_unpin(context));
            open.next = next(&open.endpoint);
            if open.endpoint.open_connections() >= WEBTRANSPORT_CONNECTIONS_MAX {
                debug!(remote = %session.remote_address(), "refused, too many connections");
                session.refuse();
                continue;
            }
            return Poll::Ready(TransportEvent::Incoming {
                listener_id: self.id,
                local_addr: multiaddr(open.socket),
                send_back_addr: multiaddr(session.remote_address()),
                upgrade: accept(session, self.keypair.clone(), open.certificates.vouched()).boxed(),
            });
        }
    }

    /// Changes certificates and addresses if a new period has begun.
    fn look_at_calendar(&mut self) {
        let Some(open) = &mut self.open else { return };
        let period = Period::at((self.clock)());
        if period != open.certificates.period() {
            let derived = Certificates::derive(&self.keypair, period).and_then(|certificates| {
                open.endpoint.reload_config(config(open.socket, &certificates, self.streams_max), false)?;
                Ok(certificates)
            });
            match derived {
                Ok(certificates) => {
                    info!("certificates changed with the calendar");
                    let old = open.addresses();
                    open.certificates = certificates;
                    let id = self.id;
                    let added = open.addresses().into_iter();
                    self.events
                        .extend(added.map(|listen_addr| TransportEvent::NewAddress { listener_id: id, listen_addr }));
                    self.events.extend(
                        old.into_iter()
                            .map(|listen_addr| TransportEvent::AddressExpired { listener_id: id, listen_addr }),
                    );
                }
                Err(error) => self.events.push_back(TransportEvent::ListenerError { listener_id: self.id, error }),
            }
        }
        open.calendar.reset(pause(&open.certificates, &self.clock));
    }

    fn handle_interface(&mut self, event: io::Result<IfEvent>) {
        let Some(open) = &mut self.open else { return };
        let listener_id = self.id;
        match event {
            Ok(IfEvent::Up(network)) => {
                let ip = network.addr();
                if ip.is_ipv4() == open.socket.is_ipv4() && open.ips.insert(ip) {
                    let listen_addr = open.address(ip);
                    self.events.push_back(TransportEvent::NewAddress { listener_id, listen_addr });
                }
            }
            Ok(IfEvent::Down(network)) => {
                let ip = network.addr();
                if open.ips.remove(&ip) {
                    let listen_addr = open.address(ip);
                    self.events.push_back(TransportEvent::AddressExpired { listener_id, listen_addr });
                }
            }
            Err(error) => self.events.push_back(TransportEvent::ListenerError { listener_id, error }),
        }
    }
}

impl Open {
    fn poll_interfaces(&mut self, context: &mut Context<'_>) -> Poll<io::Result<IfEvent>> {
        match &mut self.interfaces {
            Some(interfaces) => interfaces.poll_if_event(context),
            None => Poll::Pending,
        }
    }

    fn addresses(&self) -> Vec<Multiaddr> {
        self.ips.iter().map(|ip| self.address(*ip)).collect()
    }

    fn address(&self, ip: IpAddr) -> Multiaddr {
        let append = |address: Multiaddr, hash: Certhash| address.with(Protocol::Certhash(hash));
        let bare = multiaddr(SocketAddr::new(ip, self.socket.port()));
        self.certificates.announced().into_iter().fold(bare, append)
    }
}

fn next(endpoint: &Arc<Endpoint<Server>>) -> BoxFuture<'static, IncomingSession> {
    let endpoint = Arc::clone(endpoint);
    async move { endpoint.accept().await }.boxed()
}

/// Until the period ends, but at most [`CALENDAR_PAUSE_MAX`].
fn pause(certificates: &Certificates, clock: &Clock) -> std::time::Duration {
    certificates.period().next().start().saturating_sub(clock()).min(CALENDAR_PAUSE_MAX)
}

fn config(socket: SocketAddr, certificates: &Certificates, streams_max: usize) -> ServerConfig {
    let builder = match socket {
        SocketAddr::V4(_) => ServerConfig::builder().with_bind_address(socket),
        // An IPv4 socket may stand beside it on the same port.
        SocketAddr::V6(socket) => ServerConfig::builder().with_bind_address_v6(socket, Ipv6DualStackConfig::Deny),
    };
    let mut config = builder.with_custom_transport(certificates.identity(), quic(streams_max)).build();
    config
        .quic_config_mut()
        .max_incoming(WEBTRANSPORT_INCOMING_MAX)
        .incoming_buffer_size(WEBTRANSPORT_INCOMING_BYTES_MAX)
        // As with the QUIC of nodes: a connection keeps the address that its limits are counted by.
        .migration(false);
    config
}
