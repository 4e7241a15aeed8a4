//! A participant: the one loop that joins network, requester, worker, painter and engine.
//!
//! The machines of `coordinator` decide; this file only carries: events in, outputs out, until nothing is left to carry.

mod lending;
mod painting;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coordinator::{Requester, Standing, Worker};
use net::Delay;
use protocol::limits::{CAUGHT_TOLD_MAX, IMAGES_MAX, NAME_BYTES_MAX};
use protocol::{Activity, Instant, Message, PeerId, Presence, ToRequester};
use tokio::sync::mpsc;
use web_time::{Instant as Clock, SystemTime};

pub use self::words::{Command, Notice, Setup};
use crate::job::Painting;
use crate::lane::{FromEngine, Lane, LaneMaker};

/// The room hears who is here at least this often.
const PRESENCE_EVERY: Duration = Duration::from_secs(5);

/// Notices that wait for whoever shows them.
const NOTICES_MAX: usize = 1024;

/// Places among them that are kept for outcomes: of every picture of an order, and of orders given up for it.
const OUTCOMES_MAX: usize = IMAGES_MAX as usize + 16;

/// Commands that wait for the loop.
const COMMANDS_MAX: usize = 64;

/// The loop looks at starvation and the like at least this often.
const TICK: Duration = Duration::from_millis(250);

/// What a direct path is taken to carry before units have crossed it: a home's 50 Mbit/s.
const DIRECT_BYTES_PER_SECOND: f64 = 6.0e6;

/// The same through a relay, which others share: a fifth (as Petals has it).
const RELAYED_BYTES_PER_SECOND: f64 = DIRECT_BYTES_PER_SECOND / 5.0;

/// The name of a task in the lane: who asked, and under which lease.
pub type TaskKey = coordinator::LeaseKey;

/// A member of a room, or somebody painting alone.
pub struct Participant {
    network: Option<net::Handle>,
    events: Option<net::Events>,
    commands: mpsc::Receiver<Command>,
    notices: mpsc::Sender<Notice>,
    requester: Requester,
    /// There while the engine is ready.
    worker: Option<Worker>,
    /// There from the engine's start on.
    lane: Option<Lane<TaskKey>>,
    engine: Option<LaneMaker<TaskKey>>,
    /// Why the engine will not come again.
    broken: Option<String>,
    /// The pictures of the present order that are not finished.
    paintings: Vec<Painting>,
    /// Units, cost done and cost in all of its finished ones.
    finished: (u64, u64, u64),
    me: PeerId,
    name: String,
    lend: bool,
    paused: bool,
    throttled: bool,
    /// Whether this device lends to its own job, the present one or else the next.
    helps_itself: bool,
    delivered: u64,
    patience: Duration,
    paths: BTreeMap<PeerId, net::Path>,
    starved_since: Option<Clock>,
    presence_sequence: u64,
    presence_due: Clock,
    origin: Clock,
}

enum Event {
    Network(net::Event),
    NetworkEnded,
    Engine(FromEngine<TaskKey>),
    Command(Option<Command>),
    Tick,
}

impl Participant {
    /// A participant, its commands and its notices. Starts the engine at once if it lends to the room.
    pub fn new(setup: Setup) -> (Self, mpsc::Sender<Command>, mpsc::Receiver<Notice>) {
        let (command, commands) = mpsc::channel(COMMANDS_MAX);
        let (notices, notice) = mpsc::channel(NOTICES_MAX);
        let (network, events) = setup.network.map_or((None, None), |(handle, events)| (Some(handle), Some(events)));
        let alone = || PeerId::new("alone").expect("a plain word is a peer id");
        let me = network.as_ref().map(net::Handle::local_peer).or(setup.me).unwrap_or_else(alone);
        let origin = Clock::now();
        let mut participant = Self {
            network,
            events,
            commands,
            notices,
            requester: Requester::new(setup.policy, rand::random()),
            worker: None,
            lane: None,
            engine: setup.engine,
            broken: None,
            paintings: Vec::new(),
            finished: (0, 0, 0),
            me,
            name: cut(&setup.name, NAME_BYTES_MAX),
            lend: false,
            paused: false,
            throttled: false,
            helps_itself: false,
            delivered: 0,
            patience: setup.patience,
            paths: BTreeMap::new(),
            starved_since: None,
            presence_sequence: unix_millis(),
            presence_due: origin,
            origin,
        };
        if setup.lend {
            let now = participant.now();
            participant.set_lend(true, now);
        }
        (participant, command, notice)
    }

