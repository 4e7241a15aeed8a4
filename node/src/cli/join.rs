//! `manyhands join`: lends this machine to a room.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use node::meeting::{self, Means};
use node::{Command, EngineMaker, Notice, Participant, Setup, lane, models};
use protocol::limits::{CAUGHT_TOLD_MAX, NAME_BYTES_MAX};
use protocol::{Activity, PeerId, RoomLink};
use serde_json::json;
use tokio::sync::mpsc;

use super::interrupt::Interrupt;
use super::screen::{Screen, Style, plain};
use super::{Complaint, Ended, bench, setback, supervise};

/// Accusations that are shown of a room, each once.
const TOLD_MAX: usize = 256;

/// Options of `manyhands join`.
#[derive(Args)]
pub struct Arguments {
    /// The room's link, as printed by `manyhands room new`.
    #[arg(value_name = "LINK", env = "MANYHANDS_ROOM")]
    link: String,
    /// Threads to lend; all cores but one if not given, so that the machine stays its owner's.
    #[arg(long)]
    threads: Option<usize>,
    /// A diffusers folder to compute with, or the name of one below a models folder.
    #[arg(long, default_value = "demo", value_name = "DIR|NAME")]
    model: String,
    /// The name shown to the room; the host's name if not given.
    #[arg(long)]
    name: Option<String>,
    /// Listen on this multiaddress instead of any port of every interface; may be repeated.
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// Reach the room only through its relay.
    #[arg(long)]
    relayed_only: bool,
    /// Ask this STUN server how this machine is seen from outside, to be reached directly behind a NAT; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]", conflicts_with = "relayed_only")]
    stun: Vec<String>,
    #[command(flatten)]
    supervision: supervise::Supervision,
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t = Style::Auto)]
    progress: Style,
    /// Instead of a model, an engine that takes this many milliseconds for every unit; for measuring.
    #[arg(long, hide = true)]
    fake_ms: Option<u64>,
}

/// Lends until Ctrl-C.
pub async fn run(arguments: Arguments) -> Ended {
    if arguments.supervision.supervise {
        let screen = Screen::new(arguments.progress);
        return supervise::run(&arguments.supervision, &screen, supervise::STOP_TIME_MAX).await;
    }
    let link = RoomLink::parse(&arguments.link)?;
    let threads = arguments.threads.unwrap_or_else(spare_cores).max(1);
    let name = arguments.name.clone().unwrap_or_else(host_name);
    if name.len() > NAME_BYTES_MAX {
        return Err(Complaint(format!("the name has more than {NAME_BYTES_MAX} bytes; give a shorter --name")));
    }
    let (engine, model) = engine(&arguments, threads)?;
    let (listen, relayed_only) = (arguments.listen.clone(), arguments.relayed_only);
    let ice_servers = arguments.stun.iter().map(|host| net::IceServer::stun(host)).collect();
    let means = Means { listen, relayed_only, ice_servers };
    // What is wrong with the options shows before anybody is asked.
    meeting::configure_with(&link, &[], &means)?;
    let config = match meeting::configure(&link, &means).await {
        Ok(config) => config,
        Err(reason) => return setback(reason),
    };
    let network = net::start(config).await?;
    let me = network.0.local_peer();
    let setup = Setup {
        network: Some(network),
        me: None,
        name: name.clone(),
        engine: Some(lane::start(engine, u32::try_from(threads).unwrap_or(u32::MAX))),
        lend: true,
        patience: Duration::MAX,
        policy: link.policy,
    };
    let (participant, commands, mut notices) = Participant::new(setup);
    let running = tokio::spawn(participant.run());
    let mut interrupt = Interrupt::listen()?;
    let Some(early) = wait_for_engine(&mut notices, &mut interrupt).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut screen = Screen::new(arguments.progress);
    let room = link.secret.keys().id();
    let text = format!("Lending {threads} thread(s) with model {model} to room {room} as {name}. Ctrl-C leaves.");
    screen.tell("lending", &text, json!({ "peer": me.as_str(), "room": room.to_string() }));
    screen.begin_spinner();
    let mut board = Board { screen, serving: None, told_caught: BTreeSet::new(), units: 0 };
    early.into_iter().for_each(|notice| board.show(notice));
    loop {
        tokio::select! {
            notice = notices.recv() => match notice {
                Some(notice) => board.show(notice),
                None => return setback("the node ended"),
            },
            () = interrupt.asked() => break,
        }
    }
    board.screen.end_bar();
    board.screen.say("leaving", "Leaving the room; what was under way goes back to it.");
    let _ = commands.send(Command::Stop).await;
    let _ = running.await;
    Ok(ExitCode::SUCCESS)
}

