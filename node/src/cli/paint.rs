//! `manyhands paint`: one prompt, one picture.

mod gallery;
mod session;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use compute::ModelFolder;
use node::checkpoint::{self, Found, Keeper};
use node::meeting::{self, Means};
use node::report::Resumed;
use node::{Command, Order, Participant, Setup, lane, models};
use protocol::limits::IMAGES_MAX;
use protocol::{JobRequest, JobSpec, PlanChoice, Policy, RoomLink, Size};
use serde_json::json;

use self::gallery::Gallery;
use self::session::Session;
use super::interrupt::Interrupt;
use super::screen::{Screen, Style};
use super::{Complaint, Ended, INTERRUPTED};

/// Paints where no other model is named.
const DEFAULT_MODEL: &str = "demo";

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
    #[arg(long, default_value = DEFAULT_MODEL, value_name = "DIR|NAME")]
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
    /// Paint so many pictures: of this seed, the next one, and so on, in files numbered from 1.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(IMAGES_MAX)))]
    #[arg(conflicts_with_all = ["resume", "checkpoint"])]
    count: u32,
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
    /// removed when the picture is finished, or given up before its first step is kept.
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    checkpoint: Option<PathBuf>,
    /// Ask this STUN server how this machine is seen from outside, to be reached directly behind a NAT; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]", requires = "room", conflicts_with = "relayed_only")]
    stun: Vec<String>,
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
    let places = (arguments.out.as_deref(), arguments.report.as_deref());
    let mut gallery = Gallery::open(folder.name(), places.0, places.1, (spec.seed, arguments.count), began)?;
    let mut screen = Screen::new(arguments.progress);
    let mut order = Order::new(spec.clone(), folder.shape(), folder.scheduler().clone(), arguments.plan.into());
    order.images = arguments.count;
    // Of several pictures none is kept: what is finished is written at once.
    order.snapshots = arguments.count == 1;
    gallery.resumed = found.as_ref().map(|found| tell_found(found, &screen));
    order.resume = found.as_ref().map(|found| found.snapshot.clone());
    let mut keeper = match (found, &arguments.checkpoint) {
        _ if !order.snapshots => None,
        (Some(found), _) => Some(Keeper::of(found)),
        (None, Some(file)) => Some(Keeper::new(file.clone())),
        (None, None) => Keeper::in_folder(spec.seed),
    };
    let outcome = paint(&arguments, &folder, link.as_ref(), order, &mut screen, (&mut keeper, &mut gallery)).await;
    let way_on = keeper.as_ref().and_then(|keeper| way_on(keeper, &arguments.model));
    match outcome {
        Err(Complaint(reason)) => {
            let way_on = way_on.map_or_else(String::new, |way_on| format!("; {way_on}"));
            Err(Complaint(format!("{reason}{way_on}")))
        }
        Ok(true) => {
            keeper.into_iter().for_each(Keeper::remove);
            Ok(ExitCode::SUCCESS)
        }
        Ok(false) => {
            // A person may want to go on after all, and so may one whose machine was shut down.
            match way_on {
                Some(way_on) => screen.say("kept", &format!("What is painted is kept: {way_on}.")),
                None => keeper.into_iter().for_each(Keeper::remove),
            }
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
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
    Ok(models::check(folder, request)?)
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

/// How a painting that was not finished can be gone on with, if a step of it is kept.
fn way_on(keeper: &Keeper, model: &str) -> Option<String> {
    let kept = keeper.kept().filter(|kept| *kept > 0)?;
    let model = if model == DEFAULT_MODEL { String::new() } else { format!(" --model {model}") };
    Some(format!("`manyhands paint --resume {}{model}` goes on from step {kept}", keeper.path().display()))
}

/// Paints with the room; `false` if the person gave up.
async fn paint(
    arguments: &Arguments,
    folder: &Arc<ModelFolder>,
    link: Option<&RoomLink>,
    order: Order,
    screen: &mut Screen,
    (keeper, gallery): (&mut Option<Keeper>, &mut Gallery),
) -> Result<bool, Complaint> {
    let began = Instant::now();
    let threads = arguments.threads.unwrap_or_else(all_cores);
    let network = match link {
        Some(link) => {
            let (listen, relayed_only) = (arguments.listen.clone(), arguments.relayed_only);
            let ice_servers = arguments.stun.iter().map(|host| net::IceServer::stun(host)).collect();
            let means = Means { listen, relayed_only, ice_servers };
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
        gallery,
    };
    let outcome = session.paint(arguments, link.is_some(), order, began).await;
    let _ = session.commands.send(Command::Stop).await;
    let _ = running.await;
    outcome
}

fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
