//! `manyhands bench`: the figures behind `cargo xtask bench`, each as one line of JSON.

mod pass;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use compute::{Diffusion, Engine, Fake};
use node::meeting::{self, Means};
use node::{Command, EngineMaker, Notice, Order, Painted, Participant, Setup, models};
use protocol::{
    Branches, Hash, JobId, JobRequest, JobSpec, LeaseId, Message, ModelId, ModelShape, PlanChoice, Policy, RoomLink,
    Size, ToRequester, ToWorker, Unit, UnitId, Work,
};
use sampler::SchedulerConfig;
use serde_json::json;

use super::{Complaint, Ended};

/// The fake model's shapes: a region of 32 x 32 cells is 32 KiB on the wire.
const FAKE_SHAPE: ModelShape =
    ModelShape { latent_channels: 8, factor: 4, native_cells: 32, tokens: 16, embedding_width: 16 };

/// Repetitions of an engine measurement, the fastest of which counts.
const ENGINE_RUNS: usize = 5;

/// Leases whose round trip is timed.
const LEASES: u32 = 2000;

/// A room in which nothing happens for this long is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Options of `manyhands bench`.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    figure: Figure,
}

#[derive(Subcommand)]
enum Figure {
    /// Seconds per guided step and per decode of the demo model.
    Engine,
    /// Seconds of one pass over the demo model's UNet on one thread, and its bytes for other engines.
    Pass(pass::Arguments),
    /// Round trips of single leases of 32 KiB.
    Lease(Room),
    /// Wall time of denoising steps split over the room.
    Split {
        #[command(flatten)]
        room: Room,
        /// The picture's size in pixels.
        #[arg(long, value_parser = size)]
        size: Size,
        /// Denoising steps.
        #[arg(long)]
        steps: u32,
    },
    /// Wall time of units that only wait, without a room: what the machine itself makes of them.
    Wait {
        /// Units.
        #[arg(long)]
        units: u32,
        /// Milliseconds that each takes.
        #[arg(long)]
        unit_ms: u64,
    },
}

#[derive(Args)]
struct Room {
    /// The room of the fake workers.
    #[arg(long)]
    room: String,
    /// How many they are.
    #[arg(long)]
    min_workers: usize,
}

fn size(text: &str) -> Result<Size, &'static str> {
    Size::parse(text).ok_or("a size is WIDTHxHEIGHT")
}

/// Makes a fake engine whose every unit takes `unit`.
pub fn fake_engine(unit: Duration) -> EngineMaker {
    Box::new(move || Ok(Box::new(Fake::new(fake_model(), FAKE_SHAPE, unit)) as Box<dyn Engine>))
}

fn fake_model() -> ModelId {
    ModelId(Hash::of(b"the fake model of bench"))
}

/// Measures one figure.
pub async fn run(arguments: Arguments) -> Ended {
    let figures = match arguments.figure {
        Figure::Engine => engine()?,
        Figure::Pass(arguments) => pass::run(&arguments)?,
        Figure::Lease(room) => lease(&room).await?,
        Figure::Split { room, size, steps } => split(&room, size, steps).await?,
        Figure::Wait { units, unit_ms } => wait(units, Duration::from_millis(unit_ms))?,
    };
    println!("{figures}");
    Ok(ExitCode::SUCCESS)
}

fn engine() -> Result<serde_json::Value, Complaint> {
    let folder = models::open("demo")?;
    let mut engine = Diffusion::load(&folder, std::thread::available_parallelism().map_or(1, usize::from))?;
    let shape = folder.shape();
    let unit = |work| Unit { job: JobId([0; 16]), id: UnitId { stage: 0, index: 0 }, model: folder.id(), work };
    let text = Work::Encode { prompt: "mountains at sunset with a lake".into(), negative: Some(String::new()) };
    let conditioning = engine.compute(&unit(text), &[], None, &|| false)?;
    let mut fastest = |work: Work| -> Result<f64, Complaint> {
        let input = protocol::tensor::to_bytes(&vec![0.5; work.input_values(&shape)]);
        let unit = unit(work);
        let mut best = f64::INFINITY;
        for _ in 0..ENGINE_RUNS {
            let began = Instant::now();
            engine.compute(&unit, &input, Some(&conditioning), &|| false)?;
            best = best.min(began.elapsed().as_secs_f64());
        }
        Ok(best)
    };
    let step = |columns| Work::Denoise {
        conditioning: Hash::of(&conditioning),
        conditioning_rows: 2,
        branches: Branches::Both,
        timestep: 500.0,
        rows: 16,
        columns,
    };
    Ok(json!({
        "step_128x128_s": fastest(step(16))?,
        "step_384x128_s": fastest(step(48))?,
        "decode_128x128_s": fastest(Work::Decode { rows: 16, columns: 16 })?,
        "decode_384x128_s": fastest(Work::Decode { rows: 16, columns: 48 })?,
    }))
}