/// Waits until the engine is loaded; gives what was told meanwhile, or `None` if the person gave up.
async fn wait_for_engine(
    notices: &mut mpsc::Receiver<Notice>,
    interrupt: &mut Interrupt,
) -> Result<Option<Vec<Notice>>, Complaint> {
    let mut early = Vec::new();
    loop {
        let notice = tokio::select! {
            notice = notices.recv() => notice.ok_or("the node ended")?,
            () = interrupt.asked() => return Ok(None),
        };
        match notice {
            Notice::EngineReady(_) => return Ok(Some(early)),
            Notice::EngineFailed { reason, .. } => return Err(Complaint(reason)),
            other => early.push(other),
        }
    }
}

fn spare_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).saturating_sub(1).max(1)
}

/// What this machine calls itself.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("COMPUTERNAME").ok());
    let name = name.map(|name| plain(name.trim())).filter(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX);
    name.unwrap_or_else(|| "worker".into())
}

fn engine(arguments: &Arguments, threads: usize) -> Result<(EngineMaker, String), Complaint> {
    if let Some(unit_ms) = arguments.fake_ms {
        return Ok((bench::fake_engine(Duration::from_millis(unit_ms)), "fake".into()));
    }
    let folder = models::open(&arguments.model)?;
    let name = folder.name().to_owned();
    Ok((models::engine(Arc::new(folder), threads), name))
}

/// What a lender's owner sees.
struct Board {
    screen: Screen,
    /// Whose job was worked on last.
    serving: Option<PeerId>,
    /// Who was said by whom to have given wrong answers.
    told_caught: BTreeSet<(PeerId, PeerId)>,
    units: u64,
}

impl Board {
    fn show(&mut self, notice: Notice) {
        match notice {
            Notice::Listening(address) => {
                self.screen.tell("listening", &format!("Listening on {address}"), json!({ "address": address }));
            }
            Notice::Joined(peer, path) => self.screen.say("joined", &format!("{} is here ({path}).", peer.short())),
            Notice::Left(peer) => self.left(&peer),
            Notice::Dropped(peer, reason) => {
                self.screen.say("dropped", &format!("{} was dropped: {}.", peer.short(), plain(&reason)));
            }
            Notice::RelayConnected => self.screen.say("relay", "Connected to the relay."),
            Notice::RelayLost => {
                self.screen.say("relay-lost", "The relay is gone; those already met stay. Trying again.");
            }
            Notice::Computing(peer, what) => self.computing(peer, what),
            Notice::Computed(units) => {
                self.units = units;
                let text = format!("{units} units delivered; waiting");
                self.screen.progress("computed", units, text, json!({ "units": units }));
            }
            Notice::Present(peer, presence) => {
                for caught in presence.caught.iter().take(CAUGHT_TOLD_MAX) {
                    if self.told_caught.len() < TOLD_MAX && self.told_caught.insert((peer.clone(), caught.clone())) {
                        let (by, name) = (plain(&presence.name), caught.short());
                        self.screen.say("caught", &format!("{by} says that {name} gave it wrong answers."));
                    }
                }
                let doing = match presence.activity {
                    Activity::Idle => "is here".to_owned(),
                    Activity::Lending { units } => format!("lends, {units} units delivered"),
                    Activity::Painting => "paints".to_owned(),
                };
                let text = format!("{} {doing}", plain(&presence.name));
                self.screen.progress("present", 0, text.clone(), json!({ "peer": peer.as_str(), "text": text }));
            }
            Notice::Failed(reason) => self.screen.say("failed", &reason),
            Notice::EngineFailed { reason, .. } => self.screen.say("failed", &reason),
            Notice::Moved(peer, path) => {
                self.screen.say("moved", &format!("{} is reached anew ({path}).", peer.short()))
            }
            Notice::Condemned(..)
            | Notice::RolledBack { .. }
            | Notice::Offered(..)
            | Notice::Withdrew(_)
            | Notice::EngineReady(_)
            | Notice::Delivered(_)
            | Notice::Preview { .. }
            | Notice::Snapshot(_)
            | Notice::Smaller(_)
            | Notice::Planned(_)
            | Notice::Unit { .. }
            | Notice::LocalBegan
            | Notice::Painted(_)
            | Notice::Cancelled => {}
        }
    }

    fn computing(&mut self, peer: PeerId, what: &str) {
        if self.serving.as_ref() != Some(&peer) {
            self.screen.say("serving", &format!("Computing for {}.", peer.short()));
        }
        let text = format!("computing {what} for {}", peer.short());
        self.screen.progress("computing", 0, text, json!({ "for": peer.as_str() }));
        self.serving = Some(peer);
    }

    fn left(&mut self, peer: &PeerId) {
        if self.serving.take_if(|serving| serving == peer).is_some() {
            self.screen.say("left", &format!("{} left; {} units delivered so far.", peer.short(), self.units));
        } else {
            self.screen.say("left", &format!("{} left.", peer.short()));
        }
    }
}
