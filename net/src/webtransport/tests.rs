//! A listener on loopback: what it announces and when, whom it lets in, and what an old address is still good for.

use std::future::poll_fn;
use std::sync::Mutex;

use futures::future::{Either, select};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::muxing::StreamMuxerExt;
use libp2p::core::transport::{Boxed, PortUse};

use super::certificate::Period;
use super::*;

type Node = Boxed<(PeerId, Connection)>;

const DIALLING: DialOpts = DialOpts { role: Role::Dialer, port_use: PortUse::New };

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

fn node(keypair: &Keypair) -> Node {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Transport::new(keypair.clone(), 8).boxed()
}

async fn listen(node: &mut Node, address: &str) -> Multiaddr {
    node.listen_on(ListenerId::next(), address.parse().unwrap()).unwrap();
    match node.next().await.unwrap() {
        TransportEvent::NewAddress { listen_addr, .. } => listen_addr,
        event => panic!("{event:?} in place of an address"),
    }
}

/// Both ends of a connection from `dialer` to `listener`, or why the dialer has none.
async fn connect(
    dialer: &mut Node,
    listener: &mut Node,
    address: &Multiaddr,
) -> io::Result<((PeerId, Connection), (PeerId, Connection))> {
    let dialling = dialer.dial(address.clone(), DIALLING).unwrap();
    let accepting = Box::pin(async {
        loop {
            if let Some((upgrade, _)) = listener.next().await.unwrap().into_incoming() {
                // The dialer is told what is wrong; without its connection there is none here.
                if let Ok(accepted) = upgrade.await {
                    return accepted;
                }
            }
        }
    });
    match select(dialling, accepting).await {
        Either::Left((dialled, accepting)) => Ok((dialled?, accepting.await)),
        Either::Right((accepted, dialling)) => Ok((dialling.await?, accepted)),
    }
}

/// Opens a stream at `from`, and expects what is written there at `to`, whole and with its end.
async fn carry(from: &mut Connection, to: &mut Connection, bytes: &[u8]) {
    let mut stream = poll_fn(|context| from.poll_outbound_unpin(context)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.close().await.unwrap();
    let mut heard = Vec::new();
    let mut stream = poll_fn(|context| to.poll_inbound_unpin(context)).await.unwrap();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, bytes);
}

/// The client checks what browsers check of a certificate known by its hash: ECDSA on P-256, two weeks at most, the date.
#[tokio::test]
async fn both_ends_know_each_other_and_both_open_streams() {
    let (ada, bob) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let (mut listener, mut dialer) = (node(&ada), node(&bob));
    let address = listen(&mut listener, "/ip4/127.0.0.1/udp/0/quic-v1/webtransport").await;
    let address = address.with(Protocol::P2p(ada.public().to_peer_id()));
    let ((to, mut dialled), (from, mut accepted)) = connect(&mut dialer, &mut listener, &address).await.unwrap();
    assert_eq!((to, from), (ada.public().to_peer_id(), bob.public().to_peer_id()));
    for _ in 0..3 {
        carry(&mut dialled, &mut accepted, b"from the dialer").await;
        carry(&mut accepted, &mut dialled, b"from the listener").await;
    }
    // The end of one is the end of the other.
    dialled.close().await.unwrap();
    let ended = poll_fn(|context| accepted.poll_unpin(context)).await;
    assert!(ended.is_err() && accepted.close().await.is_ok());
}

#[tokio::test]
async fn a_wrong_certificate_or_peer_is_not_dialled_through() {
    let ada = Keypair::generate_ed25519();
    let (mut listener, mut dialer) = (node(&ada), node(&Keypair::generate_ed25519()));
    let address = listen(&mut listener, "/ip4/127.0.0.1/udp/0/quic-v1/webtransport").await;
    let (socket, _) = parse(&address).unwrap();
    let strange = Certhash::wrap(SHA2_256, &[7; 32]).unwrap();
    let unknown = multiaddr(socket).with(Protocol::Certhash(strange));
    assert!(connect(&mut dialer, &mut listener, &unknown).await.is_err());
    // The certificate is right, but one of the hashes is none of the peer's: someone has tampered with the address.
    let tampered = address.clone().with(Protocol::Certhash(strange));
    let error = connect(&mut dialer, &mut listener, &tampered).await.err().unwrap();
    assert!(error.to_string().contains("subset"), "{error}");
    let eve = PeerId::random();
    let error = connect(&mut dialer, &mut listener, &address.clone().with(Protocol::P2p(eve))).await.err().unwrap();
    assert!(error.to_string().contains(&eve.to_string()), "{error}");
    connect(&mut dialer, &mut listener, &address).await.unwrap();
}

