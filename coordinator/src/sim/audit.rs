//! What must hold of a requester, judged from outside: from what reaches its machine and what the machine says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::limits::{ATTEMPTS_MAX, LEASES_PER_WORKER, ROOM_PEERS_MAX};
use protocol::{Hash, JobId, LeaseId, PeerId, Policy, ToRequester, ToWorker, Unit, UnitId, tensor};

use crate::roster::Roster;
use crate::sim::toy::{SHAPE, compute, model};
use crate::sim::trace::digest;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which one.
    pub invariant: &'static str,
    /// How.
    pub text: String,
}

impl Broken {
    /// This invariant, in this way.
    pub fn new(invariant: &'static str, text: impl Into<String>) -> Self {
        Self { invariant, text: text.into() }
    }
}

/// What a requester's auditor knows of the room; the machine does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// How far the room believes its workers.
    pub policy: Policy,
    /// Peers that are not honest.
    pub dishonest: BTreeSet<PeerId>,
    /// The trust domain of each peer.
    pub domains: BTreeMap<PeerId, u32>,
    /// Whether nothing wrong may be accepted: nobody deceives, or the deceivers are of one trust domain and the room is not
    /// one of friends.
    pub tells_lies_apart: bool,
    /// Numeric classes in the room.
    pub classes: u8,
}

/// The book on one requester, from the start of its process on.
#[derive(Clone, Debug)]
pub struct Audit {
    truth: Arc<Truth>,
    /// Every lease ever granted.
    granted: BTreeSet<LeaseId>,
    live: BTreeMap<LeaseId, Grant>,
    present: BTreeSet<PeerId>,
    /// Peers that offered themselves and have not left since.
    lending: BTreeSet<PeerId>,
    condemned: BTreeSet<PeerId>,
    stages: BTreeMap<JobId, Stage>,
    /// Wrong answers that counted, by stage, and whose they were.
    wrong: BTreeMap<JobId, BTreeMap<u32, BTreeSet<PeerId>>>,
    /// The stage to which a job must go back, since whoever answered it was condemned.
    owed: BTreeMap<JobId, u32>,
    wrong_accepted: u64,
}

#[derive(Clone, Debug)]
struct Grant {
    worker: PeerId,
    job: JobId,
    unit: UnitId,
}

/// A job's present stage.
#[derive(Clone, Debug, Default)]
struct Stage {
    units: BTreeMap<UnitId, (Unit, Arc<[u8]>)>,
    conditioning: Option<(Hash, Arc<[u8]>)>,
    answers: Vec<Answer>,
    accepted: BTreeSet<UnitId>,
}

/// A delivery that reached the machine.
#[derive(Clone, Debug)]
struct Answer {
    worker: PeerId,
    unit: UnitId,
    digest: u32,
    was_live: bool,
}

impl Audit {
    /// An empty book.
    pub fn new(truth: Arc<Truth>) -> Self {
        Self {
            truth,
            granted: BTreeSet::new(),
            live: BTreeMap::new(),
            present: BTreeSet::new(),
            lending: BTreeSet::new(),
            wrong: BTreeMap::new(),
            owed: BTreeMap::new(),
            condemned: BTreeSet::new(),
            stages: BTreeMap::new(),
            wrong_accepted: 0,
        }
    }

    /// A worker's connection is made.
    pub fn joined(&mut self, peer: &PeerId) {
        self.left(peer);
        self.present.insert(peer.clone());
    }

    /// A worker's connection is gone, and its leases with it.
    pub fn left(&mut self, peer: &PeerId) {
        self.present.remove(peer);
        self.lending.remove(peer);
        self.live.retain(|_, grant| grant.worker != *peer);
    }

    /// A stage begins; what was left of the one before is over.
    pub fn begin_stage(&mut self, job: JobId, units: &[(Unit, Arc<[u8]>)], conditioning: Option<(Hash, Arc<[u8]>)>) {
        self.live.retain(|_, grant| grant.job != job);
        let number = units.first().map_or(0, |(unit, _)| unit.id.stage);
        if let Some(wrong) = self.wrong.get_mut(&job) {
            wrong.retain(|stage, _| *stage < number);
        }
        if self.owed.get(&job).is_some_and(|owed| number <= *owed) {
            self.owed.remove(&job);
        }
        let units = units.iter().map(|(unit, input)| (unit.id, (unit.clone(), input.clone()))).collect();
        self.stages.insert(job, Stage { units, conditioning, ..Stage::default() });
    }

