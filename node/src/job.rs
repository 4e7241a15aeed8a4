//! One job of this participant's own: its painter, its plan and its tally.

use std::collections::BTreeMap;

use coordinator::{Cut, Plan, Requester, Roster, Task};
use protocol::limits::IMAGES_MAX;
use protocol::{Instant, JobId, JobSpec, ModelId, ModelShape, Part, PeerId, PlanChoice, UnitId};
use sampler::{Painter, SchedulerConfig, Snapshot, Stage};
use web_time::Instant as Clock;

use crate::picture::sha256_hex;
use crate::preview::{self, Factors};
use crate::report::{CondemnedReport, Tally, WallTimes, WorkerReport};

/// Beginnings of stages that a painting keeps: enough that little is lost, and no more than some latents of memory.
const EARLIER_MAX: usize = 16;

/// Bytes over libp2p by peer.
pub type Traffic = BTreeMap<PeerId, net::Traffic>;

/// A checked job and what its model says about it.
#[derive(Clone)]
pub struct Order {
    /// What to paint.
    pub spec: JobSpec,
    /// The model's shapes.
    pub shape: ModelShape,
    /// The model's scheduler.
    pub scheduler: SchedulerConfig,
    /// How the person wants it split.
    pub plan: PlanChoice,
    /// How to show the latent between the steps; empty to show nothing.
    pub preview: Factors,
    /// Pictures to be painted: of this seed, the next one, and so on. At most [`IMAGES_MAX`].
    pub images: u32,
    /// Where to go on; a snapshot of another job than `spec` is not asked for.
    pub resume: Option<Snapshot>,
    /// Whether to tell a [`Notice::Snapshot`] when a stage begins.
    pub snapshots: bool,
}

impl Order {
    /// The job of `spec`, from its beginning, without anything shown or kept on the way.
    pub fn new(spec: JobSpec, shape: ModelShape, scheduler: SchedulerConfig, plan: PlanChoice) -> Self {
        Self { spec, shape, scheduler, plan, preview: Vec::new(), images: 1, resume: None, snapshots: false }
    }
}

/// A finished job.
#[derive(Debug)]
pub struct Painted {
    /// What was painted, its seed and its layout included.
    pub spec: JobSpec,
    /// RGB8 rows.
    pub pixels: Vec<u8>,
    /// SHA-256 of the final latent's little-endian f32.
    pub latent_sha256: String,
    /// SHA-256 of the pixels.
    pub pixels_sha256: String,
    /// The plan.
    pub plan: Plan,
    /// Who did what.
    pub workers: Vec<WorkerReport>,
    /// Who gave wrong answers.
    pub condemned: Vec<CondemnedReport>,
    /// Units granted again.
    pub retries: u64,
    /// Wall time by stage.
    pub wall_ms: WallTimes,
}

/// A running job.
pub struct Painting {
    job: JobId,
    order: Order,
    painter: Painter,
    plan: Plan,
    tally: Tally,
    units: u64,
    traffic_before: Traffic,
    begun: Clock,
    stage_begun: Clock,
    /// The painter as it was at the beginning of earlier stages, the earliest first, thinned out as they grow many.
    earlier: Vec<Painter>,
    condemned: Vec<CondemnedReport>,
}

impl Painting {
    /// Plans an order for the workers of `roster`: a painting for each of its pictures. `may_do_it_itself` says whether this
    /// participant may come to lend itself the model.
    pub fn begin(
        mut order: Order,
        roster: &Roster,
        traffic: &Traffic,
        may_do_it_itself: bool,
        now: Instant,
    ) -> Result<Vec<Self>, String> {
        order.images = order.images.clamp(1, IMAGES_MAX);
        let plan = plan(&order, roster, may_do_it_itself, now)?;
        let one = |index: u32| {
            let seed = order.spec.seed.wrapping_add(u64::from(index));
            let spec = JobSpec { seed, ..order.spec.clone() };
            Self::new(Order { spec, ..order.clone() }, plan.clone(), traffic.clone())
        };
        (0..order.images).map(one).collect()
    }

