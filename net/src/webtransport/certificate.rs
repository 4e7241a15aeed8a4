//! The certificates of WebTransport: derived from a node's key and the date, so that they survive a restart.
//!
//! Browsers trust a certificate by its hash if it is an ECDSA one on P-256 and valid for at most two weeks. Time is cut
//! into periods since the Unix epoch. Every node has one certificate for each, valid for [`LEEWAY`] longer at both ends;
//! key, certificate and signature are functions of the node's identity and the period. Announced are this period's and
//! the next one's, so an address stays good until the end of the next period.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use libp2p::identity::Keypair;
use p256::SecretKey;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::EncodePrivateKey;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, RemoteKeyPair, SerialNumber};
use wtransport::Identity;
use wtransport::tls::{Certificate, CertificateChain, PrivateKey};

use super::{Certhash, SHA2_256};

/// How long a certificate is in use.
pub(super) const PERIOD: Duration = Duration::from_secs(12 * DAY_SECONDS);

/// A certificate is valid this long before and after its use, for browsers whose clocks are wrong.
pub(super) const LEEWAY: Duration = Duration::from_secs(23 * 60 * 60);

/// What browsers accept at most.
const VALIDITY_MAX: Duration = Duration::from_secs(14 * DAY_SECONDS);

/// What certificates call every node.
const NAME: &str = "manyhands.invalid";

const DAY_SECONDS: u64 = 24 * 60 * 60;

const _: () = assert!(PERIOD.as_secs() + 2 * LEEWAY.as_secs() < VALIDITY_MAX.as_secs(), "browsers refuse more");

/// A period of the grid, counted since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Period(u64);

/// What a node shows and announces during a period.
pub(super) struct Certificates {
    period: Period,
    identity: Identity,
    previous: Certhash,
    current: Certhash,
    next: Certhash,
}

impl Period {
    /// The period of a time since the epoch.
    pub fn at(now: Duration) -> Self {
        Self(now.as_secs() / PERIOD.as_secs())
    }

    /// When it begins, since the epoch.
    pub fn start(self) -> Duration {
        Duration::from_secs(self.0 * PERIOD.as_secs())
    }

    fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Certificates {
    /// Those of `keypair` during `period`.
    ///
    /// # Errors
    /// When the key is of a kind that no secrets are derived from (RSA).
    pub fn derive(keypair: &Keypair, period: Period) -> io::Result<Self> {
        let identity = derive(keypair, period)?;
        Ok(Self {
            period,
            previous: certhash(&derive(keypair, period.previous())?),
            current: certhash(&identity),
            next: certhash(&derive(keypair, period.next())?),
            identity,
        })
    }

    pub fn period(&self) -> Period {
        self.period
    }

    /// What the TLS handshake shows.
    pub fn identity(&self) -> Identity {
        self.identity.clone_identity()
    }

    /// What addresses end in.
    pub fn announced(&self) -> [Certhash; 2] {
        [self.current, self.next]
    }

    /// What the Noise handshake vouches for. A browser demands all hashes of the address that it dials, which may be an
    /// address of the previous period.
    pub fn vouched(&self) -> HashSet<Certhash> {
        HashSet::from([self.previous, self.current, self.next])
    }
}

fn certhash(identity: &Identity) -> Certhash {
    let digest = identity.certificate_chain().as_slice()[0].hash();
    Certhash::wrap(SHA2_256, digest.as_ref()).expect("64 bytes hold 32")
}

/// The key and the self-signed certificate of one period.
fn derive(keypair: &Keypair, period: Period) -> io::Result<Identity> {
    let key = key(keypair, period)?;
    // Browsers check no name, but Chromium takes no certificate without any extension.
    let mut params = CertificateParams::new([NAME.to_owned()]).map_err(io::Error::other)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.serial_number = Some(SerialNumber::from(period.0 + 1));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + period.start().saturating_sub(LEEWAY);
    params.not_after = epoch + period.next().start() + LEEWAY;
    let private = key.to_pkcs8_der().map_err(|error| io::Error::other(error.to_string()))?;
    let signer = KeyPair::from_remote(Box::new(Deterministic::new(&key))).map_err(io::Error::other)?;
    let certificate = params.self_signed(&signer).map_err(io::Error::other)?;
    let certificate = Certificate::from_der(certificate.der().to_vec()).map_err(io::Error::other)?;
    Ok(Identity::new(CertificateChain::single(certificate), PrivateKey::from_der_pkcs8(private.as_bytes().to_vec())))
}

fn key(keypair: &Keypair, period: Period) -> io::Result<SecretKey> {
    // One in four thousand million secrets is no key of P-256; then the next attempt's is taken.
    for attempt in 0..4 {
        let domain = format!("manyhands webtransport certificate {} {attempt}", period.0);
        let secret = keypair.derive_secret(domain.as_bytes()).ok_or(io::ErrorKind::Unsupported)?;
        if let Ok(key) = SecretKey::from_slice(&secret) {
            return Ok(key);
        }
    }
    Err(io::Error::other("no key of P-256 among four secrets"))
}

/// Signs the same with the same bytes every time (RFC 6979), which ring does not.
struct Deterministic {
    key: SigningKey,
    public: Vec<u8>,
}

impl Deterministic {
    fn new(key: &SecretKey) -> Self {
        let key = SigningKey::from(key);
        let public = key.verifying_key().to_encoded_point(false).as_bytes().to_vec();
        Self { key, public }
    }
}

impl RemoteKeyPair for Deterministic {
    fn public_key(&self) -> &[u8] {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: DerSignature = self.key.sign(message);
        Ok(signature.as_bytes().to_vec())
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The identity of the seed that is all ones, in November 2026.
    fn node() -> (Keypair, Period) {
        (Keypair::ed25519_from_bytes([1; 32]).unwrap(), Period::at(Duration::from_secs(1_795_000_000)))
    }

    #[test]
    fn the_same_key_and_period_give_the_same_certificate() {
        let (keypair, period) = node();
        let der = |keypair, period| derive(keypair, period).unwrap().certificate_chain().as_slice()[0].der().to_vec();
        assert_eq!(der(&keypair, period), der(&keypair, period));
        assert_ne!(der(&keypair, period), der(&keypair, period.next()));
        assert_ne!(der(&keypair, period), der(&Keypair::generate_ed25519(), period));
        // Pinned, because another build of this program must derive it too: a change breaks every known address once.
        let hash = certhash(&derive(&keypair, period).unwrap());
        assert_eq!(hash.digest()[..8], [84, 249, 39, 225, 113, 112, 82, 249], "{hash:?}");
    }

    #[test]
    fn a_certificate_has_an_extension_for_chromium() {
        let (keypair, period) = node();
        let identity = derive(&keypair, period).unwrap();
        let subject_alternative_name = [0x55, 0x1d, 0x11];
        let der = identity.certificate_chain().as_slice()[0].der();
        assert!(der.windows(3).any(|bytes| bytes == subject_alternative_name));
    }

    #[test]
    fn an_announced_address_is_good_for_the_next_period_too() {
        let (keypair, period) = node();
        let now = Certificates::derive(&keypair, period).unwrap();
        let later = Certificates::derive(&keypair, period.next()).unwrap();
        assert_eq!(now.announced()[1], later.announced()[0]);
        assert!(now.announced().iter().all(|hash| later.vouched().contains(hash)));
        assert!(later.announced().iter().all(|hash| later.vouched().contains(hash)));
    }

    #[test]
    fn periods_lie_on_a_grid_from_the_epoch() {
        let period = Period::at(PERIOD * 7);
        assert_eq!((period, period.start()), (Period(7), PERIOD * 7));
        assert_eq!(Period::at(PERIOD * 8 - Duration::from_secs(1)), period);
        assert_eq!(period.next().previous(), period);
        assert_eq!(Period(0).previous(), Period(0));
    }
}
