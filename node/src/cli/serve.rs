//! `manyhands serve`: takes whole pictures from a queue.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use node::meeting::{self, Means};
use node::memory::in_words;
use node::models;
use node::serving::{Contract, Ended as How, Helpers, News, Progress, Server, Studio};
use protocol::RoomLink;
use queue::{Model, Owner};
use serde_json::json;
use tokio::sync::mpsc;

use super::interrupt::Interrupt;
use super::screen::{Screen, Style, plain};
use super::{Complaint, Ended, join, setback, supervise};

/// Bytes of the machine's name within a worker's id.
const HOST_BYTES_MAX: usize = 40;

const EXAMPLES: &str = "\
Examples:
  Work for a room of a relay, with the token that the relay's operator gave:
    MANYHANDS_TOKEN=... manyhands serve --queue https://relay.example/v2/ROOM
  With two models, started again after crashes, in at most 12 GB of memory:
    manyhands serve --queue https://relay.example/v2/ROOM --models demo,/srv/models/sd15 --supervise --memory-budget 12GB
  Have a whole room paint each picture, and not this machine:
    manyhands serve --queue https://relay.example/v2/ROOM --room 'LINK' --no-local
  On RunPod no option is needed: its environment says where jobs come from (see deploy/runpod).

Exit codes: 0 after SIGINT or SIGTERM, 2 when it cannot work or the queue refuses it (the reason is one line on standard
error).";

/// Options of `manyhands serve`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The queue: https://RELAY/v2/ROOM. Not needed on RunPod, whose environment says where jobs come from.
    #[arg(long, value_name = "URL", env = "MANYHANDS_QUEUE")]
    queue: Option<String>,
    /// A token with the right to work in the queue's room. Better given by the environment, where other users of this
    /// machine do not see it.
    #[arg(long, value_name = "TOKEN", env = "MANYHANDS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Models to paint with: diffusers folders, or names of folders below a models folder, separated by commas. Jobs that name
    /// no model are painted with the first.
    #[arg(long, visible_alias = "models", default_value = "demo", value_name = "DIR|NAME,...", value_delimiter = ',')]
    model: Vec<String>,
    /// Threads for computing on this machine; all cores if not given.
    #[arg(long)]
    threads: Option<usize>,
    /// What this worker calls itself to the queue; the host's name if not given. A number is added, so that two are told apart.
    #[arg(long)]
    name: Option<String>,
    /// Let this room's workers help with every picture.
    #[arg(long, value_name = "LINK", env = "MANYHANDS_ROOM")]
    room: Option<String>,
    /// Never compute on this machine; only the room does.
    #[arg(long, requires = "room")]
    no_local: bool,
    /// Seconds to wait for the room's workers, at the first job and whenever there is none.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    wait: u64,
    /// Listen on this multiaddress instead of any port of every interface; may be repeated.
    #[arg(long, value_name = "MULTIADDR", requires = "room")]
    listen: Vec<String>,
    /// Reach the room only through its relay.
    #[arg(long, requires = "room")]
    relayed_only: bool,
    /// Ask this STUN server how this machine is seen from outside, to be reached directly behind a NAT; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]", requires = "room", conflicts_with = "relayed_only")]
    stun: Vec<String>,
    /// When asked to end, wait so long for a running picture; then it is handed back to the queue. Asked again, it is handed back
    /// at once.
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    drain: u64,
    #[command(flatten)]
    supervision: supervise::Supervision,
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    progress: Style,
}

/// Serves until asked to end.
pub async fn run(arguments: Arguments) -> Ended {
    let mut screen = Screen::new(arguments.progress);
    let drain = Duration::from_secs(arguments.drain);
    if arguments.supervision.supervise {
        return supervise::run(&arguments.supervision, &screen, drain + supervise::STOP_TIME_MAX).await;
    }
    let folders = arguments.model.iter().map(|name| models::open(name)).collect::<Result<Vec<_>, _>>()?;
    let mut names = Vec::new();
    for folder in &folders {
        let name = Model::new(folder.name()).map_err(|error| {
            Complaint(format!("the model's folder is called {:?}, and {error}; rename it", folder.name()))
        })?;
        if names.contains(&name) {
            return Err(Complaint(format!("two models are called {name}; give each once, or rename a folder")));
        }
        names.push(name);
    }
    let contract = contract(&arguments, &names)?;
    let helpers = helpers(&arguments)?;
    let threads = arguments.threads.unwrap_or_else(all_cores).max(1);
    let mut interrupt = Interrupt::listen()?;
    let opened = tokio::select! {
        opened = Studio::open(folders, threads, helpers.as_ref()) => opened,
        () = interrupt.asked() => return Ok(ExitCode::SUCCESS),
    };
    let mut studio = match opened {
        Ok(studio) => studio,
        Err(reason) => return setback(reason),
    };
    tokio::select! {
        warmed = studio.warm() => warmed?,
        () = interrupt.asked() => return Ok(ExitCode::SUCCESS),
    }
    let all = names.iter().map(Model::as_str).collect::<Vec<_>>();
    let text = format!("Working for {} as {} with {}. Ctrl-C ends.", contract.host(), contract.worker, all.join(", "));
    screen.tell("serving", &text, json!({ "queue": contract.host(), "worker": contract.worker, "models": all }));
    screen.begin_spinner();
    let screen = Arc::new(screen);
    let (ask, asks) = mpsc::channel(1);
    tokio::spawn(pass_on(interrupt, ask, screen.clone(), arguments.drain));
    let tell = {
        let screen = screen.clone();
        Arc::new(move |news| show(&screen, news))
    };
    let served = Server::new(contract, studio, arguments.supervision.budget(), tell).run(asks, drain).await;
    screen.end_bar();
    served?;
    screen.say("leaving", "No more jobs are taken.");
    Ok(ExitCode::SUCCESS)
}

