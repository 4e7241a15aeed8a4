//! A requester whose workers are played by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use coordinator::{Policy, Requester, RequesterOutput, Standing};
use protocol::{Instant, LeaseId, PeerId, RefuseReason, ToRequester, ToWorker, Unit, UnitId, Work, tensor};

use crate::toy::{SHAPE, at, capabilities, job, model, peer};

/// A requester with one job, and a record of what it said.
pub struct Desk {
    pub machine: Requester,
    /// Every grant so far: who got which unit.
    pub grants: BTreeMap<LeaseId, (PeerId, UnitId)>,
    pub outputs: Vec<RequesterOutput>,
}

impl Desk {
    /// A job whose present stage has `units` decoding units, and these workers.
    pub fn new(units: u32, workers: &[&str]) -> Self {
        let mut desk =
            Self { machine: Requester::new(Policy::Friends, 1), grants: BTreeMap::new(), outputs: Vec::new() };
        for name in workers {
            desk.join(name, at(0));
        }
        desk.machine.begin_job(job(1), model(), at(0));
        desk.begin(0, units, at(0));
        desk
    }

    pub fn begin(&mut self, stage: u32, units: u32, now: Instant) {
        self.machine.begin_stage(job(1), decodes(stage, units), None, &SHAPE, now);
        self.drain();
    }

    pub fn join(&mut self, name: &str, now: Instant) {
        self.machine.handle_joined(peer(name), Standing::alone(&peer(name)), now);
        self.say(name, ToRequester::Offer(capabilities(vec![model()])), now);
    }

    pub fn leave(&mut self, name: &str, now: Instant) {
        self.machine.handle_left(&peer(name), now);
        self.drain();
    }

    pub fn say(&mut self, name: &str, message: ToRequester, now: Instant) {
        self.machine.handle(&peer(name), message, Vec::new(), now);
        self.drain();
    }

    pub fn refuse(&mut self, name: &str, reason: RefuseReason, now: Instant) {
        let lease = self.held(name)[0];
        self.say(name, ToRequester::Refuse { lease, reason }, now);
    }

    pub fn deliver_body(&mut self, name: &str, lease: LeaseId, body: Vec<u8>, now: Instant) {
        self.machine.handle(&peer(name), ToRequester::Deliver { lease, compute_ms: 1 }, body, now);
        self.drain();
    }

    pub fn deliver(&mut self, name: &str, lease: LeaseId, now: Instant) {
        self.deliver_body(name, lease, sound_body(), now);
    }

    pub fn beat(&mut self, name: &str, now: Instant) {
        for lease in self.held(name) {
            self.say(name, ToRequester::Heartbeat { lease }, now);
        }
    }

    pub fn wait_until(&mut self, now: Instant) {
        self.machine.handle_timeout(now);
        self.drain();
    }

    pub fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            if let RequesterOutput::Send { to, message: ToWorker::Assign { lease, unit }, .. } = &output {
                let old = self.grants.insert(*lease, (to.clone(), unit.id));
                assert_eq!(old, None, "{lease} is granted twice");
            }
            self.outputs.push(output);
        }
    }

    /// Live leases of a worker, the oldest first.
    pub fn held(&self, name: &str) -> Vec<LeaseId> {
        let count = self.machine.roster().lender(&peer(name)).map_or(0, |lender| lender.leases_held());
        let mut held: Vec<LeaseId> = self
            .grants
            .iter()
            .filter(|(_, (worker, _))| *worker == peer(name))
            .map(|(id, _)| *id)
            .rev()
            .take(count)
            .collect();
        held.reverse();
        held
    }

    pub fn unit(&self, lease: LeaseId) -> u32 {
        self.grants[&lease].1.index
    }

    pub fn cancelled(&self) -> Vec<LeaseId> {
        let lease = |output: &RequesterOutput| match output {
            RequesterOutput::Send { message: ToWorker::Cancel { lease }, .. } => Some(*lease),
            _ => None,
        };
        self.outputs.iter().filter_map(lease).collect()
    }

    pub fn delivered(&self) -> Vec<u32> {
        let unit = |output: &RequesterOutput| match output {
            RequesterOutput::Delivered { unit, .. } => Some(unit.index),
            _ => None,
        };
        self.outputs.iter().filter_map(unit).collect()
    }

    pub fn count(&self, is_meant: impl Fn(&RequesterOutput) -> bool) -> usize {
        self.outputs.iter().filter(|output| is_meant(output)).count()
    }

    pub fn stages_done(&self) -> usize {
        self.count(|output| matches!(output, RequesterOutput::StageDone { .. }))
    }

    pub fn pauses(&self) -> usize {
        self.count(|output| matches!(output, RequesterOutput::WorkerPaused { .. }))
    }

    pub fn reasons(&self) -> Option<Vec<(PeerId, String)>> {
        self.outputs.iter().find_map(|output| match output {
            RequesterOutput::JobFailed { reasons, .. } => Some(reasons.clone()),
            _ => None,
        })
    }
}

pub fn decodes(stage: u32, units: u32) -> Vec<(Unit, Arc<[u8]>)> {
    let work = Work::Decode { rows: 1, columns: 1 };
    let unit = |index| Unit { job: job(1), id: UnitId { stage, index }, model: model(), work: work.clone() };
    (0..units).map(|index| (unit(index), Arc::from(tensor::to_bytes(&[0.0, 0.5])))).collect()
}

pub fn sound_body() -> Vec<u8> {
    tensor::to_bytes(&[0.25; 12])
}