    /// The same picture from its beginning with the next smaller layout, and that layout in words; `None` if its present units
    /// cannot be smaller. It keeps the account of what was done so far.
    pub fn smaller(&self, roster: &Roster, may_do_it_itself: bool, now: Instant) -> Option<(Self, String)> {
        let part = match self.painter.stage() {
            Stage::Denoise { .. } | Stage::Run { .. } => Part::Denoise,
            Stage::Decode => Part::Decode,
            Stage::Whole => Part::Everything,
            Stage::Encode | Stage::Done => return None,
        };
        let Order { spec, shape, .. } = &self.order;
        let layout = spec.layout.smaller(part, spec.size, shape)?;
        let spec = JobSpec { layout, ..spec.clone() };
        let order = Order { spec, images: 1, resume: None, ..self.order.clone() };
        let plan = plan(&order, roster, may_do_it_itself, now).ok()?;
        let anew = Self::new(order, plan, self.traffic_before.clone()).ok()?;
        let side = |cells: Option<u32>| {
            cells.map_or("whole".to_owned(), |cells| format!("in tiles of {} pixels", cells * self.order.shape.factor))
        };
        let decoded = side(layout.decode_tiles.map(|tiling| tiling.tile));
        let words = format!("painted {} and developed {decoded}", side(layout.tiles.side()));
        let (tally, begun) = (self.tally.clone(), self.begun);
        Some((Self { tally, begun, units: self.units, condemned: self.condemned.clone(), ..anew }, words))
    }

    fn new(mut order: Order, plan: Plan, traffic_before: Traffic) -> Result<Self, String> {
        let job = JobId(rand::random());
        let painter = match order.resume.take() {
            None => Painter::new(job, order.spec.clone(), order.shape, &order.scheduler, plan.kind),
            Some(snapshot) => Painter::resume(snapshot, job, order.shape, &order.scheduler, plan.kind),
        };
        let painter = painter.map_err(|error| error.to_string())?;
        let now = Clock::now();
        Ok(Self {
            job,
            order,
            painter,
            plan,
            tally: Tally::default(),
            units: 0,
            traffic_before,
            begun: now,
            stage_begun: now,
            earlier: Vec::new(),
            condemned: Vec::new(),
        })
    }

    /// Hands the present stage's units to `requester`.
    pub fn begin_stage(&self, requester: &mut Requester, now: Instant) {
        let units = self.painter.units().into_iter().map(|unit| {
            let input = self.painter.input(unit.id);
            (unit, input.into())
        });
        let conditioning = self.painter.conditioning().map(|(hash, bytes)| (hash, bytes.into()));
        requester.begin_stage(self.job, units.collect(), conditioning, &self.order.shape, now);
    }

    /// Takes a delivered output, or says what is wrong with it.
    pub fn accept(&mut self, unit: UnitId, by: &PeerId, output: &[u8], compute_ms: u32) -> Result<(), String> {
        self.painter.accept(unit, output).map_err(|error| error.to_string())?;
        self.units += 1;
        let worker = self.tally.worker(by);
        worker.units += 1;
        worker.compute_ms += u64::from(compute_ms);
        Ok(())
    }

    /// Merges the finished stage and goes on to the next.
    pub fn advance(&mut self) {
        let now = Clock::now();
        let stage = self.painter.stage();
        self.remember();
        self.painter.advance();
        self.tally.stage_ended(stage, now - self.stage_begun);
        self.stage_begun = now;
    }

