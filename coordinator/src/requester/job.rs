//! A job as its requester keeps it: the present stage, its units, and what became of each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use protocol::limits::ATTEMPTS_MAX;
use protocol::{Hash, ModelId, ModelShape, PeerId, Unit, UnitId, Work};

pub(super) struct Job {
    pub(super) model: ModelId,
    /// Workers to release when the job ends.
    pub(super) used: BTreeSet<PeerId>,
    pub(super) stage: Option<Stage>,
    /// Units put back because their worker did not deliver them.
    pub(super) retries: u64,
}

pub(super) struct Stage {
    pub(super) shape: ModelShape,
    conditioning: Option<(Hash, Arc<[u8]>)>,
    entries: BTreeMap<UnitId, Entry>,
    /// Waiting units, the next one first.
    queue: VecDeque<UnitId>,
    done: usize,
    announced: bool,
}

/// One unit of the present stage.
pub(super) struct Entry {
    pub(super) unit: Unit,
    pub(super) input: Arc<[u8]>,
    pub(super) state: State,
    /// Every peer that failed it, each once, and how.
    pub(super) failures: Vec<(PeerId, String)>,
    /// The last peer that held it in silence or for too long.
    pub(super) stalled_on: Option<PeerId>,
    /// Peers that were sent the unit's conditioning again because they did not hold it.
    pub(super) resent_to: BTreeSet<PeerId>,
}

pub(super) enum State {
    Waiting,
    Leased,
    /// Delivered by this worker, which had failed this often in a row before.
    Done {
        by: PeerId,
        failures_in_row: u32,
    },
}

impl Job {
    pub(super) fn new(model: ModelId) -> Self {
        Self { model, used: BTreeSet::new(), stage: None, retries: 0 }
    }

    /// Units under lease at this moment.
    pub(super) fn leased(&self) -> usize {
        self.stage.as_ref().map_or(0, |stage| stage.entries.len() - stage.queue.len() - stage.done)
    }
}

impl Stage {
    pub(super) fn new(
        shape: ModelShape,
        conditioning: Option<(Hash, Arc<[u8]>)>,
        units: impl IntoIterator<Item = (Unit, Arc<[u8]>)>,
    ) -> Self {
        let entries: BTreeMap<_, _> =
            units.into_iter().map(|(unit, input)| (unit.id, Entry::new(unit, input))).collect();
        let queue = entries.keys().copied().collect();
        Self { shape, conditioning, entries, queue, done: 0, announced: false }
    }

    /// Returns true once, when the last unit is delivered.
    pub(super) fn announce(&mut self) -> bool {
        let whole = self.done == self.entries.len() && !self.announced;
        self.announced |= whole;
        whole
    }

    pub(super) fn entry_mut(&mut self, id: UnitId) -> Option<&mut Entry> {
        self.entries.get_mut(&id)
    }

    pub(super) fn take_from_queue(&mut self, id: UnitId) {
        self.queue.retain(|waiting| *waiting != id);
    }

    /// Puts a leased unit back. It goes to the front: its stage waits for it longest.
    pub(super) fn requeue(&mut self, id: UnitId) {
        let entry = self.entries.get_mut(&id).expect("a leased unit belongs to the present stage");
        entry.state = State::Waiting;
        self.queue.push_front(id);
    }

    /// Ends a leased unit as delivered.
    pub(super) fn complete(&mut self, id: UnitId, by: PeerId, failures_in_row: u32) {
        let entry = self.entries.get_mut(&id).expect("a leased unit belongs to the present stage");
        entry.state = State::Done { by, failures_in_row };
        self.done += 1;
    }

    /// Puts a delivered unit back; returns who delivered it and that worker's failures in a row before. `None` if the unit
    /// is not a delivered one of this stage.
    pub(super) fn undo(&mut self, id: UnitId) -> Option<(PeerId, u32)> {
        let State::Done { by, failures_in_row } = &self.entries.get(&id)?.state else { return None };
        let delivery = (by.clone(), *failures_in_row);
        self.done -= 1;
        self.announced = false;
        self.requeue(id);
        Some(delivery)
    }

    pub(super) fn entry(&self, id: UnitId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// Waiting units, the next one first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Entry> {
        self.queue.iter().map(|id| &self.entries[id])
    }

    /// The conditioning that the unit names, if it names the stage's.
    pub(super) fn conditioning_of(&self, unit: &Unit) -> Option<(Hash, Arc<[u8]>)> {
        match &unit.work {
            Work::Denoise { conditioning, .. } => self.conditioning.clone().filter(|(hash, _)| hash == conditioning),
            Work::Encode { .. } | Work::Decode { .. } | Work::Paint { .. } => None,
        }
    }
}

impl Entry {
    fn new(unit: Unit, input: Arc<[u8]>) -> Self {
        let (state, failures) = (State::Waiting, Vec::new());
        Self { unit, input, state, failures, stalled_on: None, resent_to: BTreeSet::new() }
    }

    pub(super) fn failed_on(&self, peer: &PeerId) -> bool {
        self.failures.iter().any(|(failed, _)| failed == peer)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.failures.len() >= ATTEMPTS_MAX
    }
}
