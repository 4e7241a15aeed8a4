//! What coordinating costs: processor time of a requester and of its workers for every unit, in memory, without a network.
//!
//! `cargo run -p coordinator --example cost [--release]`. Time is virtual, as are the engines; the machines are driven as
//! `node` drives them, with a look at the clock and at their timers after every event. Only their own calls are timed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use coordinator::{LeaseKey, Policy, Requester, RequesterOutput, Standing, Worker, WorkerOutput};
use protocol::{
    Branches, Capabilities, Hash, Instant, JobId, ModelId, ModelShape, PeerId, ToRequester, ToWorker, Unit, UnitId,
    Work,
};

/// Units of one measurement.
const UNITS: u32 = 20_000;

/// Units of one stage: a picture of 48 tiles with two guidance branches.
const STAGE_UNITS: u32 = 96;

/// What a unit takes, and what each way to a worker takes.
const UNIT_TIME: Duration = Duration::from_millis(50);
const WAY_TIME: Duration = Duration::from_millis(1);

/// A region of 32 x 32 cells is 32 KiB on the wire.
const SHAPE: ModelShape =
    ModelShape { latent_channels: 8, factor: 8, native_cells: 32, tokens: 16, embedding_width: 16 };

/// Measurements of each room, the fastest of which counts: what else the machine does only adds.
const RUNS: usize = 3;

fn main() {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    println!("{profile} profile, {UNITS} units in stages of {STAGE_UNITS}, load {}", load());
    for (policy, name) in [(Policy::Friends, "friends"), (Policy::Open, "open")] {
        for workers in [4, 16, 64] {
            for cells in [32, 4] {
                let runs = (0..RUNS).map(|_| World::new(workers, policy, cells).run());
                let best = runs.min_by_key(|costs| costs.requester).expect("it ran at least once");
                let micros = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(UNITS);
                println!(
                    "{name} workers {workers} unit {} B: requester {:.1} us a unit, workers {:.1} us a unit, {:.1} events a unit",
                    4 * SHAPE.latent_channels * cells * cells,
                    micros(best.requester),
                    micros(best.workers),
                    f64::from(best.events) / f64::from(UNITS),
                );
            }
        }
    }
    println!("load {}", load());
}

/// What a run took.
#[derive(Default)]
struct Costs {
    requester: Duration,
    workers: Duration,
    events: u32,
}

/// What happens, and where.
enum Event {
    ToWorker(usize, ToWorker, Arc<[u8]>),
    ToRequester(usize, ToRequester, Vec<u8>),
    Computed(usize, LeaseKey),
    Timer,
}

struct World {
    requester: Requester,
    workers: Vec<(PeerId, Worker)>,
    index: BTreeMap<PeerId, usize>,
    /// What happens when; a number keeps what happens at once in order.
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    events: BTreeMap<u64, Event>,
    numbered: u64,
    now: Instant,
    stage: u32,
    delivered: u32,
    cells: u32,
    input: Arc<[u8]>,
    output: Vec<u8>,
    conditioning: (Hash, Arc<[u8]>),
    costs: Costs,
}

const JOB: JobId = JobId([1; 16]);

impl World {
    fn new(workers: usize, policy: Policy, cells: u32) -> Self {
        let model = model();
        let peer = |index: usize| PeerId::new(format!("worker{index:03}")).expect("a plain word is a peer id");
        let lend = |index| {
            let capabilities = Capabilities::new(format!("worker {index}"), "fake");
            (peer(index), Worker::new(capabilities, BTreeMap::from([(model, SHAPE)])))
        };
        let workers: Vec<_> = (0..workers).map(lend).collect();
        let index = workers.iter().enumerate().map(|(index, (peer, _))| (peer.clone(), index)).collect();
        let values: Vec<f32> = (0..SHAPE.latent_channels * cells * cells).map(|value| (value % 97) as f32).collect();
        let conditioning: Arc<[u8]> = protocol::tensor::to_bytes(&[0.0; 16 * 16]).into();
        Self {
            requester: Requester::new(policy, 1),
            workers,
            index,
            due: BinaryHeap::new(),
            events: BTreeMap::new(),
            numbered: 0,
            now: Instant::ZERO,
            stage: 0,
            delivered: 0,
            cells,
            input: vec![0; 4 * values.len()].into(),
            output: protocol::tensor::to_bytes(&values),
            conditioning: (Hash::of(&conditioning), conditioning),
            costs: Costs::default(),
        }
    }

