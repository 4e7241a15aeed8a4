//! A job as its requester keeps it: the present stage, its units, and what became of each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use protocol::limits::ATTEMPTS_MAX;
use protocol::{Hash, LeaseId, ModelId, ModelShape, PeerId, Unit, UnitId};

use super::answers::{Answer, Check};
use crate::mutants::{Mutant, is};
use crate::trust::TrustDomain;

pub(super) struct Job {
    pub(super) model: ModelId,
    /// Workers to release when the job ends.
    pub(super) used: BTreeSet<PeerId>,
    pub(super) stage: Option<Stage>,
    /// Units put back because their worker did not deliver them.
    pub(super) retries: u64,
    /// The earliest stage in which an answer of a worker was taken that nobody confirmed.
    pub(super) unproven: BTreeMap<PeerId, u32>,
    /// The numeric class of the first answer taken: where classes agree only to rounding, this one's bits are preferred.
    pub(super) class: Option<String>,
}

pub(super) struct Stage {
    pub(super) number: u32,
    pub(super) shape: ModelShape,
    conditioning: Option<(Hash, Arc<[u8]>)>,
    entries: BTreeMap<UnitId, Entry>,
    /// Units that want a lease more, the next one first.
    queue: VecDeque<UnitId>,
    done: usize,
    announced: bool,
}

/// One unit of the present stage.
pub(super) struct Entry {
    pub(super) unit: Unit,
    pub(super) input: Arc<[u8]>,
    /// What it takes for an answer to count.
    pub(super) check: Check,
    /// Live leases: several while it is hedged or computed by several domains.
    pub(super) leases: Vec<Holder>,
    /// Sound answers that do not count yet.
    pub(super) answers: Vec<Answer>,
    /// Who delivered the answer that counts.
    pub(super) done: Option<Done>,
    /// Every peer that failed it, each once, and how.
    pub(super) failures: Vec<Failure>,
    /// The last peer that held it in silence or for too long.
    pub(super) stalled_on: Option<PeerId>,
    /// Peers that were sent the unit's conditioning again because they did not hold it.
    pub(super) resent_to: BTreeSet<PeerId>,
}

/// Who holds a lease of a unit.
pub(super) struct Holder {
    pub(super) lease: LeaseId,
    pub(super) worker: PeerId,
    pub(super) domain: TrustDomain,
    pub(super) is_own: bool,
}

/// Who delivered a unit, and how often it had failed in a row before.
#[derive(Clone)]
pub(super) struct Done {
    pub(super) by: PeerId,
    pub(super) failures_in_row: u32,
}

#[derive(Clone)]
pub(super) struct Failure {
    pub(super) peer: PeerId,
    pub(super) domain: TrustDomain,
    pub(super) reason: String,
    pub(super) is_out_of_memory: bool,
}

impl Job {
    pub(super) fn new(model: ModelId) -> Self {
        let (used, unproven) = (BTreeSet::new(), BTreeMap::new());
        Self { model, used, stage: None, retries: 0, unproven, class: None }
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
        check: Check,
    ) -> Self {
        let entries: BTreeMap<_, _> =
            units.into_iter().map(|(unit, input)| (unit.id, Entry::new(unit, input, check))).collect();
        let queue: VecDeque<UnitId> = entries.keys().copied().collect();
        let number = queue.front().map_or(0, |id| id.stage);
        Self { number, shape, conditioning, entries, queue, done: 0, announced: false }
    }

    /// Returns true once, when the last unit is delivered.
    pub(super) fn announce(&mut self) -> bool {
        let early = usize::from(is(Mutant::AnnouncesEarly) && self.entries.len() > 1);
        let whole = self.done + early >= self.entries.len() && !self.announced;
        self.announced |= whole;
        whole
    }

    pub(super) fn entry(&self, id: UnitId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(super) fn entry_mut(&mut self, id: UnitId) -> Option<&mut Entry> {
        self.entries.get_mut(&id)
    }

    pub(super) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.values_mut()
    }

    /// Puts a unit into the queue if it wants a lease more, and takes it out if not. What comes back goes to the front: its
    /// stage has waited for it longest.
    pub(super) fn requeue(&mut self, id: UnitId) {
        let is_wanted = self.entries.get(&id).is_some_and(|entry| entry.wanted() > 0);
        let place = self.queue.iter().position(|waiting| *waiting == id);
        match (is_wanted, place) {
            (true, None) => self.queue.push_front(id),
            (false, Some(place)) => _ = self.queue.remove(place),
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Ends a unit as delivered.
    pub(super) fn complete(&mut self, id: UnitId, done: Done) {
        let entry = self.entries.get_mut(&id).expect("a unit that is settled belongs to the present stage");
        entry.done = Some(done);
        entry.answers.clear();
        self.done += 1;
        self.requeue(id);
    }

    /// Puts a delivered unit back; returns who delivered it and that worker's failures in a row before. `None` if the unit
    /// is not a delivered one of this stage.
    pub(super) fn undo(&mut self, id: UnitId) -> Option<Done> {
        let done = self.entries.get_mut(&id)?.done.take()?;
        self.done -= 1;
        self.announced = false;
        self.requeue(id);
        Some(done)
    }

    /// Units that want a lease more, the next one first.
    pub(super) fn waiting(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.queue.iter().map(|id| &self.entries[id])
    }

    /// The conditioning that the unit names, if it names the stage's.
    pub(super) fn conditioning_of(&self, unit: &Unit) -> Option<(Hash, Arc<[u8]>)> {
        let (named, _) = unit.work.conditioning()?;
        self.conditioning.clone().filter(|(hash, _)| *hash == named)
    }
}

impl Entry {
    fn new(unit: Unit, input: Arc<[u8]>, check: Check) -> Self {
        Self {
            unit,
            input,
            check,
            leases: Vec::new(),
            answers: Vec::new(),
            done: None,
            failures: Vec::new(),
            stalled_on: None,
            resent_to: BTreeSet::new(),
        }
    }

    /// Leases to grant beside those that are alive, if every answer under way is the right one.
    pub(super) fn wanted(&self) -> usize {
        if self.done.is_some() && !is(Mutant::DoneIsNotDone) {
            return 0;
        }
        self.check.answers_missing(&self.answers, &self.leases).saturating_sub(self.leases.len())
    }

    /// Nobody has begun it.
    pub(super) fn is_fresh(&self) -> bool {
        self.leases.is_empty() && self.answers.is_empty() && self.failures.is_empty() && self.stalled_on.is_none()
    }

    pub(super) fn failed_on(&self, peer: &PeerId) -> bool {
        self.failures.iter().any(|failure| failure.peer == *peer)
    }

    /// Whether the peer computes it or has answered.
    pub(super) fn is_held_by(&self, peer: &PeerId) -> bool {
        self.leases.iter().any(|holder| holder.worker == *peer) || self.answers.iter().any(|answer| answer.by == *peer)
    }

    /// Failed on so many that the unit is at fault. Where nobody is believed alone, a domain counts once.
    pub(super) fn is_spent(&self) -> bool {
        let domains: BTreeSet<&TrustDomain> = self.failures.iter().map(|failure| &failure.domain).collect();
        if is(Mutant::FailsEarly) {
            return self.failures.len() + 1 >= ATTEMPTS_MAX;
        }
        match self.check {
            Check::Domains(domains_needed) if domains_needed > 1 && !is(Mutant::FailsOnOneDomain) => {
                domains.len() >= ATTEMPTS_MAX
            }
            Check::Domains(_) | Check::Own => self.failures.len() >= ATTEMPTS_MAX,
        }
    }
}