#[tokio::test]
async fn a_new_period_changes_the_address_and_the_old_one_still_works() {
    let ada = Keypair::generate_ed25519();
    // The certificates of the present are the ones that clients accept: the listener starts just before it.
    let begin = Period::at(now()).start();
    let clock = Arc::new(Mutex::new(begin - Duration::from_millis(20)));
    let told = Arc::clone(&clock);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut listener = Transport::with_clock(ada.clone(), 8, Arc::new(move || *told.lock().unwrap())).boxed();
    let before = listen(&mut listener, "/ip4/127.0.0.1/udp/0/quic-v1/webtransport").await;
    *clock.lock().unwrap() = begin;
    let Some(TransportEvent::NewAddress { listen_addr: after, .. }) = listener.next().await else { panic!() };
    let Some(TransportEvent::AddressExpired { listen_addr: expired, .. }) = listener.next().await else { panic!() };
    assert_eq!(expired, before);
    let hashes = |address: &Multiaddr| parse(address).unwrap().1;
    let ((socket, _), common) = (parse(&after).unwrap(), hashes(&before).intersection(&hashes(&after)).count());
    assert_eq!((socket, hashes(&after).len(), common), (parse(&before).unwrap().0, 2, 1));
    for address in [before, after] {
        let mut dialer = node(&Keypair::generate_ed25519());
        let ((peer, _), _) = connect(&mut dialer, &mut listener, &address).await.unwrap();
        assert_eq!(peer, ada.public().to_peer_id());
    }
}

#[tokio::test]
async fn a_wildcard_is_announced_as_concrete_addresses() {
    let mut listener = node(&Keypair::generate_ed25519());
    let address = listen(&mut listener, "/ip4/0.0.0.0/udp/0/quic-v1/webtransport").await;
    let (socket, certhashes) = parse(&address).unwrap();
    assert!(!socket.ip().is_unspecified() && socket.port() != 0 && certhashes.len() == 2, "{address}");
}

#[tokio::test]
async fn only_the_path_of_libp2p_is_served() {
    let mut listener = node(&Keypair::generate_ed25519());
    let address = listen(&mut listener, "/ip4/127.0.0.1/udp/0/quic-v1/webtransport").await;
    let (socket, certhashes) = parse(&address).unwrap();
    let digests: Vec<_> = certhashes.iter().map(|hash| Sha256Digest::new(hash.digest().try_into().unwrap())).collect();
    for path in ["/", "/.well-known/libp2p-webtransport", "/.well-known/libp2p-webtransport?type=tls"] {
        let config = ClientConfig::builder()
            .with_bind_address("127.0.0.1:0".parse().unwrap())
            .with_server_certificate_hashes(digests.clone())
            .build();
        let client = Endpoint::client(config).unwrap();
        let visit = Box::pin(client.connect(format!("https://{socket}{path}")));
        let accepting = Box::pin(async {
            loop {
                if let Some((upgrade, _)) = listener.next().await.unwrap().into_incoming() {
                    break upgrade.await;
                }
            }
        });
        let (visited, accepted) = futures::join!(visit, accepting);
        assert!(visited.is_err() && accepted.is_err(), "{path}");
    }
    assert!(is_for_libp2p("/.well-known/libp2p-webtransport?type=noise"));
}

#[test]
fn addresses_of_other_kinds_are_left_to_others() {
    let others = [
        "/ip4/127.0.0.1/udp/1/quic-v1",
        "/ip4/127.0.0.1/tcp/1",
        "/dns4/relay.example/udp/1/quic-v1/webtransport",
        "/ip4/127.0.0.1/udp/1/quic-v1/webtransport/p2p-circuit",
    ];
    assert!(others.iter().all(|text| parse(&text.parse().unwrap()).is_none()));
}
