//! A participant: the one loop that joins network, requester, worker, painter and engine.
//!
//! The machines of `coordinator` decide; this file only carries: events in, outputs out, until nothing is left to carry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use coordinator::{Requester, RequesterOutput, Worker, WorkerOutput};
use protocol::{Activity, Capabilities, Instant, Message, PeerId, Presence, RefuseReason};
use tokio::sync::mpsc;

use crate::job::{Order, Painted, Painting};
use crate::lane::{Computed, Lane, Task};

/// The room hears who is here at least this often.
const PRESENCE_EVERY: Duration = Duration::from_secs(5);

/// Notices that wait for whoever shows them.
const NOTICES_MAX: usize = 1024;

/// Places among them that are kept for outcomes: one job runs at a time.
const OUTCOMES_MAX: usize = 16;

/// The loop looks at starvation and the like at least this often.
const TICK: Duration = Duration::from_millis(250);

/// The name of a task in the lane: who asked, and under which lease.
pub type TaskKey = coordinator::LeaseKey;

/// Loads the engine when it is first needed.
pub type EngineMaker = Box<dyn FnOnce() -> Result<Box<dyn compute::Engine>, String> + Send>;

/// How a participant begins.
pub struct Setup {
    /// The room's network; `None` paints alone.
    pub network: Option<(net::Handle, net::Events)>,
    /// The name shown to the room.
    pub name: String,
    /// Threads lent, as told to the room.
    pub threads: u32,
    /// Makes the engine; `None` lends nothing, not even to this participant's own jobs.
    pub engine: Option<EngineMaker>,
    /// Whether to lend to the room from the start.
    pub lend: bool,
    /// How long an own job waits without any worker before this participant computes it itself, or gives up if it must
    /// not.
    pub patience: Duration,
}

/// What a participant is told.
pub enum Command {
    /// Paint; one job at a time, so a job that still runs is given up.
    Paint(Box<Order>),
    /// Lend this machine to its own job.
    LendToSelf,
    /// Give the job up.
    Cancel,
    /// Leave the room and end.
    Stop,
}

/// What a participant tells.
#[derive(Debug)]
pub enum Notice {
    /// This participant can be dialled here; the address ends in its peer id.
    Listening(String),
    /// A member of the room can be talked to.
    Joined(PeerId, net::Path),
    /// A member is gone.
    Left(PeerId),
    /// A member lends its processor; the name in its capabilities is untrusted text.
    Offered(PeerId, Capabilities),
    /// A member broke the rules and was dropped.
    Dropped(PeerId, String),
    /// What a member says it does; the name is untrusted text.
    Present(PeerId, Presence),
    /// The relay can be reached.
    RelayConnected,
    /// The relay cannot be reached; members already met stay.
    RelayLost,
    /// A job was planned and begins.
    Planned(coordinator::Plan),
    /// An accepted unit, and the job's progress in [`protocol::Work::cost`].
    Unit {
        /// Who computed it.
        by: PeerId,
        /// Units accepted so far.
        units: u64,
        /// Cost done.
        done: u64,
        /// Cost in all.
        total: u64,
        /// What the job is doing.
        stage: sampler::Stage,
    },
    /// No worker is left; this machine computes now.
    LocalBegan,
    /// The picture.
    Painted(Box<Painted>),
    /// The job failed, in words.
    Failed(String),
    /// The job was given up.
    Cancelled,
    /// The engine began a unit for this peer.
    Computing(PeerId, &'static str),
    /// The engine ended a unit; units delivered so far.
    Computed(u64),
}

/// A member of a room, or somebody painting alone.
pub struct Participant {
    network: Option<net::Handle>,
    events: Option<net::Events>,
    commands: mpsc::Receiver<Command>,
    notices: mpsc::Sender<Notice>,
    requester: Requester,
    worker: Option<Worker>,
    lane: Option<Lane<TaskKey>>,
    engine: Option<EngineMaker>,
    painting: Option<Painting>,
    me: PeerId,
    name: String,
    threads: u32,
    lend: bool,
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
    Computed(Computed<TaskKey>),
    Command(Option<Command>),
    Tick,
}

impl Participant {
    /// A participant, its commands and its notices. Loads the engine at once if it lends to the room.
    pub fn new(setup: Setup) -> Result<(Self, mpsc::Sender<Command>, mpsc::Receiver<Notice>), String> {
        let (command, commands) = mpsc::channel(8);
        let (notices, notice) = mpsc::channel(NOTICES_MAX);
        let (network, events) = setup.network.map_or((None, None), |(handle, events)| (Some(handle), Some(events)));
        let alone = || PeerId::new("alone").expect("a plain word is a peer id");
        let me = network.as_ref().map_or_else(alone, net::Handle::local_peer);
        let origin = Clock::now();
        let mut participant = Self {
            network,
            events,
            commands,
            notices,
            requester: Requester::new(),
            worker: None,
            lane: None,
            engine: setup.engine,
            painting: None,
            me,
            name: setup.name,
            threads: setup.threads,
            lend: setup.lend,
            patience: setup.patience,
            paths: BTreeMap::new(),
            starved_since: None,
            presence_sequence: unix_millis(),
            presence_due: origin,
            origin,
        };
        if setup.lend {
            participant.load_engine()?;
        }
        Ok((participant, command, notice))
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
            computed = lane => Event::Computed(computed),
            command = self.commands.recv() => Event::Command(command),
            () = tokio::time::sleep(due) => Event::Tick,
        }
    }

    fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Network(event) => self.handle_network(event, now),
            Event::NetworkEnded => self.events = None,
            Event::Computed(Computed { key, output, took }) => {
                let worker = self.worker.as_mut().expect("a lane runs for a worker");
                let took_ms = u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
                let output = output.map_err(|reason| RefuseReason::failed(&reason));
                worker.handle_computed(&key, output, took_ms, now);
                let units = worker.units_delivered();
                self.tell(Notice::Computed(units));
            }
            Event::Command(Some(Command::Paint(order))) => self.begin(*order, now),
            Event::Command(Some(Command::LendToSelf)) => self.lend_to_self(now),
            Event::Command(Some(Command::Cancel | Command::Stop) | None) => self.cancel(now),
            Event::Tick => {}
        }
    }

    fn handle_network(&mut self, event: net::Event, now: Instant) {
        match event {
            net::Event::Joined { peer, path } => {
                self.requester.handle_joined(peer.clone(), now);
                if let Some(worker) = self.worker.as_mut().filter(|_| self.lend) {
                    worker.handle_joined(peer.clone(), now);
                }
                self.presence_due = Clock::now();
                self.paths.insert(peer.clone(), path);
                self.tell(Notice::Joined(peer, path));
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
                if let protocol::ToRequester::Offer(capabilities) = &message
                    && *from != self.me
                {
                    self.tell(Notice::Offered(from.clone(), capabilities.clone()));
                }
                self.requester.handle(from, message, body, now);
            }
            Message::ToWorker(message) => {
                // A participant that lends nothing to the room may have a worker for its own job; what others ask of it
                // stays unanswered.
                let is_served = self.lend || *from == self.me;
                if let Some(worker) = self.worker.as_mut().filter(|_| is_served) {
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

    fn carry_requester(&mut self, output: RequesterOutput, now: Instant) {
        match output {
            RequesterOutput::Send { to, message, body } => self.send(&to, Message::ToWorker(message), body, now),
            RequesterOutput::Delivered { job, unit, by, body, compute_ms } => {
                let Some(painting) = self.painting.as_mut().filter(|painting| painting.job() == job) else { return };
                let name = self.requester.roster().lender(&by).map(|lender| lender.capabilities().name.as_str());
                let path = self.paths.get(&by).map_or_else(|| "local".to_owned(), ToString::to_string);
                painting.note_worker(&by, name.unwrap_or_default(), path);
                match painting.accept(unit, &by, &body, compute_ms) {
                    Ok(()) => {
                        let notice = painting.unit_notice(by);
                        self.tell(notice);
                    }
                    Err(reason) => self.requester.reject(job, unit, &reason, now),
                }
            }
            RequesterOutput::StageDone { job } => {
                if self.painting.as_ref().is_some_and(|painting| painting.job() == job && painting.stage_is_complete())
                {
                    self.advance(now);
                }
            }
            RequesterOutput::JobFailed { job, reasons } => {
                if self.painting.take_if(|painting| painting.job() == job).is_some() {
                    let reasons: Vec<_> =
                        reasons.iter().map(|(peer, reason)| format!("{}: {reason}", peer.short())).collect();
                    self.tell(Notice::Failed(format!("no worker could do a unit ({})", reasons.join("; "))));
                }
            }
            RequesterOutput::WorkerPaused { peer, reason } => tracing::debug!(%peer, reason, "worker paused"),
            RequesterOutput::WorkerDropped { peer, reason } => self.tell(Notice::Dropped(peer, reason)),
        }
    }

    fn carry_worker(&mut self, output: WorkerOutput, now: Instant) {
        match output {
            WorkerOutput::Send { to, message, body } => self.send(&to, Message::ToRequester(message), body.into(), now),
            WorkerOutput::Compute { key, unit, input, conditioning } => {
                self.tell(Notice::Computing(key.requester.clone(), describe(&unit.work)));
                let lane = self.lane.as_mut().expect("a worker has a lane");
                lane.submit(Task { key, unit: *unit, input, conditioning });
            }
            WorkerOutput::Abort { key } => {
                let lane = self.lane.as_mut().expect("a worker has a lane");
                lane.abort(&key);
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

    fn begin(&mut self, order: Order, now: Instant) {
        self.cancel(now);
        let traffic = self.network.as_ref().map(net::Handle::traffic).unwrap_or_default();
        let painting = match Painting::begin(order, self.requester.roster(), traffic) {
            Ok(painting) => painting,
            Err(reason) => return self.tell(Notice::Failed(reason)),
        };
        self.tell(Notice::Planned(painting.plan().clone()));
        self.requester.begin_job(painting.job(), painting.model(), now);
        painting.begin_stage(&mut self.requester, now);
        self.painting = Some(painting);
        self.presence_due = Clock::now();
    }

    fn advance(&mut self, now: Instant) {
        let painting = self.painting.as_mut().expect("only a running job advances");
        painting.advance();
        if !painting.is_done() {
            return painting.begin_stage(&mut self.requester, now);
        }
        let painting = self.painting.take().expect("the job was just there");
        let retries = self.requester.retries(painting.job());
        self.requester.cancel(painting.job(), now);
        let traffic = self.network.as_ref().map(net::Handle::traffic).unwrap_or_default();
        self.tell(Notice::Painted(Box::new(painting.finish(&traffic, &self.me, retries))));
        self.presence_due = Clock::now();
    }

    fn cancel(&mut self, now: Instant) {
        if let Some(painting) = self.painting.take() {
            self.requester.cancel(painting.job(), now);
            self.tell(Notice::Cancelled);
        }
    }

    /// A job without any worker is computed here after a while, or given up if this participant computes nothing.
    fn mend_starvation(&mut self, now: Instant) {
        let starved = self.painting.as_ref().is_some_and(|painting| self.requester.is_starved(painting.job()));
        if !starved {
            self.starved_since = None;
            return;
        }
        let since = *self.starved_since.get_or_insert_with(Clock::now);
        if since.elapsed() < self.patience {
            return;
        }
        if self.engine.is_some() || self.lane.is_some() {
            self.lend_to_self(now);
        } else {
            let waited = self.patience.as_secs();
            let advice = "open one with `manyhands join`";
            self.fail(format!("no worker with this model has been in the room for {waited} s; {advice}"), now);
        }
    }

    /// Gives the job up, if one runs, and says why.
    fn fail(&mut self, reason: String, now: Instant) {
        if let Some(painting) = self.painting.take() {
            self.requester.cancel(painting.job(), now);
        }
        self.tell(Notice::Failed(reason));
    }

    fn lend_to_self(&mut self, now: Instant) {
        if let Err(reason) = self.load_engine() {
            return self.fail(reason, now);
        }
        let (me, worker) = (self.me.clone(), self.worker.as_mut().expect("the engine was just loaded"));
        self.requester.handle_joined(me.clone(), now);
        worker.handle_joined(me, now);
        self.tell(Notice::LocalBegan);
    }

    fn load_engine(&mut self) -> Result<(), String> {
        let Some(make) = self.engine.take() else {
            return if self.lane.is_some() { Ok(()) } else { Err("this process has no engine".into()) };
        };
        let lane = Lane::start(tokio::task::block_in_place(make)?).map_err(|error| error.to_string())?;
        let capabilities = Capabilities {
            name: self.name.clone(),
            models: lane.models().iter().map(|(id, _)| *id).collect(),
            numeric_class: lane.numeric_class().to_owned(),
            threads: self.threads,
        };
        self.worker = Some(Worker::new(capabilities, lane.models().iter().copied().collect()));
        self.lane = Some(lane);
        Ok(())
    }

    fn publish_presence(&mut self) {
        let Some(network) = self.network.as_ref().filter(|_| Clock::now() >= self.presence_due) else { return };
        self.presence_due = Clock::now() + PRESENCE_EVERY;
        self.presence_sequence += 1;
        let activity = match (&self.painting, self.worker.as_ref().filter(|_| self.lend)) {
            (Some(_), _) => Activity::Painting,
            (None, Some(worker)) => Activity::Lending { units: worker.units_delivered() },
            (None, None) => Activity::Idle,
        };
        network.publish(Presence { sequence: self.presence_sequence, name: self.name.clone(), activity });
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
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn describe(work: &protocol::Work) -> &'static str {
    match work {
        protocol::Work::Encode { .. } => "reading the prompt",
        protocol::Work::Denoise { .. } => "a step",
        protocol::Work::Decode { .. } => "decoding",
        protocol::Work::Paint { .. } => "a whole picture",
    }
}
