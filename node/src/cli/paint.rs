//! `manyhands paint`: one prompt, one picture.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use compute::ModelFolder;
use node::files::Place;
use node::meeting::{self, Means};
use node::report::{Job, PlanReport, Report};
use node::{Command, Notice, Order, Painted, Participant, Setup, lane, models, picture};
use protocol::{Capabilities, JobRequest, JobSpec, ModelId, PeerId, PlanChoice, Policy, RoomLink, Size};
use serde_json::json;
use tokio::sync::mpsc;

use super::interrupt::Interrupt;
use super::screen::{Screen, Style, plain};
use super::{Complaint, Ended, INTERRUPTED};

/// After the wished number of workers is there, others get this long to be in the plan too.
const SETTLE: Duration = Duration::from_millis(300);

/// Options of `manyhands paint`.
#[derive(Args)]
pub struct Arguments {
    /// What to paint.
    prompt: String,
    /// The room whose workers help; without one this machine paints alone.
    #[arg(long, value_name = "LINK", env = "MANYHANDS_ROOM")]
    room: Option<String>,
    /// A diffusers folder, or the name of one below a models folder.
    #[arg(long, default_value = "demo", value_name = "DIR|NAME")]
    model: String,
    /// What to keep away from.
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    negative: String,
    /// Picture size in pixels; the model's native size if not given.
    #[arg(long, value_name = "WxH")]
    size: Option<String>,
    /// Denoising steps.
    #[arg(long, default_value_t = 8)]
    steps: u32,
    /// How strongly to follow the prompt; 1 or less paints without the negative prompt, in half the time.
    #[arg(long, default_value_t = 3.0, allow_negative_numbers = true)]
    guidance: f32,
    /// Seed of the noise: the same seed gives the same picture, whoever helps. Random if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How to split the picture. `whole` and `cfg` compute the canvas in one piece, `tiles` in overlapping tiles; `auto`
    /// takes tiles for pictures larger than the model's native size.
    #[arg(long, value_enum, default_value_t = PlanName::Auto)]
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
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    progress: Style,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PlanName {
    Auto,
    Whole,
    Tiles,
    Cfg,
}

impl From<PlanName> for PlanChoice {
    fn from(name: PlanName) -> Self {
        match name {
            PlanName::Auto => Self::Auto,
            PlanName::Whole => Self::Whole,
            PlanName::Tiles => Self::Tiles,
            PlanName::Cfg => Self::Cfg,
        }
    }
}

/// Paints.
pub async fn run(arguments: Arguments) -> Ended {
    let began = Instant::now();
    let link = arguments.room.as_deref().map(RoomLink::parse).transpose()?;
    let folder = Arc::new(models::open(&arguments.model)?);
    let spec = check(&arguments, &folder)?;
    let report = arguments.report.as_deref().map(probe).transpose()?;
    let out = match &arguments.out {
        Some(path) => probe(path)?,
        None => fresh_name(spec.seed)?,
    };
    let mut screen = Screen::new(arguments.progress);
    let order = Order {
        spec: spec.clone(),
        shape: folder.shape(),
        scheduler: folder.scheduler().clone(),
        plan: arguments.plan.into(),
        preview: Vec::new(),
    };
    let painted = match paint(&arguments, &folder, link.as_ref(), order, &mut screen).await? {
        Some(painted) => painted,
        None => return Ok(ExitCode::from(INTERRUPTED)),
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
            latent_sha256: painted.latent_sha256.clone(),
            pixels_sha256: painted.pixels_sha256.clone(),
        };
        write(place, serde_json::to_string_pretty(&report)?.as_bytes())?;
    }
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
        prompt: arguments.prompt.clone(),
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
    };
    let outcome = session.paint(arguments, link.is_some(), order, began).await;
    let _ = session.commands.send(Command::Stop).await;
    let _ = running.await;
    outcome
}

fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

struct Session<'a> {
    commands: mpsc::Sender<Command>,
    notices: &'a mut mpsc::Receiver<Notice>,
    screen: &'a mut Screen,
    interrupt: Interrupt,
    /// The job's model.
    model: ModelId,
    /// Those who lend it, by the names they gave themselves.
    names: BTreeMap<PeerId, String>,
}

