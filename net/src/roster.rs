//! Who is a member right now, over which links, and the way from the node to a member's best link.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use libp2p::swarm::ConnectionId;
use protocol::limits::{OUTBOX_MESSAGES_MAX, ROOM_PEERS_MAX};
use protocol::{Instant, PeerId};
use tokio::sync::{Notify, mpsc};

use crate::delay::Delay;
use crate::event::{DropReason, Event, Outlet, Path};
use crate::limits::{SETTLE_TIME, TRAFFIC_PEERS_MAX};

/// Bytes exchanged with a peer on its links, since it was first seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Received.
    pub bytes_in: u64,
    /// Sent.
    pub bytes_out: u64,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer is not a member, or has just left.
    #[error("the peer is not in the room")]
    Absent,
    /// The peer reads too slowly; it has been dropped.
    #[error("the peer is too slow and was dropped")]
    Slow,
    /// The message or its body is over its limit.
    #[error("the message is over its limit")]
    TooLong,
}

/// How good a link is, equal at both of its ends: the best one carries what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub path: Path,
    /// Of two equal links of a simultaneous dial, both ends keep the one that the smaller peer id dialled.
    pub dialled_by_smaller: bool,
}

/// A message on its way out, its header already encoded.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub header: Vec<u8>,
    pub body: Arc<[u8]>,
}

/// Byte counters of one peer, shared by its links.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
}

/// The members of a room as this node sees them.
#[derive(Debug)]
pub(crate) struct Roster {
    state: Mutex<State>,
    /// A member that came through a relay is not told before [`Roster::announce`], or a direct link of it.
    is_patient: bool,
    pub outlet: Outlet,
    /// Rings when the loop has something to do.
    pub wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    members: BTreeMap<PeerId, Member>,
    traffic: BTreeMap<PeerId, Arc<Counters>>,
    /// Where direct connections of peers came from or went to last.
    origins: BTreeMap<PeerId, IpAddr>,
    /// How long the last ping of peers took.
    round_trips: BTreeMap<PeerId, Duration>,
    to_drop: Vec<PeerId>,
}

#[derive(Debug, Default)]
struct Member {
    links: Vec<Link>,
    /// The path that the node was told last; `None` until it has heard of the member.
    told: Option<Path>,
}

#[derive(Debug)]
struct Link {
    connection: ConnectionId,
    rank: Rank,
    /// Since when, for [`SETTLE_TIME`]; `None` until the loop has looked at its clock.
    since: Option<Instant>,
    /// `None` once the link takes no more messages.
    outbox: Option<Outbox>,
}

#[derive(Debug)]
struct Outbox {
    control: mpsc::Sender<Outgoing>,
    bulk: mpsc::Sender<Outgoing>,
}

/// A link's hold on its membership; dropping it takes the link off the roster.
#[derive(Debug)]
pub(crate) struct Membership {
    pub roster: Arc<Roster>,
    pub peer: PeerId,
    pub control: mpsc::Receiver<Outgoing>,
    pub bulk: mpsc::Receiver<Outgoing>,
    pub counters: Arc<Counters>,
    connection: ConnectionId,
}

impl Roster {
    pub fn new(outlet: Outlet, is_patient: bool) -> Self {
        Self { state: Mutex::default(), is_patient, outlet, wake: Notify::new() }
    }

    /// Takes up a link whose peer has proved membership; `None` when the room is full.
    pub fn admit(self: &Arc<Self>, peer: PeerId, connection: ConnectionId, rank: Rank) -> Option<Membership> {
        let (control, control_receiver) = mpsc::channel(OUTBOX_MESSAGES_MAX);
        let (bulk, bulk_receiver) = mpsc::channel(OUTBOX_MESSAGES_MAX);
        let mut state = self.lock();
        if state.members.len() >= ROOM_PEERS_MAX && !state.members.contains_key(&peer) {
            return None;
        }
        let counters = state.counters(&peer);
        let member = state.members.entry(peer.clone()).or_default();
        member.links.push(Link { connection, rank, since: None, outbox: Some(Outbox { control, bulk }) });
        let waits = self.is_patient && member.told.is_none() && rank.path == Path::Relayed;
        if !waits {
            member.tell(&peer, &self.outlet);
        }
        drop(state);
        Some(Membership {
            roster: Arc::clone(self),
            peer,
            control: control_receiver,
            bulk: bulk_receiver,
            counters,
            connection,
        })
    }

