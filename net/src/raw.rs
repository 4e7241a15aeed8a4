//! The data protocol byte by byte, for tests that play an evil peer: nothing here follows the rules by itself.
//!
//! A [`RawPeer`] has an identity and sockets; a [`RawLink`] is one stream of the data protocol on which nothing has been
//! said. The caller says hello, proves, lies, and writes whatever bytes it likes.

mod behaviour;

use std::io;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{Multiaddr, PeerId, Stream, Swarm, SwarmBuilder};
use protocol::RoomKeys;
use protocol::membership::{Handshake, Hello, Nonce, Proof, Role};
use tokio::sync::mpsc;

use self::behaviour::{Behaviour, Opened};
use crate::limits::STREAMS_MAX;
use crate::link::{HandshakeError, Identity, read_message, shake_hands, write_message};
use crate::peer_name;
use crate::transport::native;

/// Streams opened by others that wait for [`RawPeer::accept`].
const ACCEPTED_MAX: usize = 64;

/// A peer that speaks only what it is told to.
#[derive(Debug)]
pub struct RawPeer {
    local: PeerId,
    orders: mpsc::UnboundedSender<Order>,
    accepted: mpsc::Receiver<Opened>,
    addresses: mpsc::Receiver<Multiaddr>,
}

#[derive(Debug)]
enum Order {
    Dial(Multiaddr),
}

/// One stream of the data protocol.
#[derive(Debug)]
pub struct RawLink {
    /// The stream, to read and write at will.
    pub stream: Stream,
    local: PeerId,
    remote: PeerId,
    role: Role,
}

impl RawPeer {
    /// A peer that listens on `listen`, or only dials. Must be called within a tokio runtime.
    pub fn start(keypair: Keypair, listen: Option<Multiaddr>) -> io::Result<Self> {
        let local = keypair.public().to_peer_id();
        let (opened, accepted) = mpsc::channel(ACCEPTED_MAX);
        let mut swarm = swarm(&keypair, Behaviour::new(opened))?;
        if let Some(address) = listen {
            swarm.listen_on(address).map_err(io::Error::other)?;
        }
        let (orders, mut order_receiver) = mpsc::unbounded_channel();
        let (address_sender, addresses) = mpsc::channel(ACCEPTED_MAX);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    event = swarm.select_next_some() => {
                        if let SwarmEvent::NewListenAddr { address, .. } = event {
                            let _ = address_sender.try_send(address.with(Protocol::P2p(local)));
                        }
                    }
                    order = order_receiver.recv() => match order {
                        Some(Order::Dial(address)) => {
                            let _ = swarm.dial(DialOpts::unknown_peer_id().address(address).allocate_new_port().build());
                        }
                        None => return,
                    },
                }
            }
        });
        Ok(Self { local, orders, accepted, addresses })
    }

    /// Dials `address` and opens the data protocol there. Waits as long as that takes.
    pub async fn dial(&mut self, address: Multiaddr) -> io::Result<RawLink> {
        self.orders.send(Order::Dial(address)).map_err(|_| io::Error::from(io::ErrorKind::NotConnected))?;
        self.accept().await
    }

    /// The next stream of the data protocol, whoever opened it.
    pub async fn accept(&mut self) -> io::Result<RawLink> {
        let Opened { remote, role, stream } =
            self.accepted.recv().await.ok_or(io::Error::from(io::ErrorKind::NotConnected))?;
        Ok(RawLink { stream, local: self.local, remote, role })
    }

    /// The next address this peer listens on.
    pub async fn address(&mut self) -> Option<Multiaddr> {
        self.addresses.recv().await
    }

    /// This peer's id.
    pub fn local_peer(&self) -> protocol::PeerId {
        peer_name(&self.local)
    }
}

impl RawLink {
    /// The whole handshake, honestly.
    pub async fn join(&mut self, keys: &RoomKeys) -> Result<(), HandshakeError> {
        let (local, remote) = (peer_name(&self.local), peer_name(&self.remote));
        shake_hands(&mut self.stream, Identity { keys, local: &local, remote: &remote, role: self.role }).await
    }

    /// Says hello with a nonce of the caller's choice.
    pub async fn say_hello(&mut self, keys: &RoomKeys, nonce: Nonce) -> io::Result<()> {
        write_message(&mut self.stream, &Hello { room: keys.id(), nonce }).await
    }

    /// Reads the other side's hello.
    pub async fn read_hello(&mut self) -> Result<Hello, HandshakeError> {
        read_message(&mut self.stream).await
    }

    /// Sends a proof, be it true or not.
    pub async fn say_proof(&mut self, proof: &Proof) -> io::Result<()> {
        write_message(&mut self.stream, proof).await
    }

    /// Reads the other side's proof.
    pub async fn read_proof(&mut self) -> Result<Proof, HandshakeError> {
        read_message(&mut self.stream).await
    }

    /// The true proof of this side for the given nonces.
    pub fn proof(&self, keys: &RoomKeys, ours: Nonce, theirs: Nonce) -> Proof {
        let (local, remote) = (peer_name(&self.local), peer_name(&self.remote));
        let (dialer, listener, dialer_nonce, listener_nonce) = match self.role {
            Role::Dialer => (&local, &remote, ours, theirs),
            Role::Listener => (&remote, &local, theirs, ours),
        };
        Handshake { keys, dialer, listener, dialer_nonce, listener_nonce }.prove(self.role)
    }

    /// Writes and flushes `bytes`.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Says that nothing more will come.
    pub async fn close(&mut self) {
        // Closing what the other side has reset is no failure.
        let _ = self.stream.close().await;
    }

    /// Reads until the other side closes; everything it said.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset is an end too.
        let _ = self.stream.read_to_end(&mut bytes).await;
        bytes
    }

    /// The other side's peer id.
    pub fn remote_peer(&self) -> protocol::PeerId {
        peer_name(&self.remote)
    }
}

fn swarm(keypair: &Keypair, behaviour: Behaviour) -> io::Result<Swarm<Behaviour>> {
    let transport = native(keypair, STREAMS_MAX).map_err(io::Error::other)?;
    Ok(SwarmBuilder::with_existing_identity(keypair.clone())
        .with_tokio()
        .with_other_transport(|_| transport)
        .expect("a transport is given, not made")
        .with_behaviour(|_| behaviour)
        .expect("a behaviour is given, not made")
        .build())
}