    /// A job has ended.
    pub fn end_job(&mut self, job: JobId) {
        self.live.retain(|_, grant| grant.job != job);
        self.stages.remove(&job);
        self.wrong.remove(&job);
        self.owed.remove(&job);
    }

    /// The machine is about to hear this. A lease that is delivered or refused is over, whatever the machine makes of it.
    pub fn hears(&mut self, from: &PeerId, message: &ToRequester, body: &[u8]) {
        let mut end = |lease: &LeaseId| {
            let is_own = self.live.get(lease).is_some_and(|grant| grant.worker == *from);
            if is_own { self.live.remove(lease) } else { None }
        };
        match message {
            ToRequester::Deliver { lease, .. } => match end(lease) {
                Some(Grant { job, unit, .. }) => self.note(job, unit, from, body, true),
                None => self.note_stale(from, body),
            },
            ToRequester::Refuse { lease, .. } => drop(end(lease)),
            ToRequester::Leave => {
                self.live.retain(|_, grant| grant.worker != *from);
                self.lending.remove(from);
            }
            ToRequester::Offer(_) => drop(self.lending.insert(from.clone())),
            ToRequester::Heartbeat { .. } => {}
        }
    }

    /// The machine says this.
    pub fn says(&mut self, to: &PeerId, message: &ToWorker) -> Result<(), Broken> {
        match message {
            ToWorker::Assign { lease, unit } => self.grants(to, *lease, unit),
            ToWorker::Cancel { lease } => {
                self.live.remove(lease);
                Ok(())
            }
            ToWorker::Release { job } => {
                self.live.retain(|_, grant| grant.job != *job || grant.worker != *to);
                Ok(())
            }
            ToWorker::Store { .. } | ToWorker::Probe { .. } => Ok(()),
        }
    }

    /// The machine accepts a body for a unit.
    pub fn accepts(&mut self, job: JobId, unit: UnitId, by: &PeerId, body: &[u8]) -> Result<(), Broken> {
        if let Some(owed) = self.owed.get(&job) {
            return Err(Broken::new(
                "T1",
                format!("a job goes on, whose stage {owed} holds an answer of a condemned worker"),
            ));
        }
        let stage = self.stages.get_mut(&job).ok_or(Broken::new("I2", "a unit of an ended job is accepted"))?;
        let Some((work, input)) = stage.units.get(&unit) else {
            return Err(Broken::new("I4", format!("{unit:?} of another stage is accepted")));
        };
        if !stage.accepted.insert(unit) {
            return Err(Broken::new("I3", format!("{unit:?} is accepted twice")));
        }
        let found = digest(body);
        let same = |answer: &&Answer| answer.unit == unit && answer.worker == *by && answer.digest == found;
        let mut answers = stage.answers.iter().filter(same).peekable();
        if answers.peek().is_none() {
            return Err(Broken::new("I4", format!("{unit:?} by {by} is accepted, which nobody delivered")));
        }
        if !answers.any(|answer| answer.was_live) {
            return Err(Broken::new("I4", format!("{unit:?} by {by} is accepted under a stale lease")));
        }
        if let Err(error) = tensor::from_bytes(body, work.work.output_values(&SHAPE)) {
            return Err(Broken::new("I6", format!("{unit:?} by {by}: {error}")));
        }
        let conditioning = work.work.conditioning().and(stage.conditioning.as_ref()).map(|(_, body)| &**body);
        let is_right = (0..self.truth.classes).any(|class| compute(&work.work, input, conditioning, class) == body);
        if !is_right {
            if self.truth.tells_lies_apart {
                return Err(Broken::new("I7", format!("{unit:?} by {by} is accepted and wrong")));
            }
            self.wrong_accepted += 1;
            let wrong = self.wrong.entry(job).or_default();
            wrong.entry(unit.stage).or_default().insert(by.clone());
        }
        Ok(())
    }

    /// The driver gives a unit back that the machine had accepted.
    pub fn rejects(&mut self, job: JobId, unit: UnitId) {
        if let Some(wrong) = self.wrong.get_mut(&job) {
            wrong.remove(&unit.stage);
        }
        if let Some(stage) = self.stages.get_mut(&job) {
            stage.accepted.remove(&unit);
        }
    }

