//! How often one client may ask: token buckets keyed by where it connects from, in a bounded map.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use axum::http::HeaderMap;
use queue::UnixMs;
use serde::Deserialize;

use crate::limits::{FORWARDS_MAX, RATE_KEYS_MAX, RATE_READS, RATE_SUBMITS, RATE_TOKENS, RATE_UPLOADS, RATE_WORK};
use crate::settings::Settings;

/// What kinds of requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rate {
    /// Questions.
    Reads,
    /// Submissions and cancellations.
    Submits,
    /// Proofs of membership, which cost a signature's check.
    Tokens,
    /// Files.
    Uploads,
    /// What workers say: taking, beating, delivering.
    Work,
}

impl Rate {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Reads, Self::Submits, Self::Tokens, Self::Uploads, Self::Work];
}

/// One bucket's size.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// How many come back each second.
    pub per_second: f64,
    /// How many may be asked at once.
    pub burst: u32,
}

/// The table `[queue.rates]`, for each client.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateSettings {
    /// See [`Rate::Reads`].
    pub reads: Allowance,
    /// See [`Rate::Submits`].
    pub submits: Allowance,
    /// See [`Rate::Tokens`].
    pub tokens: Allowance,
    /// See [`Rate::Uploads`].
    pub uploads: Allowance,
    /// See [`Rate::Work`].
    pub work: Allowance,
}

impl Default for RateSettings {
    fn default() -> Self {
        Self { reads: RATE_READS, submits: RATE_SUBMITS, tokens: RATE_TOKENS, uploads: RATE_UPLOADS, work: RATE_WORK }
    }
}

impl RateSettings {
    fn of(&self, rate: Rate) -> Allowance {
        match rate {
            Rate::Reads => self.reads,
            Rate::Submits => self.submits,
            Rate::Tokens => self.tokens,
            Rate::Uploads => self.uploads,
            Rate::Work => self.work,
        }
    }
}

/// Addresses that are one client: an IPv4 address, or the /64 that a provider gives to one customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(IpAddr);

impl Client {
    /// Of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()),
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// An address, or all that begin like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Subnet {
    address: IpAddr,
    bits: u32,
}