    /// Remembers where a peer is reached directly.
    pub fn note_origin(&self, peer: &PeerId, origin: IpAddr) {
        let mut state = self.lock();
        if state.origins.len() >= TRAFFIC_PEERS_MAX && !state.origins.contains_key(peer) {
            let absent = state.origins.keys().find(|known| !state.members.contains_key(*known)).cloned();
            absent.and_then(|absent| state.origins.remove(&absent));
        }
        state.origins.insert(peer.clone(), origin);
    }

    /// Where a peer was reached directly last.
    pub fn origin(&self, peer: &PeerId) -> Option<IpAddr> {
        self.lock().origins.get(peer).copied()
    }

    /// Remembers how long a ping of a peer took.
    pub fn note_round_trip(&self, peer: &PeerId, round_trip: Duration) {
        let mut state = self.lock();
        let state = &mut *state;
        // Relays and others that are no members are pinged too.
        state.round_trips.retain(|known, _| state.members.contains_key(known));
        if state.members.contains_key(peer) {
            state.round_trips.insert(peer.clone(), round_trip);
        }
    }

    /// How long the last ping of each member took.
    pub fn round_trips(&self) -> BTreeMap<PeerId, Duration> {
        self.lock().round_trips.clone()
    }

    /// Queues a message on the best link of `to`.
    pub fn send(&self, to: &PeerId, outgoing: Outgoing) -> Result<(), SendError> {
        let mut state = self.lock();
        let member = state.members.get(to).filter(|member| member.told.is_some()).ok_or(SendError::Absent)?;
        let outbox = member.best().and_then(|link| link.outbox.as_ref()).ok_or(SendError::Absent)?;
        let queue = if outgoing.body.is_empty() { &outbox.control } else { &outbox.bulk };
        match queue.try_send(outgoing) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(SendError::Absent),
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.drop_member(&mut state, to, DropReason::Slow);
                Err(SendError::Slow)
            }
        }
    }

    /// Tells the node of a member whose announcement waited, if it did.
    pub fn announce(&self, peer: &PeerId) {
        if let Some(member) = self.lock().members.get_mut(peer).filter(|member| member.told.is_none()) {
            member.tell(peer, &self.outlet);
        }
    }

    /// Asks the loop to disconnect and refuse a member, and says so to the node.
    pub fn drop_peer(&self, peer: &PeerId, reason: DropReason) {
        self.drop_member(&mut self.lock(), peer, reason);
    }

    /// Members that the loop must disconnect.
    pub fn take_dropped(&self) -> Vec<PeerId> {
        std::mem::take(&mut self.lock().to_drop)
    }

    /// Lets links that are worse than another settled link of the same peer finish and close.
    pub fn retire_lesser(&self, now: Instant) {
        for member in self.lock().members.values_mut() {
            for link in &mut member.links {
                link.since.get_or_insert(now);
            }
            let settled = |link: &&Link| link.since.is_some_and(|since| now.since(since) >= SETTLE_TIME);
            let open = member.links.iter().filter(|link| link.outbox.is_some());
            let Some(best) = open.filter(settled).map(|link| link.rank).max() else { continue };
            for link in member.links.iter_mut().filter(|link| link.rank < best) {
                link.outbox = None;
            }
        }
    }

    /// Lets every link finish and close.
    pub fn retire_all(&self) {
        for member in self.lock().members.values_mut() {
            for link in &mut member.links {
                link.outbox = None;
            }
        }
    }

    /// Every member that the node was told of, with the path of its best link.
    pub fn members(&self) -> BTreeMap<PeerId, Path> {
        self.lock().members.iter().filter_map(|(peer, member)| Some((peer.clone(), member.told?))).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.lock().members.is_empty()
    }

    pub fn traffic(&self) -> BTreeMap<PeerId, Traffic> {
        let read = |counters: &Counters| Traffic {
            bytes_in: counters.bytes_in.load(Ordering::Relaxed),
            bytes_out: counters.bytes_out.load(Ordering::Relaxed),
        };
        self.lock().traffic.iter().map(|(peer, counters)| (peer.clone(), read(counters))).collect()
    }

    fn drop_member(&self, state: &mut State, peer: &PeerId, reason: DropReason) {
        let Some(member) = state.members.get_mut(peer) else { return };
        if state.to_drop.contains(peer) {
            return;
        }
        for link in &mut member.links {
            link.outbox = None;
        }
        state.to_drop.push(peer.clone());
        if member.told.is_some() {
            self.outlet.push(Event::Dropped { peer: peer.clone(), reason });
        }
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the roster")
    }
}