/// The queue that the options name, or else RunPod's environment.
fn contract(arguments: &Arguments, models: &[Model]) -> Result<Contract, Complaint> {
    match &arguments.queue {
        Some(queue) => {
            let worker = worker(arguments.name.clone().unwrap_or_else(join::host_name))?;
            Ok(Contract::relay(queue, arguments.token.as_deref(), &worker, models)?)
        }
        None => Contract::runpod(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
            .ok_or("no queue: give --queue https://RELAY/v2/ROOM and a token, or run this on RunPod")?
            .map_err(Complaint),
    }
}

/// A worker's id: its name and chance, so that two on one machine, or one started again, are told apart.
fn worker(name: String) -> Result<Owner, Complaint> {
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
    let plain: String = name.chars().filter(is_plain).take(HOST_BYTES_MAX).collect();
    let plain = if plain.is_empty() { "worker" } else { &plain };
    Ok(Owner::new(format!("{plain}-{:08x}", rand::random::<u32>()))?)
}

fn helpers(arguments: &Arguments) -> Result<Option<Helpers>, Complaint> {
    let Some(room) = &arguments.room else { return Ok(None) };
    let ice_servers = arguments.stun.iter().map(|host| net::IceServer::stun(host)).collect();
    let means = Means { listen: arguments.listen.clone(), relayed_only: arguments.relayed_only, ice_servers };
    let (link, wait) = (RoomLink::parse(room)?, Duration::from_secs(arguments.wait));
    // What is wrong with the options shows before anybody is asked.
    meeting::configure_with(&link, &[], &means)?;
    Ok(Some(Helpers { link, means, wait, is_local: !arguments.no_local }))
}

/// Passes requests to end on, from whomever they come.
async fn pass_on(mut interrupt: Interrupt, ask: mpsc::Sender<()>, screen: Arc<Screen>, drain_s: u64) {
    interrupt.asked().await;
    let text = format!("Ending; a running picture has {drain_s} s, and is handed back at once if asked again.");
    screen.tell("ending", &text, json!({ "drain_s": drain_s }));
    while ask.send(()).await.is_ok() {
        interrupt.asked().await;
    }
}

fn show(screen: &Screen, news: News) {
    match news {
        News::Trouble(reason) => {
            screen
                .say("trouble", &format!("The queue does not answer as it should: {}. Trying again.", plain(&reason)));
        }
        News::TroubleOver => screen.say("trouble-over", "The queue answers again."),
        News::Took { job } => {
            screen.tell("took", &format!("Took the job {}.", plain(&job)), json!({ "job": job }));
        }
        News::Progress { job, progress: Progress { permille, step, of } } => {
            let fields = json!({ "job": job, "permille": permille, "step": step, "of": of });
            screen.progress("progress", u64::from(permille), format!("step {step} of {of}"), fields);
        }
        News::Ended { job, how } => show_end(screen, &job, how),
        News::Freed { bytes } => {
            let text = format!("The models are freed: {} were held, more than half of the budget.", in_words(bytes));
            screen.tell("freed", &text, json!({ "bytes": bytes }));
        }
    }
}

fn show_end(screen: &Screen, job: &str, how: How) {
    let name = plain(job);
    let (event, text) = match how {
        How::Done { images, milliseconds } => {
            let seconds = milliseconds as f64 / 1000.0;
            let pictures = if images == 1 { "picture".to_owned() } else { format!("{images} pictures") };
            ("done", format!("Delivered the {pictures} of {name} after {seconds:.1} s."))
        }
        // Why may hold words of the prompt, and is told to whoever asked.
        How::Refused => ("refused", format!("The job {name} asks for what is not done here; its sender is told why.")),
        How::Failed(reason) => ("failed", format!("The job {name} fails: {}.", plain(&reason))),
        How::Stopped => ("stopped", format!("The job {name} is not wanted any more.")),
        How::Elsewhere => ("elsewhere", format!("The job {name} is another worker's.")),
        How::HandedBack => ("handed-back", format!("The job {name} is handed back.")),
        How::Lost(reason) => ("lost", format!("What came of the job {name} could not be told: {}.", plain(&reason))),
    };
    screen.tell(event, &text, json!({ "job": job }));
}

fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
