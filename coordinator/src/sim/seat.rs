//! A worker's driver: the machine, an engine that takes its time, and a temper between the machine and the world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::limits::WORKER_QUEUE_MAX;
use protocol::{Capabilities, Instant, PeerId, Pilot, RefuseReason, ToRequester, ToWorker, Unit};

use crate::sim::audit::Broken;
use crate::sim::rng::Rng;
use crate::sim::setup::Lender;
use crate::sim::temper::{Actor, Temper};
use crate::sim::toy::{SHAPE, model};
use crate::worker::{LeaseKey, Worker, WorkerOutput};

/// A worker, its engine and its behaviour.
pub struct Seat {
    /// Its name.
    pub name: PeerId,
    /// As it was drawn.
    pub lender: Lender,
    /// The machine, while its process runs.
    machine: Option<Worker>,
    actor: Actor,
    rng: Rng,
    /// What its engine works on.
    task: Option<Task>,
    /// Until when its process stands still, and its engine hangs.
    pub frozen_until: Instant,
    hung_until: Instant,
    /// What the driver has to carry.
    mail: Vec<(PeerId, ToRequester, Arc<[u8]>)>,
    /// Units its engine has begun.
    pub units_begun: u64,
}

struct Task {
    key: LeaseKey,
    unit: Box<Unit>,
    input: Vec<u8>,
    conditioning: Option<Arc<[u8]>>,
    begun: Instant,
    /// `None` if it never ends by itself.
    ends: Option<Instant>,
    is_aborted: bool,
}

impl Seat {
    /// A worker whose process does not run yet.
    pub fn new(name: PeerId, lender: Lender, seed: u64) -> Self {
        let rng = Rng::new(seed, name.as_str());
        Self {
            actor: Actor::new(lender.temper, Rng::new(seed ^ 1, name.as_str()), lender.class),
            name,
            lender,
            machine: None,
            rng,
            task: None,
            frozen_until: Instant::ZERO,
            hung_until: Instant::ZERO,
            mail: Vec::new(),
            units_begun: 0,
        }
    }

    /// Starts the process.
    pub fn start(&mut self) {
        self.machine = Some(Worker::new(capabilities(&self.lender), BTreeMap::from([(model(), SHAPE)])));
    }

    /// Ends the process without a word.
    pub fn stop(&mut self) {
        self.machine = None;
        self.task = None;
        self.mail.clear();
        self.frozen_until = Instant::ZERO;
        self.hung_until = Instant::ZERO;
    }

    /// Whether the process runs.
    pub fn runs(&self) -> bool {
        self.machine.is_some()
    }

    /// A requester is connected.
    pub fn join(&mut self, peer: &PeerId, now: Instant) {
        let local = self.lender.clock.at(now);
        if let Some(machine) = &mut self.machine {
            machine.handle_joined(peer.clone(), local);
            if *peer == self.name {
                machine.prefer(peer);
            }
        }
        self.drain(now);
    }

    /// A requester's connection is gone.
    pub fn leave(&mut self, peer: &PeerId, now: Instant) {
        let local = self.lender.clock.at(now);
        if let Some(machine) = &mut self.machine {
            machine.handle_left(peer, local);
        }
        self.drain(now);
    }

    /// Says goodbye to everybody.
    pub fn say_goodbye(&mut self, now: Instant) {
        let local = self.lender.clock.at(now);
        if let Some(machine) = &mut self.machine {
            machine.leave(local);
        }
        self.drain(now);
    }

    /// A requester says something.
    pub fn hear(&mut self, from: &PeerId, message: ToWorker, body: &[u8], now: Instant) {
        let local = self.lender.clock.at(now);
        if let Some(machine) = self.machine.as_mut().filter(|_| self.actor.hears(&message)) {
            machine.handle(from, message, body.to_vec(), local);
        }
        self.drain(now);
    }

    /// Time has passed: a heart beats, or the engine answers.
    pub fn wake(&mut self, now: Instant) {
        let local = self.lender.clock.at(now);
        let is_answered = self.task.as_ref().is_some_and(|task| task.ends.is_some_and(|ends| ends <= now));
        if let Some(task) = self.task.take_if(|_| is_answered) {
            self.answer(task, now);
        }
        if let Some(machine) = &mut self.machine {
            machine.handle_timeout(local);
        }
        self.drain(now);
    }

