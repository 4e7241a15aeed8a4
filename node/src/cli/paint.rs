//! `manyhands paint`: one prompt, one picture.

mod session;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use compute::ModelFolder;
use node::checkpoint::{self, Found, Keeper};
use node::files::Place;
use node::meeting::{self, Means};
use node::report::{Job, PlanReport, Report, Resumed};
use node::{Command, Order, Painted, Participant, Setup, lane, models, picture};
use protocol::{JobRequest, JobSpec, PlanChoice, Policy, RoomLink, Size};
use serde_json::json;

use self::session::Session;
use super::interrupt::Interrupt;
use super::screen::{Screen, Style, plain};
use super::{Complaint, Ended, INTERRUPTED};

/// After the wished number of workers is there, others get this long to be in the plan too.
const SETTLE: Duration = Duration::from_millis(300);

/// Options of `manyhands paint`.
#[derive(Args)]
pub struct Arguments {
    /// What to paint.
    #[arg(required_unless_present = "resume", conflicts_with = "resume")]
    prompt: Option<String>,
    /// The room whose workers help; without one this machine paints alone.
    #[arg(long, value_name = "LINK", env = "MANYHANDS_ROOM")]
    room: Option<String>,
    /// A diffusers folder, or the name of one below a models folder.
    #[arg(long, default_value = "demo", value_name = "DIR|NAME")]
    model: String,
    /// What to keep away from.
    #[arg(long, conflicts_with = "resume", default_value = "", value_name = "TEXT", hide_default_value = true)]
    negative: String,
    /// Picture size in pixels; the model's native size if not given.
    #[arg(long, conflicts_with = "resume", value_name = "WxH")]
    size: Option<String>,
    /// Denoising steps.
    #[arg(long, conflicts_with = "resume", default_value_t = 8)]
    steps: u32,
    /// How strongly to follow the prompt; 1 or less paints without the negative prompt, in half the time.
    #[arg(long, conflicts_with = "resume", default_value_t = 3.0, allow_negative_numbers = true)]
    guidance: f32,
    /// Seed of the noise: the same seed gives the same picture, whoever helps. Random if not given.
    #[arg(long, conflicts_with = "resume")]
    seed: Option<u64>,
    /// How to split the picture. `whole` and `cfg` compute the canvas in one piece, `tiles` in overlapping tiles,
    /// `shifted` in tiles that do not overlap and move in every step; `auto` takes overlapping tiles for pictures larger
    /// than the model's native size.
    #[arg(long, conflicts_with = "resume", value_enum, default_value_t = PlanName::Auto)]
    plan: PlanName,
    /// Where the picture goes; a new name in this folder if not given.
    #[arg(long, value_name = "FILE.png")]
    out: Option<PathBuf>,
    /// Also write who did what, with hashes of latent and pixels.
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    /// Never compute on this machine; wait for the room's workers instead.
    #[arg(long, requires = "room")]
    no_local: bool,
    /// Seconds to wait for workers before painting here (or, with --no-local, giving up).
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    wait: u64,
    /// Begin once this many workers are in the room.
    #[arg(long, default_value_t = 1, value_name = "N")]
    min_workers: usize,
    /// Threads for computing on this machine; all cores if not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Listen on this multiaddress instead of any port of every interface; may be repeated.
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// Reach the room only through its relay.
    #[arg(long, requires = "room")]
    relayed_only: bool,
    /// Go on with a picture whose painting was cut off, where its last checkpoint was written: the newest, or FILE. The
    /// picture is the same as if nothing had happened.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    resume: Option<Option<PathBuf>>,
    /// Where checkpoints are written while painting, instead of a file in this user's folder of program states. It is
    /// removed when the picture is finished.
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    checkpoint: Option<PathBuf>,
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    progress: Style,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PlanName {
    Auto,
    Whole,
    Tiles,
    Shifted,
    Cfg,
}

impl From<PlanName> for PlanChoice {
    fn from(name: PlanName) -> Self {
        match name {
            PlanName::Auto => Self::Auto,
            PlanName::Whole => Self::Whole,
            PlanName::Tiles => Self::Tiles,
            PlanName::Shifted => Self::Shifted,
            PlanName::Cfg => Self::Cfg,
        }
    }
}

/// Paints.
pub async fn run(arguments: Arguments) -> Ended {
    let began = Instant::now();
    let link = arguments.room.as_deref().map(RoomLink::parse).transpose()?;
    let folder = Arc::new(models::open(&arguments.model)?);
    let found = match &arguments.resume {
        None => None,
        Some(None) => Some(checkpoint::newest()?),
        Some(Some(file)) => Some(checkpoint::open(file)?),
    };
    let spec = match &found {
        None => check(&arguments, &folder)?,
        Some(found) => check_found(found, &folder)?,
    };
    let report = arguments.report.as_deref().map(probe).transpose()?;
    let out = match &arguments.out {
        Some(path) => probe(path)?,
        None => fresh_name(spec.seed)?,
    };
    let mut screen = Screen::new(arguments.progress);
    let mut order = Order::new(spec.clone(), folder.shape(), folder.scheduler().clone(), arguments.plan.into());
    order.snapshots = true;
    let resumed = found.as_ref().map(|found| tell_found(found, &screen));
    order.resume = found.as_ref().map(|found| found.snapshot.clone());
    let mut keeper = match (found, &arguments.checkpoint) {
        (Some(found), _) => Some(Keeper::of(found)),
        (None, Some(file)) => Some(Keeper::new(file.clone())),
        (None, None) => Keeper::in_folder(spec.seed),
    };
    let outcome = paint(&arguments, &folder, link.as_ref(), order, &mut screen, &mut keeper).await;
    let kept = keeper.as_ref().map(Keeper::account);
    let painted = match outcome {
        Ok(Some(painted)) => painted,
        Ok(None) => {
            keeper.into_iter().for_each(Keeper::remove);
            return Ok(ExitCode::from(INTERRUPTED));
        }
        Err(Complaint(reason)) => return Err(Complaint(with_way_on(reason, keeper.as_ref()))),
    };
    let png = picture::encode(&painted.pixels, spec.size, &spec, folder.name())?;
    let path = out.path().to_owned();
    write(out, &png)?;
    if let Some(place) = report {
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            job: Job::new(&spec, folder.name()),
            plan: PlanReport::new(&painted.plan),
            workers: painted.workers.clone(),
            condemned: painted.condemned.clone(),
            retries: painted.retries,
            wall_ms: painted.wall_ms,
            resumed,
            kept,
            latent_sha256: painted.latent_sha256.clone(),
            pixels_sha256: painted.pixels_sha256.clone(),
        };
        write(place, serde_json::to_string_pretty(&report)?.as_bytes())?;
    }
    // Only when everything that was asked for is written.
    keeper.into_iter().for_each(Keeper::remove);
    for worker in &painted.workers {
        let name = if worker.local { "this machine".to_owned() } else { plain(&worker.name) };
        screen.say("worker", &format!("{name} ({}): {} units in {} ms", worker.path, worker.units, worker.compute_ms));
    }
    let seconds = began.elapsed().as_secs_f64();
    let text = format!("{} painted in {seconds:.1} s (seed {})", path.display(), spec.seed);
    screen.tell("done", &text, json!({ "out": path, "pixels_sha256": painted.pixels_sha256 }));
    Ok(ExitCode::SUCCESS)
}

