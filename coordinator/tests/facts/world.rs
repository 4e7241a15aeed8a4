//! A room in memory: requesters, workers and the links between them, with a clock that is moved by hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use coordinator::{LeaseKey, Policy, Requester, RequesterOutput, Standing, Worker, WorkerOutput};
use protocol::{Instant, JobId, LeaseId, Message, PeerId, RefuseReason, ToRequester, ToWorker, Unit, tensor};

use crate::toy::{Painting, Picture, Rng, SHAPE, capabilities, compute, model};

/// How a worker behaves.
#[derive(Clone, Debug, PartialEq)]
pub enum Temper {
    Honest,
    /// Offers, then never says anything.
    Silent,
    /// Says that it works, and never delivers.
    Beating,
    Refuses(RefuseReason),
    /// Delivers one value too few.
    Short,
    NotANumber,
    /// Adds this to every value: a lie that looks like an answer, the same from all who lie so.
    Lies(i8),
    /// Loses the first conditioning that it is sent.
    Forgetful,
}

struct Seat {
    machine: Worker,
    temper: Temper,
    unit_time: Duration,
    computing: Option<Computing>,
}

struct Computing {
    ready: Instant,
    key: LeaseKey,
    unit: Box<Unit>,
    input: Vec<u8>,
    conditioning: Option<Arc<[u8]>>,
}

/// A message and its body.
type Sent = (Message, Vec<u8>);

struct Desk {
    machine: Requester,
    paintings: BTreeMap<JobId, Painting>,
    /// Every painting at the beginning of each of its stages.
    snapshots: BTreeMap<JobId, Vec<Painting>>,
    leases: BTreeSet<LeaseId>,
}