    /// Runs until told to stop, or until whoever commands is gone.
    pub async fn run(mut self) {
        loop {
            let event = self.next_event().await;
            let now = self.now();
            let stop = matches!(event, Event::Command(Some(Command::Stop) | None));
            self.handle(event, now);
            self.requester.handle_timeout(now);
            if let Some(worker) = &mut self.worker {
                worker.handle_timeout(now);
            }
            self.mend_starvation(now);
            self.carry(now);
            self.publish_presence();
            if stop {
                break;
            }
        }
        let now = self.now();
        if let Some(worker) = &mut self.worker {
            worker.leave(now);
        }
        self.carry(now);
        if let Some(network) = self.network.take() {
            network.shutdown().await;
        }
    }

    async fn next_event(&mut self) -> Event {
        let due = [self.requester.poll_timeout(), self.worker.as_ref().and_then(Worker::poll_timeout)];
        let due = due.into_iter().flatten().min().map_or(TICK, |at| at.since(self.now())).min(TICK);
        let network = async {
            match &mut self.events {
                Some(events) => events.next().await.map_or(Event::NetworkEnded, Event::Network),
                None => std::future::pending().await,
            }
        };
        let lane = async {
            match &mut self.lane {
                Some(lane) => lane.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = network => event,
            news = lane => Event::Engine(news),
            command = self.commands.recv() => Event::Command(command),
            () = Delay::new(due) => Event::Tick,
        }
    }

    fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Network(event) => self.handle_network(event, now),
            Event::NetworkEnded => self.events = None,
            Event::Engine(news) => self.handle_engine(news, now),
            Event::Command(Some(command)) => self.handle_command(command, now),
            Event::Command(None) => self.cancel(now),
            Event::Tick => self.learn_paths(),
        }
    }

    fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Paint(order) => self.begin(*order, now),
            Command::LendToSelf => {
                self.broken = None; // Whoever asks again wants another try.
                self.lend_to_self(now);
            }
            Command::Lend(lend) => self.set_lend(lend, now),
            Command::Pause(paused) => self.set_paused(paused, now),
            Command::Throttle(throttled) => self.set_throttled(throttled),
            Command::Rename(name) => self.rename(&name),
            Command::Enter(network, events) => {
                self.me = network.local_peer();
                self.network = Some(network);
                self.events = Some(events);
                self.presence_due = Clock::now();
            }
            Command::Cancel | Command::Stop => self.cancel(now),
        }
    }

    fn handle_network(&mut self, event: net::Event, now: Instant) {
        match event {
            net::Event::Joined { peer, path } => {
                self.requester.handle_joined(peer.clone(), self.standing(&peer), now);
                self.presence_due = Clock::now();
                self.paths.insert(peer.clone(), path);
                self.sync_offers(now);
                self.tell(Notice::Joined(peer, path));
            }
            net::Event::Moved { peer, path } => {
                self.paths.insert(peer.clone(), path);
                self.requester.handle_standing(&peer, self.standing(&peer));
                self.tell(Notice::Moved(peer, path));
            }
            net::Event::Left { peer } => {
                self.paths.remove(&peer);
                self.requester.handle_left(&peer, now);
                if let Some(worker) = &mut self.worker {
                    worker.handle_left(&peer, now);
                }
                self.tell(Notice::Left(peer));
            }
            net::Event::Message { from, message, body } => self.receive(&from, message, body, now),
            net::Event::Presence { from, presence } => self.tell(Notice::Present(from, presence)),
            net::Event::RelayConnected => self.tell(Notice::RelayConnected),
            net::Event::RelayLost => self.tell(Notice::RelayLost),
            net::Event::Dropped { peer, reason } => self.tell(Notice::Dropped(peer, reason.to_string())),
            net::Event::Listening { address } => self.tell(Notice::Listening(address.to_string())),
        }
    }

    fn receive(&mut self, from: &PeerId, message: Message, body: Vec<u8>, now: Instant) {
        match message {
            Message::ToRequester(message) => {
                match &message {
                    ToRequester::Offer(capabilities) if *from != self.me => {
                        self.tell(Notice::Offered(from.clone(), capabilities.clone()));
                    }
                    ToRequester::Leave if *from != self.me => self.tell(Notice::Withdrew(from.clone())),
                    ToRequester::Offer(_)
                    | ToRequester::Leave
                    | ToRequester::Heartbeat { .. }
                    | ToRequester::Deliver { .. }
                    | ToRequester::Refuse { .. } => {}
                }
                self.requester.handle(from, message, body, now);
            }
            // A participant that lends nothing to the room may have a worker for its own job; what others ask of that one
            // it refuses, and without a worker it stays unanswered.
            Message::ToWorker(message) => {
                if let Some(worker) = &mut self.worker {
                    worker.handle(from, message, body, now);
                }
            }
        }
    }

    /// Carries outputs until the machines have none left: an output can cause another, above all when this participant
    /// is its own worker.
    fn carry(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.requester.poll_output() {
                self.carry_requester(output, now);
            } else if let Some(output) = self.worker.as_mut().and_then(Worker::poll_output) {
                self.carry_worker(output, now);
            } else {
                break;
            }
        }
    }

    fn send(&mut self, to: &PeerId, message: Message, body: Arc<[u8]>, now: Instant) {
        if *to == self.me {
            self.receive(to, message, body.to_vec(), now);
        } else if let Some(network) = &self.network
            && let Err(error) = network.send(to, &message, body)
        {
            // The peer is gone or too slow; the network reports its leaving, which requeues what it held.
            tracing::debug!(%to, %error, "message not sent");
        }
    }

    /// Tells the requester how far away members are, until their deliveries show it.
    fn learn_paths(&mut self) {
        let Some(network) = &self.network else { return };
        for (peer, round_trip) in network.round_trips() {
            let is_relayed = self.paths.get(&peer) == Some(&net::Path::Relayed);
            let bytes_per_second = if is_relayed { RELAYED_BYTES_PER_SECOND } else { DIRECT_BYTES_PER_SECOND };
            self.requester.handle_path(&peer, round_trip, bytes_per_second);
        }
    }

    /// Whom a member may belong to.
    fn standing(&self, peer: &PeerId) -> Standing {
        if *peer == self.me {
            return Standing::own();
        }
        let origin = self.network.as_ref().and_then(|network| network.origin(peer));
        Standing { domain: crate::domain::of(peer, origin), is_own: false }
    }

    fn publish_presence(&mut self) {
        let Some(network) = self.network.as_ref().filter(|_| Clock::now() >= self.presence_due) else { return };
        self.presence_due = Clock::now() + PRESENCE_EVERY;
        self.presence_sequence += 1;
        let lends = self.lend && !self.paused && self.worker.is_some();
        let activity = match (self.paintings.is_empty(), lends) {
            (false, _) => Activity::Painting,
            (true, true) => Activity::Lending { units: self.delivered },
            (true, false) => Activity::Idle,
        };
        let condemned: Vec<&PeerId> = self.requester.condemned().collect();
        let caught = condemned.iter().rev().take(CAUGHT_TOLD_MAX).rev().map(|peer| (*peer).clone()).collect();
        network.publish(Presence { sequence: self.presence_sequence, name: self.name.clone(), activity, caught });
    }

    fn now(&self) -> Instant {
        Instant::from_origin(self.origin.elapsed())
    }

    /// A screen that does not keep up misses news, never an outcome; nobody listening is no reason to stop working.
    fn tell(&self, notice: Notice) {
        let is_outcome = matches!(notice, Notice::Painted(_) | Notice::Failed(_) | Notice::Cancelled);
        if is_outcome || self.notices.capacity() > OUTCOMES_MAX {
            let _ = self.notices.try_send(notice);
        }
    }
}

/// A sequence that grows over restarts of the process, as long as its clock does.
fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `text` up to `bytes_max` bytes, cut at a character.
fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

fn describe(work: &protocol::Work) -> &'static str {
    match work {
        protocol::Work::Encode { .. } => "reading the prompt",
        protocol::Work::Denoise { .. } => "a step",
        protocol::Work::Run { .. } => "some steps",
        protocol::Work::Decode { .. } => "decoding",
        protocol::Work::Paint { .. } => "a whole picture",
    }
}