    /// Keeps the present stage's beginning, to come back to.
    fn remember(&mut self) {
        if self.earlier.len() >= EARLIER_MAX {
            // Every second one goes, but for the first: what is far back lies further apart.
            let mut index = 0;
            self.earlier.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
        self.earlier.push(self.painter.beginning());
    }

    /// Goes back to before `stage`: to the latest beginning of a stage that is kept and not later.
    pub fn roll_back(&mut self, stage: u32) {
        if self.painter.stage_index() > stage {
            self.earlier.retain(|painter| painter.stage_index() <= stage);
            self.painter = self.earlier.pop().expect("the first stage is never thrown away");
        }
        self.painter.forget_outputs();
    }

    /// Notes that a worker gave a wrong answer.
    pub fn condemn(&mut self, peer: &PeerId, evidence: &str) {
        self.condemned.push(CondemnedReport { peer: peer.to_string(), evidence: evidence.to_owned() });
    }

    /// Notes that a worker failed a unit.
    pub fn note_failure(&mut self, peer: &PeerId, reason: &str) {
        let worker = self.tally.worker(peer);
        worker.failures += 1;
        worker.failure = Some(reason.to_owned());
    }

    /// Notes how a worker was reached and what it calls itself.
    pub fn note_worker(&mut self, peer: &PeerId, name: &str, path: String) {
        let worker = self.tally.worker(peer);
        name.clone_into(&mut worker.name);
        worker.path = path;
    }

    /// The finished picture and its account.
    pub fn finish(self, traffic: &Traffic, me: &PeerId, retries: u64) -> Painted {
        let pixels = self.painter.pixels().expect("a finished painting has pixels");
        let latent = protocol::tensor::to_bytes(self.painter.latent());
        let paint = self.begun.elapsed();
        let (mut workers, wall_ms) = self.tally.finish(paint);
        for worker in &mut workers {
            worker.local = worker.peer == me.as_str();
            let Some(peer) = PeerId::new(worker.peer.as_str()) else { continue };
            let before = self.traffic_before.get(&peer).copied().unwrap_or_default();
            let after = traffic.get(&peer).copied().unwrap_or_default();
            worker.bytes_in = after.bytes_in.saturating_sub(before.bytes_in);
            worker.bytes_out = after.bytes_out.saturating_sub(before.bytes_out);
        }
        Painted {
            spec: self.order.spec,
            latent_sha256: sha256_hex(&latent),
            pixels_sha256: sha256_hex(&pixels),
            pixels,
            plan: self.plan,
            workers,
            condemned: self.condemned,
            retries,
            wall_ms,
        }
    }

    /// The job's id.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// Its model.
    pub fn model(&self) -> ModelId {
        self.order.spec.model
    }

    /// Its plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether all units of the present stage are in.
    pub fn stage_is_complete(&self) -> bool {
        self.painter.is_stage_complete()
    }

    /// Whether the picture is finished.
    pub fn is_done(&self) -> bool {
        matches!(self.painter.stage(), Stage::Done)
    }

    /// Width, height and RGBA rows of a look at the latent, if the order says how and there is a latent that changes.
    pub fn preview(&self) -> Option<(u32, u32, Vec<u8>)> {
        let (rows, columns) = self.order.spec.size.cells(&self.order.shape);
        let channels = self.order.shape.latent_channels as usize;
        let rgba = preview::rgba(self.painter.latent(), channels, &self.order.preview)?;
        Some((columns, rows, rgba))
    }

    /// The painting as the present stage found it, if the order asks for that.
    pub fn snapshot(&self) -> Option<Snapshot> {
        if self.order.snapshots { self.painter.snapshot() } else { None }
    }

    /// Units accepted, cost done, cost in all.
    pub fn progress(&self) -> (u64, u64, u64) {
        let (done, total) = self.painter.progress();
        (self.units, done, total)
    }

    /// What it is doing.
    pub fn stage(&self) -> Stage {
        self.painter.stage()
    }
}

fn plan(order: &Order, roster: &Roster, may_do_it_itself: bool, now: Instant) -> Result<Plan, String> {
    let (spec, layout) = (&order.spec, order.spec.layout);
    let (rows, columns) = spec.size.cells(&order.shape);
    let tiles = sampler::canvas::step_tile_counts(rows, columns, layout.tiles, spec.seed, spec.steps);
    let decode_tiles = sampler::canvas::tile_count(rows, columns, layout.decode_tiles);
    let cut = Cut { tiles, decode_tiles };
    let task = Task {
        images: order.images,
        steps_done: order.resume.as_ref().and_then(Snapshot::steps_done),
        may_do_it_itself,
        ..Task::new(spec, &order.shape, order.plan, &cut)
    };
    coordinator::plan(&task, roster, now).map_err(|error| error.to_string())
}