impl Session<'_> {
    async fn paint(
        &mut self,
        arguments: &Arguments,
        in_room: bool,
        order: Order,
        began: Instant,
    ) -> Result<Option<Painted>, Complaint> {
        if !in_room {
            self.command(Command::LendToSelf).await?;
        } else if !self.wait_for_workers(arguments).await? {
            return Ok(None);
        } else if self.names.is_empty() && arguments.no_local {
            return Err(Complaint(format!(
                "no worker with this model came into the room within {} s; open one with `manyhands join LINK`, or drop --no-local",
                arguments.wait
            )));
        } else if self.names.is_empty() {
            self.screen.say("alone", "No worker is in the room; this machine paints alone (--no-local would wait).");
            self.command(Command::LendToSelf).await?;
        }
        let prepare = began.elapsed();
        self.command(Command::Paint(Box::new(order))).await?;
        let mut painted = self.watch().await?;
        if let Some(painted) = &mut painted {
            painted.wall_ms.prepare = u64::try_from(prepare.as_millis()).unwrap_or(u64::MAX);
        }
        Ok(painted)
    }

    /// Waits until enough workers are there or the time is over; `false` if the person gave up.
    async fn wait_for_workers(&mut self, arguments: &Arguments) -> Result<bool, Complaint> {
        let least = arguments.min_workers.max(1);
        self.screen.say("waiting", &format!("Waiting for {least} worker(s), at most {} s.", arguments.wait));
        let mut until = tokio::time::Instant::now() + Duration::from_secs(arguments.wait);
        let mut settling = false;
        loop {
            if self.names.len() >= least && !settling {
                settling = true;
                until = tokio::time::Instant::now() + SETTLE;
            }
            tokio::select! {
                notice = self.notices.recv() => self.note(&notice.ok_or("the node ended")?),
                () = tokio::time::sleep_until(until) => return Ok(true),
                () = self.interrupt.asked() => return Ok(false),
            }
        }
    }

    /// Shows the job until it ends; `None` if the person gave up.
    async fn watch(&mut self) -> Result<Option<Painted>, Complaint> {
        loop {
            let notice = tokio::select! {
                notice = self.notices.recv() => notice.ok_or("the node ended")?,
                () = self.interrupt.asked() => {
                    self.screen.end_bar();
                    self.screen.say("cancelled", "Cancelled; nothing was written.");
                    self.command(Command::Cancel).await?;
                    return Ok(None);
                }
            };
            self.note(&notice);
            match notice {
                Notice::Painted(painted) => {
                    self.screen.end_bar();
                    return Ok(Some(*painted));
                }
                Notice::Failed(reason) => {
                    self.screen.end_bar();
                    return Err(Complaint(reason));
                }
                _ => {}
            }
        }
    }

    /// Shows a notice and keeps the names of those who lend.
    fn note(&mut self, notice: &Notice) {
        match notice {
            Notice::Offered(peer, Capabilities { name, models, .. }) => {
                let name = plain(name);
                if !models.contains(&self.model) {
                    self.screen
                        .say("lacks", &format!("{name} ({}) lends, but does not have this model.", peer.short()));
                } else if self.names.insert(peer.clone(), name.clone()).is_none() {
                    self.screen.say("offered", &format!("{name} ({}) lends its processor.", peer.short()));
                }
            }
            Notice::Left(peer) => {
                if let Some(name) = self.names.remove(peer) {
                    self.screen.say("left", &format!("{name} ({}) left.", peer.short()));
                }
            }
            Notice::Dropped(peer, reason) => {
                self.names.remove(peer);
                self.screen.say("dropped", &format!("{} was dropped: {}.", peer.short(), plain(reason)));
            }
            Notice::Condemned(peer, evidence) => {
                let name = self.names.get(peer).map_or_else(|| peer.short().to_owned(), Clone::clone);
                self.screen.say("condemned", &format!("{name} is not asked any more: {evidence}."));
            }
            Notice::RolledBack { stage } => {
                let what = "What it took part in is painted again";
                self.screen.say("rolled-back", &format!("{what}, from stage {stage} on."));
            }
            Notice::RelayLost => self.screen.say("relay-lost", "The relay is gone; those already met go on."),
            Notice::LocalBegan => self.screen.say("local", "This machine computes."),
            Notice::Planned(plan) => {
                self.screen.say("plan", &plan.explain());
                self.screen.begin_bar();
            }
            Notice::Unit { by, units, done, total, stage } => {
                self.screen.set_total(*total);
                let fields = json!({ "units": units, "by": by.as_str(), "done": done, "total": total });
                self.screen.progress("unit", *done, stage_text(*stage), fields);
            }
            Notice::Listening(_)
            | Notice::Joined(..)
            | Notice::Present(..)
            | Notice::RelayConnected
            | Notice::Painted(_)
            | Notice::Failed(_)
            | Notice::Cancelled
            | Notice::Moved(..)
            | Notice::Withdrew(_)
            | Notice::Preview { .. }
            | Notice::EngineReady(_)
            | Notice::EngineFailed { .. }
            | Notice::Computing(..)
            | Notice::Computed(_)
            | Notice::Delivered(_) => {}
        }
    }

    async fn command(&self, command: Command) -> Result<(), Complaint> {
        self.commands.send(command).await.map_err(|_| Complaint("the node ended".into()))
    }
}

fn stage_text(stage: sampler::Stage) -> String {
    match stage {
        sampler::Stage::Encode => "reading the prompt".into(),
        sampler::Stage::Denoise { step, steps } => format!("step {} of {steps}", step + 1),
        sampler::Stage::Decode => "decoding".into(),
        sampler::Stage::Whole => "painting".into(),
        sampler::Stage::Done => "done".into(),
    }
}