/// Assigns one region of 32 KiB after the other to one worker, and times each from assignment to delivery.
async fn lease(room: &Room) -> Result<serde_json::Value, Complaint> {
    let (network, mut events) = enter(room).await?;
    let conditioning: Arc<[u8]> = protocol::tensor::to_bytes(&[0.0; 16 * 16]).into();
    let blob = Hash::of(&conditioning);
    let input: Arc<[u8]> = protocol::tensor::to_bytes(&[0.5; 8 * 32 * 32]).into();
    let mut worker = None;
    let mut began = Instant::now();
    let mut times = Vec::new();
    for lease in 0..=LEASES {
        loop {
            match tokio::time::timeout(PATIENCE, events.next()).await?.ok_or("the network ended")? {
                net::Event::Message { from, message: Message::ToRequester(ToRequester::Offer(_)), .. } => {
                    network.send(&from, &Message::ToWorker(ToWorker::Store { blob }), conditioning.clone())?;
                    worker = Some(from);
                    break;
                }
                net::Event::Message { message: Message::ToRequester(ToRequester::Deliver { .. }), .. } => {
                    times.push(began.elapsed().as_secs_f64() * 1000.0);
                    break;
                }
                net::Event::Message { message: Message::ToRequester(ToRequester::Refuse { reason, .. }), .. } => {
                    return Err(Complaint(format!("the worker refused: {reason:?}")));
                }
                _ => {}
            }
        }
        let work = Work::Denoise {
            conditioning: blob,
            conditioning_rows: 1,
            branches: Branches::Prompt,
            timestep: 500.0,
            rows: 32,
            columns: 32,
        };
        let id = UnitId { stage: 0, index: lease };
        let unit = Box::new(Unit { job: JobId([0; 16]), id, model: fake_model(), work });
        let assign = Message::ToWorker(ToWorker::Assign { lease: LeaseId(u64::from(lease)), unit });
        let worker = worker.as_ref().ok_or("a delivery came before any offer")?;
        began = Instant::now();
        network.send(worker, &assign, input.clone())?;
    }
    network.shutdown().await;
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Ok(json!({ "leases": times.len(), "p50_ms": at(0.50), "p99_ms": at(0.99) }))
}

async fn enter(room: &Room) -> Result<(net::Handle, net::Events), Complaint> {
    let link = RoomLink::parse(&room.room)?;
    let means = Means { listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()], ..Means::default() };
    Ok(net::start(meeting::configure(&link, &means).await?).await?)
}

async fn split(room: &Room, size: Size, steps: u32) -> Result<serde_json::Value, Complaint> {
    let mut session = Session::open(room).await?;
    let mut units = 0_u64;
    let before = processor_s();
    let each = |stage| units += u64::from(matches!(stage, sampler::Stage::Denoise { .. }));
    let painted = session.paint(size, steps, each).await?;
    let processor_s = before.zip(processor_s()).map(|(before, after)| after - before);
    session.close().await;
    Ok(json!({ "units": units, "seconds": painted.wall_ms.denoise as f64 / 1000.0, "processor_s": processor_s }))
}

fn wait(units: u32, unit: Duration) -> Result<serde_json::Value, Complaint> {
    let mut engine = fake_engine(unit)()?;
    let work = Work::Decode { rows: 1, columns: 1 };
    let input = protocol::tensor::to_bytes(&vec![0.5; work.input_values(&FAKE_SHAPE)]);
    let unit = Unit { job: JobId([0; 16]), id: UnitId { stage: 0, index: 0 }, model: fake_model(), work };
    let began = Instant::now();
    for _ in 0..units {
        engine.compute(&unit, &input, None, &|| false)?;
    }
    Ok(json!({ "seconds": began.elapsed().as_secs_f64() }))
}

/// Seconds of processor time that this process has used, where the system tells.
fn processor_s() -> Option<f64> {
    // Linux counts in hundredths of a second here; the name before the bracket may hold anything.
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11..13)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    Some(ticks / 100.0)
}

/// A requester in a room of fake workers.
struct Session {
    commands: tokio::sync::mpsc::Sender<Command>,
    notices: tokio::sync::mpsc::Receiver<Notice>,
    running: tokio::task::JoinHandle<()>,
}

impl Session {
    async fn open(room: &Room) -> Result<Self, Complaint> {
        let setup = Setup {
            network: Some(enter(room).await?),
            me: None,
            name: "bench".into(),
            engine: None,
            lend: false,
            patience: Duration::from_secs(30),
            policy: Policy::default(),
        };
        let (participant, commands, mut notices) = Participant::new(setup);
        let running = tokio::spawn(participant.run());
        let mut offered = 0;
        while offered < room.min_workers {
            let notice = tokio::time::timeout(PATIENCE, notices.recv()).await;
            let notice = notice.map_err(|_| Complaint("the workers did not come in time".into()))?;
            offered += usize::from(matches!(notice, Some(Notice::Offered(..))));
        }
        Ok(Self { commands, notices, running })
    }

    /// Paints a picture on the fake model; `each` hears of every accepted unit.
    async fn paint(
        &mut self,
        size: Size,
        steps: u32,
        mut each: impl FnMut(sampler::Stage),
    ) -> Result<Painted, Complaint> {
        let plan = PlanChoice::Tiles;
        // Without guidance there is one way to cut a picture into tiles. With it there are two, which take equally long where
        // every unit costs the same, and chance would choose.
        let request =
            JobRequest { prompt: "bench".into(), negative: String::new(), size, steps, guidance: 1.0, seed: 1, plan };
        let spec = JobSpec::new(request, fake_model(), &FAKE_SHAPE)?;
        let order = Order::new(spec, FAKE_SHAPE, SchedulerConfig::parse(SCHEDULER)?, plan);
        self.commands.send(Command::Paint(Box::new(order))).await.map_err(|_| Complaint("the node ended".into()))?;
        loop {
            match self.notices.recv().await.ok_or("the node ended")? {
                Notice::Unit { stage, .. } => each(stage),
                Notice::Painted(painted) => return Ok(*painted),
                Notice::Failed(reason) => return Err(Complaint(reason)),
                _ => {}
            }
        }
    }

    async fn close(self) {
        let _ = self.commands.send(Command::Stop).await;
        let _ = self.running.await;
    }
}

/// Any schedule will do; this one is the demo model's.
const SCHEDULER: &str = r#"{
    "_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction", "use_flow_sigmas": true,
    "flow_shift": 1.0, "timestep_spacing": "trailing", "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02,
    "num_train_timesteps": 1000, "solver_order": 2, "algorithm_type": "dpmsolver++"
}"#;
