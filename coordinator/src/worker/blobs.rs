//! Conditionings that a worker remembers for the room, each under the hash of its bytes.

use std::sync::Arc;

use protocol::limits::BLOBS_MAX;
use protocol::{Hash, PeerId};

/// At most [`BLOBS_MAX`] conditionings, the longest unused first.
#[derive(Default)]
pub(super) struct Blobs {
    blobs: Vec<Blob>,
}

struct Blob {
    hash: Hash,
    owner: PeerId,
    body: Arc<[u8]>,
}

impl Blobs {
    /// Remembers `body` under `hash`, which the caller has checked. When full, the requester with the most blobs loses its
    /// longest unused one, so that nobody can push out everybody else's.
    pub(super) fn insert(&mut self, owner: &PeerId, hash: Hash, body: Vec<u8>) {
        if self.touch(&hash).is_some() {
            return;
        }
        if self.blobs.len() >= BLOBS_MAX {
            self.evict();
        }
        self.blobs.push(Blob { hash, owner: owner.clone(), body: body.into() });
    }

    /// Finds a blob, and counts that as use.
    pub(super) fn touch(&mut self, hash: &Hash) -> Option<Arc<[u8]>> {
        let index = self.blobs.iter().position(|blob| blob.hash == *hash)?;
        let blob = self.blobs.remove(index);
        let body = blob.body.clone();
        self.blobs.push(blob);
        Some(body)
    }

    /// What was stored or used last.
    pub(super) fn newest(&self) -> Option<Hash> {
        self.blobs.last().map(|blob| blob.hash)
    }

    pub(super) fn clear(&mut self) {
        self.blobs.clear();
    }

    fn evict(&mut self) {
        let owned = |owner: &PeerId| self.blobs.iter().filter(|blob| blob.owner == *owner).count();
        let most = self.blobs.iter().map(|blob| owned(&blob.owner)).max().unwrap_or(0);
        if let Some(index) = self.blobs.iter().position(|blob| owned(&blob.owner) == most) {
            self.blobs.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> PeerId {
        PeerId::new(name).unwrap()
    }

    fn fill(blobs: &mut Blobs, owner: &str, range: std::ops::Range<usize>) {
        for index in range {
            let body = vec![index as u8; 4];
            blobs.insert(&peer(owner), Hash::of(&body), body);
        }
    }

    fn holds(blobs: &mut Blobs, index: usize) -> bool {
        blobs.touch(&Hash::of(&[index as u8; 4])).is_some()
    }

    #[test]
    fn the_longest_unused_blob_goes_first() {
        let mut blobs = Blobs::default();
        fill(&mut blobs, "ada", 0..BLOBS_MAX);
        assert!(holds(&mut blobs, 0));
        fill(&mut blobs, "ada", BLOBS_MAX..BLOBS_MAX + 1);
        assert!(holds(&mut blobs, 0) && !holds(&mut blobs, 1) && holds(&mut blobs, 2));
    }

    #[test]
    fn a_requester_that_stores_too_much_pushes_out_only_its_own() {
        let mut blobs = Blobs::default();
        fill(&mut blobs, "ada", 0..1);
        fill(&mut blobs, "eve", 1..10 * BLOBS_MAX);
        assert!(holds(&mut blobs, 0));
        assert!(blobs.blobs.len() <= BLOBS_MAX);
    }
}
