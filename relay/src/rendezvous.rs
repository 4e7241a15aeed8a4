//! The rendezvous: who is to be found under which namespace, and for how long.
//!
//! Whoever names a namespace is told who is registered under it; nobody is told which namespaces there are. A member
//! can name its room's, which is derived from the secret, and others cannot: a namespace that nobody uses is answered
//! like one that does not exist, because nothing is kept of it. libp2p's own server tells every registration to
//! everyone who leaves the namespace out, which is why this one exists.
//!
//! Pure: requests come in with the time and some randomness, answers come out.

mod codec;
mod message;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use libp2p::{PeerId, request_response};

use crate::limits::{
    ANSWER_BYTES_MAX, RECORD_BYTES_MAX, REGISTRATION_SECONDS, REGISTRATIONS_MAX, REGISTRATIONS_PER_NAMESPACE_MAX,
    REGISTRATIONS_PER_PEER_MAX, RENDEZVOUS_STREAMS_MAX, RENDEZVOUS_TIME_MAX,
};
use message::{Namespace, Page, Place, Record, Refusal};

pub(crate) use codec::Codec;
pub(crate) use message::{Answer, Request};

/// Bytes of a registration in an answer beyond its record: the namespace, the time, and lengths.
const LISTED_BYTES_MAX: usize = 32;

/// Carries requests from streams to [`Registrations::handle`], and answers back.
pub(crate) type Behaviour = request_response::Behaviour<Codec>;

/// A behaviour that answers and never asks.
pub(crate) fn behaviour() -> Behaviour {
    let config = request_response::Config::default()
        .with_request_timeout(RENDEZVOUS_TIME_MAX)
        .with_max_concurrent_streams(RENDEZVOUS_STREAMS_MAX);
    Behaviour::new([(codec::PROTOCOL, request_response::ProtocolSupport::Inbound)], config)
}

/// All registrations.
#[derive(Debug, Default)]
pub(crate) struct Registrations {
    lists: BTreeMap<Namespace, List>,
    peers: BTreeMap<PeerId, BTreeSet<Namespace>>,
    lapses: BTreeSet<(Instant, PeerId, Namespace)>,
}

/// The registrations under one namespace; there is no empty list.
#[derive(Debug)]
struct List {
    places: BTreeMap<PeerId, Place>,
    registered: BTreeMap<Place, Registration>,
    /// The latest place that was given away. The first is random, so that no number says how many there have been, and
    /// a cookie from an earlier list of this name either exceeds all numbers or is below them.
    last: Place,
}

#[derive(Debug)]
struct Registration {
    record: Record,
    until: Instant,
}

impl Registrations {
    /// Does what `peer` asks; `random` is used if that begins a list. `None`: the protocol has no answer to it.
    pub fn handle(&mut self, peer: PeerId, request: Request, random: u64, now: Instant) -> Option<Answer> {
        self.handle_time(now);
        match request {
            Request::Register { namespace, record, seconds } => {
                Some(Answer::Registered(self.register(peer, namespace, record, seconds, random, now)))
            }
            Request::Unregister(namespace) => {
                self.remove(peer, &namespace);
                None
            }
            Request::Discover { namespace, after, limit } => {
                Some(Answer::Discovered(Ok(self.page(namespace, after, limit, now))))
            }
            Request::Wrong(answer) => Some(answer),
        }
    }

    /// The last connection of `peer` closed: whoever looked for it would dial in vain.
    pub fn handle_lost(&mut self, peer: PeerId) {
        for namespace in self.peers.get(&peer).cloned().unwrap_or_default() {
            self.remove(peer, &namespace);
        }
    }

    /// Forgets what has lapsed.
    pub fn handle_time(&mut self, now: Instant) {
        while let Some((until, peer, namespace)) = self.lapses.first().cloned()
            && until <= now
        {
            self.remove(peer, &namespace);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lapses.len()
    }

    fn register(
        &mut self,
        peer: PeerId,
        namespace: Namespace,
        record: Record,
        seconds: Option<u64>,
        random: u64,
        now: Instant,
    ) -> Result<u64, Refusal> {
        if record.signer != peer {
            return Err(Refusal::NotAuthorized);
        }
        let (seconds_min, seconds_max) = REGISTRATION_SECONDS;
        let seconds = seconds.unwrap_or(seconds_max);
        if !(seconds_min..=seconds_max).contains(&seconds) {
            return Err(Refusal::Ttl);
        }
        // A registration that replaces another finds the place that the other leaves.
        self.remove(peer, &namespace);
        let of_peer = self.peers.get(&peer).map_or(0, BTreeSet::len);
        let of_namespace = self.lists.get(&namespace).map_or(0, |list| list.places.len());
        if of_peer >= REGISTRATIONS_PER_PEER_MAX
            || of_namespace >= REGISTRATIONS_PER_NAMESPACE_MAX
            || self.len() >= REGISTRATIONS_MAX
        {
            return Err(Refusal::Unavailable);
        }
        let until = now + Duration::from_secs(seconds);
        self.lapses.insert((until, peer, namespace.clone()));
        self.peers.entry(peer).or_default().insert(namespace.clone());
        let list = self.lists.entry(namespace).or_insert_with(|| List::starting_at(random));
        list.add(peer, Registration { record, until });
        Ok(seconds)
    }

    fn remove(&mut self, peer: PeerId, namespace: &Namespace) {
        let Some(list) = self.lists.get_mut(namespace) else { return };
        let Some(registration) = list.remove(&peer) else { return };
        if list.places.is_empty() {
            self.lists.remove(namespace);
        }
        self.lapses.remove(&(registration.until, peer, namespace.clone()));
        let of_peer = self.peers.get_mut(&peer).expect("a peer with a registration has a set of them");
        of_peer.remove(namespace);
        if of_peer.is_empty() {
            self.peers.remove(&peer);
        }
    }

    fn page(&self, namespace: Namespace, after: Place, limit: usize, now: Instant) -> Page {
        let Some(list) = self.lists.get(&namespace) else {
            return Page { namespace, registrations: Vec::new(), next: Place::default() };
        };
        let after = if after > list.last { Place::default() } else { after };
        let (mut registrations, mut next, mut bytes) = (Vec::new(), after, 0);
        for (place, Registration { record, until }) in list.registered.range(Place(after.0 + 1)..).take(limit) {
            bytes += record.envelope.len() + namespace.len() + LISTED_BYTES_MAX;
            if bytes > ANSWER_BYTES_MAX {
                break;
            }
            let seconds = until.saturating_duration_since(now).as_secs().max(1);
            registrations.push((record.clone(), seconds));
            next = *place;
        }
        Page { namespace, registrations, next }
    }
}

impl List {
    /// Half of all numbers remain, more than can ever be given away.
    fn starting_at(random: u64) -> Self {
        Self { places: BTreeMap::new(), registered: BTreeMap::new(), last: Place(random >> 1) }
    }

    fn add(&mut self, peer: PeerId, registration: Registration) {
        self.last.0 += 1;
        self.places.insert(peer, self.last);
        self.registered.insert(self.last, registration);
    }

    fn remove(&mut self, peer: &PeerId) -> Option<Registration> {
        let place = self.places.remove(peer)?;
        self.registered.remove(&place)
    }
}

const _: () = assert!(
    RECORD_BYTES_MAX + crate::limits::NAMESPACE_BYTES_MAX + LISTED_BYTES_MAX <= ANSWER_BYTES_MAX,
    "every page has a registration, or a list would have no end"
);

#[cfg(test)]
mod tests;