    /// When to wake it, in true time.
    pub fn due(&self) -> Option<Instant> {
        let beat = self.machine.as_ref().and_then(Worker::poll_timeout).map(|due| self.lender.clock.when(due));
        let ends = self.task.as_ref().and_then(|task| task.ends);
        beat.into_iter().chain(ends).min()
    }

    /// Its engine hangs until then, and whatever it works on takes as much longer.
    pub fn hang(&mut self, until: Instant, now: Instant) {
        self.hung_until = self.hung_until.max(until);
        if let Some(ends) = self.task.as_mut().and_then(|task| task.ends.as_mut()) {
            *ends = *ends + (until - now);
        }
    }

    /// What it wants to be carried.
    pub fn take_mail(&mut self) -> Vec<(PeerId, ToRequester, Arc<[u8]>)> {
        std::mem::take(&mut self.mail)
    }

    /// Checks that its memory is within the caps.
    pub fn check_bounds(&self) -> Result<(), Broken> {
        let held = self.machine.as_ref().map_or(0, Worker::leases_held);
        if held > WORKER_QUEUE_MAX + 1 {
            return Err(Broken::new("I10", format!("{} holds {held} leases", self.name)));
        }
        Ok(())
    }

    /// Leases that wait or run.
    pub fn leases_held(&self) -> usize {
        self.machine.as_ref().map_or(0, Worker::leases_held)
    }

    fn answer(&mut self, task: Task, now: Instant) {
        let Some(machine) = &mut self.machine else { return };
        let local = self.lender.clock.at(now);
        let took = self.lender.clock.measure(now - task.begun);
        if task.is_aborted {
            return machine.handle_computed(&task.key, Err(RefuseReason::failed("aborted")), 0, local);
        }
        let (answer, compute_ms) = self.actor.answer(&task.unit, &task.input, task.conditioning.as_deref(), took);
        match answer {
            Some(result) => machine.handle_computed(&task.key, result, compute_ms, local),
            None => self.task = Some(Task { ends: None, ..task }),
        }
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.machine.as_mut().and_then(Worker::poll_output) {
            match output {
                WorkerOutput::Send { to, message, body } => {
                    let said = self.actor.say(message, body.into());
                    self.mail.extend(said.into_iter().map(|(message, body)| (to.clone(), message, body)));
                }
                WorkerOutput::Compute { key, unit, input, conditioning } => {
                    self.begin(key, unit, input, conditioning, now);
                }
                WorkerOutput::Abort { key } => self.abort(&key, now),
            }
        }
    }

    fn begin(&mut self, key: LeaseKey, unit: Box<Unit>, input: Vec<u8>, conditioning: Option<Arc<[u8]>>, now: Instant) {
        self.units_begun += 1;
        let honest = self.unit_time(&unit);
        let takes = self.actor.work_time(honest);
        let ends = now.max(self.hung_until) + takes;

        self.task = Some(Task { key, unit, input, conditioning, begun: now, ends: Some(ends), is_aborted: false });
    }

    /// An engine looks between blocks whether it is still wanted.
    fn abort(&mut self, key: &LeaseKey, now: Instant) {
        let Some(task) = self.task.as_mut().filter(|task| task.key == *key) else { return };
        task.is_aborted = true;
        let soon = now.max(self.hung_until) + (now - task.begun) / 8 + Duration::from_millis(1);
        task.ends = Some(task.ends.map_or(soon, |ends| ends.min(soon)));
    }

    fn unit_time(&mut self, unit: &Unit) -> Duration {
        let micros = (unit.work.cost(&SHAPE) * 1_000_000 / self.lender.speed).max(1);
        let slower = self.rng.within([0, self.lender.jitter]);
        Duration::from_micros(micros + micros * slower / 100)
    }
}

/// What it says of itself: an honest worker has measured what it claims.
fn capabilities(lender: &Lender) -> Capabilities {
    let boast = if lender.temper == Temper::Boasts { 1000 } else { 1 };
    let pilot = Pilot { model: model(), nanoseconds_per_cost: 1_000_000_000 / lender.speed / boast };
    let class = format!("class{}", lender.class);
    Capabilities { pilots: vec![pilot], ..Capabilities::new(format!("worker {}", lender.number), class) }
}