pub struct World {
    pub now: Instant,
    pub rng: Rng,
    /// Chance in percent that time passes although messages wait.
    pub delay_percent: u64,
    desks: BTreeMap<PeerId, Desk>,
    seats: BTreeMap<PeerId, Seat>,
    links: BTreeMap<(PeerId, PeerId), VecDeque<Sent>>,
    /// Who was given units, in order.
    pub assigned: Vec<(PeerId, PeerId)>,
    /// Whose units were computed, in order.
    pub computed: Vec<PeerId>,
    pub notices: Vec<RequesterOutput>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            rng: Rng(seed),
            delay_percent: 0,
            desks: BTreeMap::new(),
            seats: BTreeMap::new(),
            links: BTreeMap::new(),
            assigned: Vec::new(),
            computed: Vec::new(),
            notices: Vec::new(),
        }
    }

    pub fn with_requester(self, name: &PeerId) -> Self {
        self.with_policy(name, Policy::Friends)
    }

    pub fn with_policy(mut self, name: &PeerId, policy: Policy) -> Self {
        let mut machine = Requester::new(policy, 1);
        for worker in self.seats.keys() {
            machine.handle_joined(worker.clone(), Standing::alone(worker), self.now);
        }
        self.desks.insert(
            name.clone(),
            Desk { machine, paintings: BTreeMap::new(), snapshots: BTreeMap::new(), leases: BTreeSet::new() },
        );
        for worker in self.seats.keys().cloned().collect::<Vec<_>>() {
            self.seats.get_mut(&worker).unwrap().machine.handle_joined(name.clone(), self.now);
            self.drain_worker(&worker);
        }
        self
    }

    pub fn join(&mut self, name: &PeerId, temper: Temper, unit_ms: u64) {
        self.join_as(name, temper, unit_ms, &Standing::alone(name));
    }

    pub fn join_as(&mut self, name: &PeerId, temper: Temper, unit_ms: u64, standing: &Standing) {
        let mut machine = Worker::new(capabilities(vec![]), BTreeMap::from([(model(), SHAPE)]));
        for requester in self.desks.keys().cloned().collect::<Vec<_>>() {
            machine.handle_joined(requester.clone(), self.now);
            let desk = self.desks.get_mut(&requester).unwrap();
            desk.machine.handle_joined(name.clone(), standing.clone(), self.now);
            self.drain_requester(&requester);
        }
        let unit_time = Duration::from_millis(unit_ms);
        self.seats.insert(name.clone(), Seat { machine, temper, unit_time, computing: None });
        self.drain_worker(name);
    }

    /// Closes a worker's connections: what was on its way is lost.
    pub fn kill(&mut self, worker: &PeerId) {
        self.seats.remove(worker).expect("only workers that are there can be killed");
        self.links.retain(|(from, to), _| from != worker && to != worker);
        for requester in self.desks.keys().cloned().collect::<Vec<_>>() {
            self.desks.get_mut(&requester).unwrap().machine.handle_left(worker, self.now);
            self.drain_requester(&requester);
        }
    }

    pub fn set_temper(&mut self, worker: &PeerId, temper: Temper) {
        self.seats.get_mut(worker).expect("the worker is there").temper = temper;
    }

    pub fn submit(&mut self, requester: &PeerId, job: JobId, picture: Picture) {
        let desk = self.desks.get_mut(requester).unwrap();
        let painting = Painting::new(job, picture);
        desk.machine.begin_job(job, model(), self.now);
        desk.machine.begin_stage(job, painting.units(), None, &SHAPE, self.now);
        desk.snapshots.insert(job, vec![painting.clone()]);
        desk.paintings.insert(job, painting);
        self.drain_requester(requester);
    }

    /// Runs until every job has ended, or nothing can happen any more, or `steps_max` things have happened.
    pub fn run(&mut self, steps_max: usize) -> usize {
        (0..steps_max).find(|_| self.is_over() || !self.step()).unwrap_or(steps_max)
    }

    /// Lets every message under way arrive and all time pass until `until`.
    pub fn run_until(&mut self, until: Instant) {
        while self.links.values().any(|link| !link.is_empty()) || self.next_due().is_some_and(|due| due <= until) {
            self.step();
        }
        self.now = self.now.max(until);
    }

    pub fn is_over(&self) -> bool {
        let mut paintings = self.desks.values().flat_map(|desk| desk.paintings.values());
        paintings.all(|painting| painting.finished.is_some() || painting.failed.is_some())
    }

    pub fn painting(&self, requester: &PeerId, job: JobId) -> &Painting {
        &self.desks[requester].paintings[&job]
    }

    pub fn requester(&self, name: &PeerId) -> &Requester {
        &self.desks[name].machine
    }

    pub fn requester_mut(&mut self, name: &PeerId) -> &mut Requester {
        &mut self.desks.get_mut(name).unwrap().machine
    }

    pub fn worker(&self, name: &PeerId) -> &Worker {
        &self.seats[name].machine
    }

    pub fn workers(&self) -> Vec<PeerId> {
        self.seats.keys().cloned().collect()
    }

    /// Puts a message on its way, as if its sender had said it.
    pub fn inject(&mut self, from: &PeerId, to: &PeerId, message: Message, body: Vec<u8>) {
        self.links.entry((from.clone(), to.clone())).or_default().push_back((message, body));
    }

    /// One message arrives, or time passes until the next thing is due. False if neither can happen.
    pub fn step(&mut self) -> bool {
        let full: Vec<_> =
            self.links.iter().filter(|(_, link)| !link.is_empty()).map(|(ends, _)| ends.clone()).collect();
        let due = self.next_due();
        if full.is_empty() && due.is_none() {
            return false;
        }
        if full.is_empty() || (due.is_some() && self.rng.chance(self.delay_percent)) {
            self.now = self.now.max(due.unwrap());
            self.fire();
            return true;
        }
        let (from, to) = full[self.rng.below(full.len())].clone();
        let (message, body) = self.links.get_mut(&(from.clone(), to.clone())).unwrap().pop_front().unwrap();
        match message {
            Message::ToRequester(message) => {
                if let Some(desk) = self.desks.get_mut(&to) {
                    desk.machine.handle(&from, message, body, self.now);
                    self.drain_requester(&to);
                }
            }
            Message::ToWorker(message) => {
                if let Some(seat) = self.seats.get_mut(&to) {
                    if seat.temper == Temper::Forgetful && matches!(message, ToWorker::Store { .. }) {
                        seat.temper = Temper::Honest;
                        return true;
                    }
                    seat.machine.handle(&from, message, body, self.now);
                    self.drain_worker(&to);
                }
            }
        }
        true
    }

    fn next_due(&self) -> Option<Instant> {
        let desks = self.desks.values().filter_map(|desk| desk.machine.poll_timeout());
        let beats = self.seats.values().filter_map(|seat| seat.machine.poll_timeout());
        let ready = self.seats.values().filter_map(|seat| seat.computing.as_ref().map(|computing| computing.ready));
        desks.chain(beats).chain(ready).min()
    }

    fn fire(&mut self) {
        for name in self.workers() {
            let seat = self.seats.get_mut(&name).unwrap();
            if seat.computing.as_ref().is_some_and(|computing| computing.ready <= self.now) {
                let Computing { key, unit, input, conditioning, .. } = seat.computing.take().unwrap();
                let result = result(&seat.temper, &unit, &input, conditioning.as_deref());
                if let Some(result) = result {
                    seat.machine.handle_computed(&key, result, seat.unit_time.as_millis() as u32, self.now);
                    self.computed.push(key.requester);
                }
            }
            seat.machine.handle_timeout(self.now);
            self.drain_worker(&name);
        }
        for name in self.desks.keys().cloned().collect::<Vec<_>>() {
            self.desks.get_mut(&name).unwrap().machine.handle_timeout(self.now);
            self.drain_requester(&name);
        }
    }

    fn drain_worker(&mut self, name: &PeerId) {
        let seat = self.seats.get_mut(name).unwrap();
        while let Some(output) = seat.machine.poll_output() {
            match output {
                WorkerOutput::Send { to, message, body } => {
                    if seat.temper != Temper::Silent || matches!(message, ToRequester::Offer(_)) {
                        let link = self.links.entry((name.clone(), to)).or_default();
                        link.push_back((Message::ToRequester(message), body));
                    }
                }
                WorkerOutput::Compute { key, unit, input, conditioning } => {
                    assert!(seat.computing.is_none(), "one unit is computed at a time");
                    let ready = self.now + seat.unit_time;
                    seat.computing = Some(Computing { ready, key, unit, input, conditioning });
                }
                WorkerOutput::Abort { .. } => {} // The toy engine cannot be interrupted.
            }
        }
    }

    fn drain_requester(&mut self, name: &PeerId) {
        let desk = self.desks.get_mut(name).unwrap();
        while let Some(output) = desk.machine.poll_output() {
            match output {
                RequesterOutput::Send { to, message, body } => {
                    if let ToWorker::Assign { lease, .. } = &message {
                        assert!(desk.leases.insert(*lease), "{lease} is granted twice");
                        self.assigned.push((name.clone(), to.clone()));
                    }
                    let link = self.links.entry((name.clone(), to)).or_default();
                    link.push_back((Message::ToWorker(message), body.to_vec()));
                }
                RequesterOutput::Delivered { job, unit, by, body, .. } => {
                    let painting = desk.paintings.get_mut(&job).unwrap();
                    painting.accept(unit, body);
                    painting.workers.insert(by);
                }
                RequesterOutput::StageDone { job } => {
                    let painting = desk.paintings.get_mut(&job).unwrap();
                    painting.advance();
                    if painting.finished.is_some() {
                        desk.machine.cancel(job, self.now);
                    } else {
                        desk.snapshots.entry(job).or_default().push(painting.clone());
                        let conditioning = painting.conditioning.clone();
                        desk.machine.begin_stage(job, painting.units(), conditioning, &SHAPE, self.now);
                    }
                }
                RequesterOutput::JobFailed { job, reasons, .. } => {
                    desk.paintings.get_mut(&job).unwrap().failed = Some(reasons);
                }
                RequesterOutput::Tainted { job, stage } => {
                    let snapshots = desk.snapshots.get_mut(&job).unwrap();
                    snapshots.retain(|painting| painting.stage() <= stage);
                    let painting = snapshots.last().unwrap().clone();
                    let conditioning = painting.conditioning.clone();
                    desk.machine.begin_stage(job, painting.units(), conditioning, &SHAPE, self.now);
                    desk.paintings.insert(job, painting);
                }
                notice @ (RequesterOutput::WorkerPaused { .. }
                | RequesterOutput::WorkerDropped { .. }
                | RequesterOutput::WorkerCondemned { .. }) => self.notices.push(notice),
            }
        }
    }
}

/// What an engine of this temper gives; `None` if it never answers.
fn result(
    temper: &Temper,
    unit: &Unit,
    input: &[u8],
    conditioning: Option<&[u8]>,
) -> Option<Result<Vec<u8>, RefuseReason>> {
    let mut body = compute(&unit.work, input, conditioning);
    match temper {
        Temper::Beating => return None,
        Temper::Refuses(reason) => return Some(Err(reason.clone())),
        Temper::Short => body.truncate(body.len() - 4),
        Temper::NotANumber => body.splice(..4, tensor::to_bytes(&[f32::NAN])).for_each(drop),
        Temper::Lies(by) => {
            let values = tensor::from_bytes(&body, body.len() / 4).unwrap();
            let lie: Vec<f32> = values.iter().map(|value| value + f32::from(*by) / 100.0).collect();
            body = tensor::to_bytes(&lie);
        }
        Temper::Honest | Temper::Silent | Temper::Forgetful => {}
    }
    Some(Ok(body))
}
