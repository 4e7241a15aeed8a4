//! Whom a peer may belong to, from where it is reached: peers of one network may be one person.

use std::net::IpAddr;

use coordinator::TrustDomain;
use protocol::PeerId;

/// The trust domain of a peer that is reached at `origin`: the exact address on private networks, where one machine may play
/// several peers but not several machines; a /24 of IPv4 and a /48 of IPv6 elsewhere, which one person may hold. Whoever is
/// known only through a relay, or between browsers, shares one domain with all such: they never confirm each other. Peers on
/// this machine are told apart, because nobody else can be there.
pub fn of(peer: &PeerId, origin: Option<IpAddr>) -> TrustDomain {
    TrustDomain(match origin.map(|origin| origin.to_canonical()) {
        None => "unknown".into(),
        Some(origin) if origin.is_loopback() => format!("this machine, {peer}"),
        Some(IpAddr::V4(ip)) if ip.is_private() || ip.is_link_local() => ip.to_string(),
        Some(IpAddr::V6(ip)) if ip.is_unique_local() || ip.is_unicast_link_local() => ip.to_string(),
        Some(IpAddr::V4(ip)) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        Some(IpAddr::V6(ip)) => {
            let [a, b, c, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_on_the_internet_may_be_one_person_and_strangers_are_not() {
        let peers = ["ada", "eve"].map(|name| PeerId::new(name).unwrap());
        let same = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|ip| (!ip.is_empty()).then(|| ip.parse().unwrap()));
            of(&peers[0], one) == of(&peers[1], other)
        };
        assert!(same("203.0.113.7", "203.0.113.200") && !same("203.0.113.7", "203.0.114.7"));
        assert!(same("2001:db8:1:2::3", "2001:db8:1:ffff::4") && !same("2001:db8:1::3", "2001:db8:2::3"));
        assert!(same("192.168.0.3", "192.168.0.3") && !same("192.168.0.3", "192.168.0.4"));
        assert!(same("::ffff:203.0.113.7", "203.0.113.9"), "an address in another's clothes");
        assert!(!same("127.0.0.1", "127.0.0.1"), "processes on this machine are told apart");
        assert!(same("", ""), "who hides behind a relay confirms nobody else there");
    }
}
