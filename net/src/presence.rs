//! Presence by gossip: sealed with the room's key, believed only from its author and only if newer than the last.

use std::collections::BTreeMap;

use libp2p::gossipsub::Message;
use protocol::{PeerId, Presence, RoomKeys};

use crate::limits::AUTHORS_MAX;
use crate::peer_name;

/// The newest sequence of every author.
#[derive(Debug, Default)]
pub(crate) struct Presences {
    newest: BTreeMap<PeerId, u64>,
}

/// What a gossip message is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A new presence of this author.
    News(PeerId, Presence),
    /// Sealed by its author, but not newer than what is known.
    Old,
    /// Not a presence that its author sealed with this room's key.
    Forged,
}

impl Presences {
    /// Judges a gossip message whose signature gossipsub has checked.
    pub fn handle_gossip(&mut self, message: &Message, keys: &RoomKeys) -> Verdict {
        let Some(author) = message.source.as_ref().map(peer_name) else { return Verdict::Forged };
        let Ok(presence) = keys.open(&author, &message.data) else { return Verdict::Forged };
        if self.newest.get(&author).is_some_and(|newest| presence.sequence <= *newest) {
            return Verdict::Old;
        }
        if self.newest.len() >= AUTHORS_MAX && !self.newest.contains_key(&author) {
            self.newest.pop_first();
        }
        self.newest.insert(author.clone(), presence.sequence);
        Verdict::News(author, presence)
    }
}

#[cfg(test)]
mod tests {
    use libp2p::gossipsub::TopicHash;
    use protocol::{Activity, RoomSecret};

    use super::*;

    #[test]
    fn a_presence_is_news_once_and_only_from_its_author() {
        let keys = RoomSecret::from_random([1; 16]).keys();
        let (ada, eve) = (libp2p::PeerId::random(), libp2p::PeerId::random());
        let gossip = |source, sequence: u64| {
            let presence = Presence { sequence, name: "ada".into(), activity: Activity::Idle, caught: Vec::new() };
            let data = keys.seal(&peer_name(&ada), &presence, [sequence as u8; 24]);
            Message { source, data, sequence_number: None, topic: TopicHash::from_raw("topic") }
        };
        let mut presences = Presences::default();
        assert!(matches!(presences.handle_gossip(&gossip(Some(ada), 2), &keys), Verdict::News(..)));
        assert_eq!(presences.handle_gossip(&gossip(Some(ada), 2), &keys), Verdict::Old);
        assert_eq!(presences.handle_gossip(&gossip(Some(ada), 1), &keys), Verdict::Old);
        assert_eq!(presences.handle_gossip(&gossip(Some(eve), 3), &keys), Verdict::Forged);
        assert_eq!(presences.handle_gossip(&gossip(None, 3), &keys), Verdict::Forged);
        let other = RoomSecret::from_random([2; 16]).keys();
        assert_eq!(presences.handle_gossip(&gossip(Some(ada), 3), &other), Verdict::Forged);
        assert!(matches!(presences.handle_gossip(&gossip(Some(ada), 3), &keys), Verdict::News(..)));
    }
}