    fn run(mut self) -> Costs {
        let me = PeerId::new("requester").expect("a plain word is a peer id");
        for index in 0..self.workers.len() {
            let peer = self.workers[index].0.clone();
            self.requester.handle_joined(peer.clone(), Standing::alone(&peer), self.now);
            self.workers[index].1.handle_joined(me.clone(), self.now);
            self.carry_worker(index);
        }
        self.requester.begin_job(JOB, model(), self.now);
        self.begin_stage();
        self.settle();
        while self.delivered < UNITS {
            let Reverse((at, number)) = self.due.pop().expect("a job that is not done waits for something");
            self.now = at;
            let event = self.events.remove(&number).expect("what is due is there once");
            self.costs.events += 1;
            match event {
                Event::ToWorker(index, message, body) => {
                    let body = body.to_vec();
                    self.at_worker(index, |worker, now| worker.handle(&me, message, body, now));
                }
                Event::ToRequester(index, message, body) => {
                    let from = self.workers[index].0.clone();
                    self.at_requester(|requester, now| requester.handle(&from, message, body, now));
                }
                Event::Computed(index, key) => {
                    let output = Ok(self.output.clone());
                    let millis = UNIT_TIME.as_millis() as u32;
                    self.at_worker(index, |worker, now| worker.handle_computed(&key, output, millis, now));
                }
                Event::Timer => {}
            }
            self.settle();
        }
        self.costs
    }

    fn at_requester<T>(&mut self, act: impl FnOnce(&mut Requester, Instant) -> T) -> T {
        let began = Clock::now();
        let done = act(&mut self.requester, self.now);
        self.costs.requester += began.elapsed();
        done
    }

    fn at_worker(&mut self, index: usize, act: impl FnOnce(&mut Worker, Instant)) {
        let began = Clock::now();
        let worker = &mut self.workers[index].1;
        act(worker, self.now);
        worker.handle_timeout(self.now);
        let timer = worker.poll_timeout();
        self.costs.workers += began.elapsed();
        self.carry_worker(index);
        if let Some(at) = timer {
            self.wake(at);
        }
    }

    /// What the loop of a node does after every event.
    fn settle(&mut self) {
        self.at_requester(Requester::handle_timeout);
        while let Some(output) = self.at_requester(|requester, _| requester.poll_output()) {
            match output {
                RequesterOutput::Send { to, message, body } => {
                    let index = self.index[&to];
                    self.later(WAY_TIME, Event::ToWorker(index, message, body));
                }
                RequesterOutput::Delivered { .. } => self.delivered += 1,
                RequesterOutput::StageDone { .. } => self.begin_stage(),
                other => panic!("nothing fails here: {other:?}"),
            }
        }
        if let Some(at) = self.at_requester(|requester, _| requester.poll_timeout()) {
            self.wake(at);
        }
    }

    fn carry_worker(&mut self, index: usize) {
        let mut outputs = Vec::new();
        let began = Clock::now();
        while let Some(output) = self.workers[index].1.poll_output() {
            outputs.push(output);
        }
        self.costs.workers += began.elapsed();
        for output in outputs {
            match output {
                WorkerOutput::Send { message, body, .. } => {
                    self.later(WAY_TIME, Event::ToRequester(index, message, body));
                }
                WorkerOutput::Compute { key, .. } => self.later(UNIT_TIME, Event::Computed(index, key)),
                WorkerOutput::Abort { .. } => {} // It is computed to its end, as a short unit is.
            }
        }
    }

    fn begin_stage(&mut self) {
        let stage = self.stage;
        self.stage += 1;
        let work = || Work::Denoise {
            conditioning: self.conditioning.0,
            conditioning_rows: 1,
            branches: Branches::Prompt,
            timestep: 500.0,
            rows: self.cells,
            columns: self.cells,
        };
        let unit = |index| Unit { job: JOB, id: UnitId { stage, index }, model: model(), work: work() };
        let units = (0..STAGE_UNITS).map(|index| (unit(index), self.input.clone())).collect();
        let conditioning = Some(self.conditioning.clone());
        self.at_requester(|requester, now| requester.begin_stage(JOB, units, conditioning, &SHAPE, now));
    }

    fn later(&mut self, wait: Duration, event: Event) {
        let at = self.now + wait;
        self.schedule(at, event);
    }

    /// Looks at the timers again then, if nothing happens before.
    fn wake(&mut self, at: Instant) {
        let is_next = self.due.peek().is_none_or(|Reverse((next, _))| at < *next);
        if is_next && at > self.now {
            self.schedule(at, Event::Timer);
        }
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.numbered += 1;
        self.due.push(Reverse((at, self.numbered)));
        self.events.insert(self.numbered, event);
    }
}

fn model() -> ModelId {
    ModelId(Hash::of(b"the fake model of bench"))
}

/// The machine's load averages, where it tells them.
fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}