    /// The machine gives a job up for these reasons.
    pub fn fails(&self, reasons: &[(PeerId, String)], roster: &Roster) -> Result<(), Broken> {
        let peers: BTreeSet<&PeerId> = reasons.iter().map(|(peer, _)| peer).collect();
        if reasons.is_empty() || peers.len() < reasons.len() {
            return Err(Broken::new("F1", format!("a job fails without distinct reasons: {reasons:?}")));
        }
        let domains: BTreeSet<u32> = peers.iter().filter_map(|peer| self.truth.domains.get(*peer)).copied().collect();
        let distinct = if self.truth.policy == Policy::Friends { peers.len() } else { domains.len() };
        let is_tried = |(peer, _): (&PeerId, _)| peers.contains(peer);
        if distinct < ATTEMPTS_MAX && !roster.lenders_of(model()).all(is_tried) {
            return Err(Broken::new("F2", format!("a job fails although others are there: {reasons:?}")));
        }
        match reasons.iter().find(|(peer, _)| !self.truth.dishonest.contains(peer)) {
            Some((peer, reason)) => Err(Broken::new("F1", format!("a job fails on honest {peer}: {reason}"))),
            None => Ok(()),
        }
    }

    /// The machine condemns a worker.
    pub fn condemns(&mut self, peer: &PeerId) {
        self.condemned.insert(peer.clone());
        self.lending.remove(peer);
        for (job, wrong) in &self.wrong {
            if let Some((stage, _)) = wrong.iter().find(|(_, peers)| peers.contains(peer)) {
                let owed = self.owed.entry(*job).or_insert(*stage);
                *owed = (*owed).min(*stage);
            }
        }
        self.live.retain(|_, grant| grant.worker != *peer);
    }

    /// Memory stays within its caps.
    pub fn bounds(&self, roster: &Roster) -> Result<(), Broken> {
        let lenders = roster.lenders().count();
        if lenders > ROOM_PEERS_MAX {
            return Err(Broken::new("I10", format!("{lenders} lenders in the roster")));
        }
        match roster.lenders().find(|(_, lender)| lender.leases_held() > LEASES_PER_WORKER) {
            Some((peer, lender)) => Err(Broken::new("I10", format!("{} leases of {peer}", lender.leases_held()))),
            None => Ok(()),
        }
    }

    /// Wrong bodies that were accepted where that may happen.
    pub fn wrong_accepted(&self) -> u64 {
        self.wrong_accepted
    }

    fn note(&mut self, job: JobId, unit: UnitId, from: &PeerId, body: &[u8], was_live: bool) {
        if let Some(stage) = self.stages.get_mut(&job) {
            stage.answers.push(Answer { worker: from.clone(), unit, digest: digest(body), was_live });
        }
    }

    /// A delivery under a lease that is over could be taken for any unit.
    fn note_stale(&mut self, from: &PeerId, body: &[u8]) {
        let (worker, digest) = (from, digest(body));
        for stage in self.stages.values_mut() {
            let stale = |unit: &UnitId| Answer { worker: worker.clone(), unit: *unit, digest, was_live: false };
            stage.answers.extend(stage.units.keys().map(stale));
        }
    }

    fn grants(&mut self, to: &PeerId, lease: LeaseId, unit: &Unit) -> Result<(), Broken> {
        if !self.granted.insert(lease) {
            return Err(Broken::new("I4", format!("{lease} is granted twice")));
        }
        if self.condemned.contains(to) {
            return Err(Broken::new("C1", format!("{lease} is granted to {to}, which is condemned")));
        }
        if !self.present.contains(to) {
            return Err(Broken::new("C2", format!("{lease} is granted to {to}, which is not there")));
        }
        if !self.lending.contains(to) {
            return Err(Broken::new("C2", format!("{lease} is granted to {to}, which does not lend")));
        }
        let stage = self.stages.get(&unit.job);
        if stage.is_none_or(|stage| !stage.units.contains_key(&unit.id)) {
            return Err(Broken::new("C3", format!("{lease} is for {:?}, which is not in the present stage", unit.id)));
        }
        let grant = Grant { worker: to.clone(), job: unit.job, unit: unit.id };
        if self.live.values().any(|held| held.worker == *to && held.unit == unit.id && held.job == unit.job) {
            return Err(Broken::new("C4", format!("{to} is asked twice for {:?} at one time", unit.id)));
        }
        self.live.insert(lease, grant);
        Ok(())
    }
}