impl State {
    fn counters(&mut self, peer: &PeerId) -> Arc<Counters> {
        if self.traffic.len() >= TRAFFIC_PEERS_MAX && !self.traffic.contains_key(peer) {
            let absent = self.traffic.keys().find(|known| !self.members.contains_key(*known)).cloned();
            absent.and_then(|absent| self.traffic.remove(&absent));
        }
        Arc::clone(self.traffic.entry(peer.clone()).or_default())
    }
}

impl Member {
    /// The link that carries what is sent.
    fn best(&self) -> Option<&Link> {
        self.links.iter().filter(|link| link.outbox.is_some()).max_by_key(|link| link.rank)
    }

    /// Tells the node of this member, or that its path has changed.
    fn tell(&mut self, peer: &PeerId, outlet: &Outlet) {
        let any = || self.links.iter().filter(|_| self.told.is_none()).max_by_key(|link| link.rank);
        let Some(path) = self.best().or_else(any).map(|link| link.rank.path) else { return };
        let peer = peer.clone();
        match self.told.replace(path) {
            None => outlet.push(Event::Joined { peer, path }),
            Some(told) if told != path => outlet.push(Event::Moved { peer, path }),
            Some(_) => true,
        };
    }
}

impl Membership {
    /// Takes no more messages for this link; those already queued are still sent.
    pub fn retire(roster: &Roster, peer: &PeerId, connection: ConnectionId) {
        let mut state = roster.lock();
        let Some(member) = state.members.get_mut(peer) else { return };
        for link in member.links.iter_mut().filter(|link| link.connection == connection) {
            link.outbox = None;
        }
        if member.told.is_some() {
            member.tell(peer, &roster.outlet);
        }
    }

    pub fn connection(&self) -> ConnectionId {
        self.connection
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.roster.lock();
        let Some(member) = state.members.get_mut(&self.peer) else { return };
        member.links.retain(|link| link.connection != self.connection);
        let was_told = member.told.is_some();
        if member.links.is_empty() {
            state.members.remove(&self.peer);
            if was_told {
                self.roster.outlet.push(Event::Left { peer: self.peer.clone() });
            }
        } else if was_told {
            member.tell(&self.peer, &self.roster.outlet);
        }
        drop(state);
        self.roster.wake.notify_one();
    }
}