/// Checks everything that can be checked before anybody is asked to compute.
fn check(arguments: &Arguments, folder: &ModelFolder) -> Result<JobSpec, Complaint> {
    let shape = folder.shape();
    let side = shape.native_cells * shape.factor;
    let size = match &arguments.size {
        Some(text) => Size::parse(text)
            .ok_or_else(|| Complaint(format!("size {text:?} is not WIDTHxHEIGHT, for example {side}x{side}")))?,
        None => Size { width: side, height: side },
    };
    let request = JobRequest {
        prompt: arguments.prompt.clone().unwrap_or_default(),
        negative: arguments.negative.clone(),
        size,
        steps: arguments.steps,
        guidance: arguments.guidance,
        seed: arguments.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
        plan: arguments.plan.into(),
    };
    let spec = JobSpec::new(request, folder.id(), &shape)?;
    for (what, text) in [("prompt", &spec.prompt), ("negative prompt", &spec.negative)] {
        if let Some(excess) = folder.excess(text) {
            let tokens = shape.tokens;
            return Err(Complaint(format!(
                "the {what} is longer than the {tokens} tokens this model reads; \"{excess}\" would be cut: shorten it"
            )));
        }
    }
    Ok(spec)
}

/// The job of a checkpoint, if it is one of this model.
fn check_found(found: &Found, folder: &ModelFolder) -> Result<JobSpec, Complaint> {
    let (spec, path) = (found.snapshot.spec(), found.path.display());
    if spec.model != folder.id() {
        let name = folder.name();
        return Err(Complaint(format!(
            "the picture of {path} is painted by model {}, and {name} is another; give its --model",
            spec.model
        )));
    }
    spec.check(&folder.shape())?;
    Ok(spec.clone())
}