impl Subnet {
    /// One address.
    pub fn one(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Whether it is one of these.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no address and no subnet; write 10.0.0.2 or 10.0.0.0/8");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let one = Self::one(address.parse().map_err(|_| wrong())?);
        let bits = bits.map_or(Ok(one.bits), str::parse).map_err(|_| wrong())?;
        if bits > one.bits { Err(wrong()) } else { Ok(Self { bits, ..one }) }
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Who asks: the socket's peer, or, where that is a trusted proxy, the last address before the proxies that it names.
pub fn client(settings: &Settings, peer: IpAddr, headers: &HeaderMap) -> Client {
    let is_proxy = |address| settings.trusted_proxies.iter().any(|subnet| subnet.contains(address));
    if !settings.behind_proxy || !is_proxy(peer) {
        return Client::of(peer);
    }
    // Each proxy appends whom it heard; what stands before the first one that is not ours may be invented.
    let named = headers.get_all(&settings.proxy_header).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<&str> = named.flat_map(|value| value.split(',')).map(str::trim).collect();
    let addresses = named.iter().rev().take(FORWARDS_MAX).map_while(|text| text.parse().ok());
    Client::of(addresses.into_iter().find(|address| !is_proxy(*address)).unwrap_or(peer))
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: UnixMs,
}

/// Everybody's buckets.
#[derive(Debug, Default)]
pub struct Rates {
    settings: RateSettings,
    buckets: Mutex<HashMap<(Rate, Client), Bucket>>,
}

impl Rates {
    /// All full.
    pub fn new(settings: RateSettings) -> Self {
        Self { settings, buckets: Mutex::default() }
    }

    /// Takes one from the client's bucket; if it is empty, says in how many seconds there is one again.
    pub fn take(&self, rate: Rate, client: Client, now: UnixMs) -> Result<(), u64> {
        let allowance = self.settings.of(rate);
        let full = f64::from(allowance.burst.max(1));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= RATE_KEYS_MAX && !buckets.contains_key(&(rate, client)) {
            self.make_place(&mut buckets, now);
        }
        let bucket = buckets.entry((rate, client)).or_insert(Bucket { tokens: full, at: now });
        *bucket = refilled(*bucket, allowance, now);
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        let seconds = (1.0 - bucket.tokens) / allowance.per_second.max(f64::MIN_POSITIVE);
        Err(seconds.ceil().clamp(1.0, 3600.0) as u64)
    }

    /// Forgets the buckets that are full, and if all are in use, those that are fullest: whoever floods is remembered longest.
    fn make_place(&self, buckets: &mut HashMap<(Rate, Client), Bucket>, now: UnixMs) {
        let filled = |rate: Rate, bucket: Bucket| {
            let allowance = self.settings.of(rate);
            refilled(bucket, allowance, now).tokens / f64::from(allowance.burst.max(1))
        };
        buckets.retain(|(rate, _), bucket| filled(*rate, *bucket) < 1.0);
        if buckets.len() >= RATE_KEYS_MAX {
            let mut all: Vec<_> = buckets.iter().map(|(key, bucket)| (filled(key.0, *bucket), *key)).collect();
            all.sort_by(|(one, _), (other, _)| other.total_cmp(one));
            for (_, key) in all.into_iter().take(RATE_KEYS_MAX / 8) {
                buckets.remove(&key);
            }
        }
    }
}

fn refilled(bucket: Bucket, allowance: Allowance, now: UnixMs) -> Bucket {
    let back = now.since(bucket.at).as_secs_f64() * allowance.per_second;
    Bucket { tokens: (bucket.tokens + back).min(f64::from(allowance.burst.max(1))), at: now.max(bucket.at) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: UnixMs = UnixMs(1_800_000_000_000);

    fn rates(per_second: f64, burst: u32) -> Rates {
        Rates::new(RateSettings { reads: Allowance { per_second, burst }, ..RateSettings::default() })
    }

    fn one(text: &str) -> Client {
        Client::of(text.parse().unwrap())
    }

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let rates = rates(0.5, 2);
        let take = |seconds| rates.take(Rate::Reads, one("192.0.2.1"), NOW.after(Duration::from_secs(seconds)));
        assert_eq!([take(0), take(0), take(0)], [Ok(()), Ok(()), Err(2)]);
        assert_eq!(take(1), Err(1), "half of one");
        assert_eq!(take(2), Ok(()));
        assert_eq!(take(1000), Ok(()), "never more than the burst");
        assert_eq!([take(1000), take(1000)], [Ok(()), Err(2)]);
        assert_eq!(take(900), Err(2), "time that goes back brings nothing");
    }

    #[test]
    fn kinds_and_clients_do_not_share() {
        let rates = rates(1.0, 1);
        assert_eq!(rates.take(Rate::Reads, one("192.0.2.1"), NOW), Ok(()));
        assert_eq!(rates.take(Rate::Reads, one("192.0.2.1"), NOW), Err(1));
        assert_eq!(rates.take(Rate::Submits, one("192.0.2.1"), NOW), Ok(()));
        assert_eq!(rates.take(Rate::Reads, one("192.0.2.2"), NOW), Ok(()));
    }

    #[test]
    fn a_customers_whole_ipv6_subnet_is_one_client() {
        assert_eq!(one("2001:db8:1:2::1"), one("2001:db8:1:2:ffff::9"));
        assert_ne!(one("2001:db8:1:2::1"), one("2001:db8:1:3::1"));
        assert_eq!(one("::ffff:192.0.2.1"), one("192.0.2.1"));
    }

    #[test]
    fn the_map_is_bounded_and_whoever_floods_is_remembered() {
        let rates = rates(0.001, 2);
        let flooder = one("192.0.2.1");
        while rates.take(Rate::Reads, flooder, NOW).is_ok() {}
        for index in 0..u32::try_from(RATE_KEYS_MAX).unwrap() * 2 {
            let _ = rates.take(Rate::Reads, Client::of(std::net::Ipv4Addr::from_bits(index).into()), NOW);
        }
        assert!(rates.buckets.lock().unwrap().len() <= RATE_KEYS_MAX);
        assert!(rates.take(Rate::Reads, flooder, NOW).is_err());
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_about_whom_it_speaks_for() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "203.0.113.9, 198.51.100.7".parse().unwrap());
        headers.append("x-forwarded-for", "10.0.0.3".parse().unwrap());
        let mut settings = Settings { trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()], ..Settings::default() };
        let of = |settings: &Settings, peer: &str| client(settings, peer.parse().unwrap(), &headers);
        assert_eq!(of(&settings, "10.0.0.2"), one("10.0.0.2"), "not unless it is said that there is a proxy");
        settings.behind_proxy = true;
        assert_eq!(of(&settings, "10.0.0.2"), one("198.51.100.7"), "the first one that is no proxy");
        assert_eq!(of(&settings, "192.0.2.1"), one("192.0.2.1"), "whoever is no proxy speaks for itself");
        let empty = HeaderMap::new();
        assert_eq!(client(&settings, "10.0.0.2".parse().unwrap(), &empty), one("10.0.0.2"));
        headers.insert("x-forwarded-for", "unknown".parse().unwrap());
        assert_eq!(client(&settings, "10.0.0.2".parse().unwrap(), &headers), one("10.0.0.2"));
    }

    #[test]
    fn a_subnet_is_an_address_or_a_prefix() {
        let contains =
            |subnet: &str, address: &str| subnet.parse::<Subnet>().unwrap().contains(address.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.9.9.9") && !contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("0.0.0.0/0", "11.0.0.0") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("::1", "::1") && !contains("::1", "::2"));
        assert!(contains("fd00::/8", "fdff::1") && contains("192.0.2.1", "::ffff:192.0.2.1"));
        for text in ["", "a", "10.0.0.0/33", "10.0.0.0/-1", "::/129"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }
}