/// Waits for `time`.
pub(crate) async fn pause(time: Duration) {
    Delay::new(time).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::{Transport, queue};

    fn rank(path: Path) -> Rank {
        Rank { path, dialled_by_smaller: true }
    }

    fn outgoing(body: &[u8]) -> Outgoing {
        Outgoing { header: vec![0], body: Arc::from(body) }
    }

    #[test]
    fn the_best_link_carries_what_is_sent_and_lesser_ones_retire_once_it_has_settled() {
        let (outlet, mut events) = queue();
        let roster = Arc::new(Roster::new(outlet, false));
        let peer = PeerId::new("ada").unwrap();
        let admit = |id, path| roster.admit(peer.clone(), ConnectionId::new_unchecked(id), rank(path)).unwrap();
        let mut relayed = admit(1, Path::Relayed);
        let mut direct = admit(2, Path::Direct(Transport::Quic));
        assert!(matches!(events.try_next(), Some(Event::Joined { path: Path::Relayed, .. })));
        assert!(matches!(events.try_next(), Some(Event::Moved { path: Path::Direct(Transport::Quic), .. })));
        roster.send(&peer, outgoing(b"")).unwrap();
        roster.send(&peer, outgoing(b"body")).unwrap();
        assert!(direct.control.try_recv().is_ok() && direct.bulk.try_recv().is_ok());
        roster.retire_lesser(Instant::ZERO);
        assert_eq!(relayed.control.try_recv().unwrap_err(), mpsc::error::TryRecvError::Empty);
        roster.retire_lesser(Instant::ZERO + SETTLE_TIME);
        assert_eq!(relayed.control.try_recv().unwrap_err(), mpsc::error::TryRecvError::Disconnected);
        assert_eq!(direct.control.try_recv().unwrap_err(), mpsc::error::TryRecvError::Empty);
        drop(relayed);
        assert_eq!(events.try_next(), None);
        drop(direct);
        assert_eq!(events.try_next(), Some(Event::Left { peer: peer.clone() }));
        assert_eq!(roster.send(&peer, outgoing(b"")), Err(SendError::Absent));
    }

    #[test]
    fn a_patient_roster_tells_of_a_relayed_member_once_it_is_direct_or_nothing_better_comes() {
        let (outlet, mut events) = queue();
        let roster = Arc::new(Roster::new(outlet, true));
        let peer = PeerId::new("ada").unwrap();
        let admit = |id, path| roster.admit(peer.clone(), ConnectionId::new_unchecked(id), rank(path)).unwrap();
        let direct = Path::Direct(Transport::WebRtc);
        let relayed_link = admit(1, Path::Relayed);
        assert_eq!(events.try_next(), None);
        assert_eq!(roster.send(&peer, outgoing(b"body")), Err(SendError::Absent));
        assert!(roster.members().is_empty() && !roster.is_empty());
        let direct_link = admit(2, direct);
        assert_eq!(events.try_next(), Some(Event::Joined { peer: peer.clone(), path: direct }));
        drop(direct_link);
        assert_eq!(events.try_next(), Some(Event::Moved { peer: peer.clone(), path: Path::Relayed }));
        drop(relayed_link);
        assert_eq!(events.try_next(), Some(Event::Left { peer: peer.clone() }));
        drop(admit(3, Path::Relayed));
        assert_eq!(events.try_next(), None, "who was never told of does not leave");
        let _link = admit(4, Path::Relayed);
        roster.announce(&peer);
        roster.announce(&peer);
        assert_eq!(events.try_next(), Some(Event::Joined { peer: peer.clone(), path: Path::Relayed }));
        assert_eq!(events.try_next(), None);
    }

    #[test]
    fn links_of_equal_rank_both_stay() {
        let roster = Arc::new(Roster::new(queue().0, false));
        let peer = PeerId::new("ada").unwrap();
        let links = [1, 2].map(|id| {
            let rank = rank(Path::Direct(Transport::Tcp));
            roster.admit(peer.clone(), ConnectionId::new_unchecked(id), rank).unwrap()
        });
        for second in 0..10 {
            roster.retire_lesser(Instant::from_origin(Duration::from_secs(second)));
        }
        for mut link in links {
            assert_eq!(link.control.try_recv().unwrap_err(), mpsc::error::TryRecvError::Empty);
        }
    }

    #[test]
    fn the_room_is_full_at_its_limit_and_traffic_is_not_remembered_for_ever() {
        let roster = Arc::new(Roster::new(queue().0, false));
        let peer = |index: usize| PeerId::new(format!("peer{index}")).unwrap();
        let admit = |index| roster.admit(peer(index), ConnectionId::new_unchecked(index), rank(Path::Relayed));
        let members: Vec<_> = (0..ROOM_PEERS_MAX).map(|index| admit(index).unwrap()).collect();
        assert!(admit(ROOM_PEERS_MAX).is_none());
        drop(members);
        for index in 0..2 * TRAFFIC_PEERS_MAX {
            drop(admit(index).unwrap());
        }
        assert_eq!(roster.traffic().len(), TRAFFIC_PEERS_MAX);
    }
}