fn tell_found(found: &Found, screen: &Screen) -> Resumed {
    let (kept, steps) = (found.snapshot.steps_done().unwrap_or(0), found.snapshot.spec().steps);
    let text = format!("Going on from step {kept} of {steps} of {}.", found.path.display());
    screen.tell("resumed", &text, json!({ "steps_kept": kept, "steps": steps }));
    Resumed { steps_kept: kept, steps_again: found.steps_again() }
}

/// A reason why the picture was not finished, with what can be done if some of it is kept.
fn with_way_on(reason: String, keeper: Option<&Keeper>) -> String {
    match keeper.and_then(Keeper::kept) {
        Some(kept) => format!("{reason}; `manyhands paint --resume` goes on from step {kept}"),
        None => reason,
    }
}

fn probe(path: &Path) -> Result<Place, Complaint> {
    Place::probe(path).map_err(|error| Complaint(format!("cannot write {}: {error}", path.display())))
}

fn write(place: Place, content: &[u8]) -> Result<(), Complaint> {
    let path = place.path().to_owned();
    place.write(content).map_err(|error| {
        Complaint(format!(
            "cannot write {}: {error}; free space or choose another place, and paint again",
            path.display()
        ))
    })
}

/// `manyhands-SEED.png`, or the first `manyhands-SEED-N.png` that is free.
fn fresh_name(seed: u64) -> Result<Place, Complaint> {
    for attempt in 1..1000 {
        let suffix = if attempt == 1 { String::new() } else { format!("-{attempt}") };
        let path = PathBuf::from(format!("manyhands-{seed}{suffix}.png"));
        match Place::reserve(&path) {
            Ok(place) => return Ok(place),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Complaint(format!("cannot write {}: {error}", path.display()))),
        }
    }
    Err(Complaint("there are a thousand pictures of this seed here; give --out".into()))
}

/// Paints with the room, or `None` if the person gave up.
async fn paint(
    arguments: &Arguments,
    folder: &Arc<ModelFolder>,
    link: Option<&RoomLink>,
    order: Order,
    screen: &mut Screen,
    keeper: &mut Option<Keeper>,
) -> Result<Option<Painted>, Complaint> {
    let began = Instant::now();
    let threads = arguments.threads.unwrap_or_else(all_cores);
    let network = match link {
        Some(link) => {
            let (listen, relayed_only) = (arguments.listen.clone(), arguments.relayed_only);
            let means = Means { listen, relayed_only, ..Means::default() };
            Some(net::start(meeting::configure(link, &means).await?).await?)
        }
        None => None,
    };
    let setup = Setup {
        network,
        me: None,
        name: "painter".into(),
        engine: (!arguments.no_local).then(|| {
            let threads_told = u32::try_from(threads).unwrap_or(u32::MAX);
            lane::start(models::engine(folder.clone(), threads), threads_told)
        }),
        lend: false,
        patience: Duration::from_secs(arguments.wait),
        policy: link.map_or_else(Policy::default, |link| link.policy),
    };
    let (participant, commands, mut notices) = Participant::new(setup);
    let running = tokio::spawn(participant.run());
    let mut session = Session {
        commands,
        notices: &mut notices,
        screen,
        interrupt: Interrupt::listen()?,
        model: folder.id(),
        names: BTreeMap::new(),
        keeper,
    };
    let outcome = session.paint(arguments, link.is_some(), order, began).await;
    let _ = session.commands.send(Command::Stop).await;
    let _ = running.await;
    outcome
}

fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
