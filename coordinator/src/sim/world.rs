//! A room that runs: machines, links and faults on one queue of events in virtual time.

mod faults;
mod outcome;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use protocol::{Instant, JobId, Message, PeerId, PlanKind, Policy, ToRequester, ToWorker};

pub use self::outcome::{Outcome, Tally};
use crate::sim::audit::{Broken, Truth};
use crate::sim::desk::{Desk, Path};
use crate::sim::links::{Link, Pair, Way};
use crate::sim::rng::Rng;
use crate::sim::seat::Seat;
use crate::sim::setup::Setup;
use crate::sim::temper::Temper;
use crate::sim::trace::Trace;
use crate::sim::words::Words;
use crate::trust::{Standing, TrustDomain};

/// A world that is still busy after so many events goes round in circles.
const EVENTS_MAX: u64 = 3_000_000;

/// After its last job a world runs on for this long, in which nothing more may be accepted.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// A job that cannot be planned is submitted again after this time.
const SUBMIT_AGAIN: Duration = Duration::from_millis(500);

/// Memory is looked at every so many events: looking at all of it each time would take most of the time.
const BOUNDS_EVERY: u64 = 64;

/// A room in virtual time.
pub struct World {
    setup: Setup,
    now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    event_count: u64,
    desks: Vec<Desk>,
    seats: Vec<Seat>,
    links: BTreeMap<Pair, Link>,
    desk_names: BTreeMap<PeerId, usize>,
    seat_names: BTreeMap<PeerId, usize>,
    /// When each machine is woken next.
    desk_wakes: Vec<Option<Instant>>,
    seat_wakes: Vec<Option<Instant>>,
    /// Jobs that were taken, by number.
    taken: BTreeMap<usize, Instant>,
    kinds: BTreeMap<usize, PlanKind>,
    ended: BTreeMap<usize, Instant>,
    condemned: BTreeSet<PeerId>,
    noise: Rng,
    trace: Trace,
    tally: Tally,
}

enum Event {
    Arrives { pair: Pair, epoch: u32, message: Message, body: Arc<[u8]> },
    Connected { pair: Pair, epoch: u32, end: Way },
    Lost { pair: Pair, epoch: u32, end: Way },
    WakeDesk(usize),
    WakeSeat(usize),
    Submit(usize),
    GivesUp(usize),
    Strikes(usize),
    Starts { seat: usize },
    Restarts { desk: usize },
    Connects(Pair),
}

/// Runs a world to its end, or to the first invariant that does not hold.
pub fn run(setup: &Setup, keeps_trace: bool) -> Outcome {
    let mut world = World::new(setup.clone(), keeps_trace);
    let play = || world.begin().and_then(|()| world.run()).and_then(|()| world.check_end());
    // Nothing that anybody says may make a machine fail.
    let broken = match catch_unwind(AssertUnwindSafe(play)) {
        Ok(result) => result.err(),
        Err(panic) => Some(Broken::new("panic", said(&*panic))),
    };
    world.outcome(broken)
}

/// What a panic says.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a word").to_owned()
}

impl World {
    fn new(setup: Setup, keeps_trace: bool) -> Self {
        let name = |text: String| PeerId::new(text).expect("a word and a number are a peer id");
        let seat_name = |lender: &crate::sim::setup::Lender| match lender.host {
            Some(desk) => name(format!("asker{desk}")),
            None => name(format!("worker{}", lender.number)),
        };
        let is_dishonest = |lender: &&crate::sim::setup::Lender| lender.temper != Temper::Honest;
        let truth = Arc::new(Truth {
            policy: setup.policy,
            dishonest: setup.lenders.iter().filter(is_dishonest).map(seat_name).collect(),
            domains: setup.lenders.iter().map(|lender| (seat_name(lender), lender.domain)).collect(),
            tells_lies_apart: !setup.lenders.iter().any(|lender| lender.temper.deceives())
                || setup.policy != Policy::Friends && setup.liars_share_a_domain(),
            classes: setup.lenders.iter().map(|lender| lender.class + 1).max().unwrap_or(1),
        });
        let seed = setup.seed;
        let desk = |(index, asker)| Desk::new(name(format!("asker{index}")), asker, truth.clone(), seed ^ index as u64);
        let desks: Vec<Desk> = setup.askers.iter().enumerate().map(desk).collect();
        let seat = |lender: &crate::sim::setup::Lender| Seat::new(seat_name(lender), lender.clone(), seed);
        let seats: Vec<Seat> = setup.lenders.iter().map(seat).collect();
        let mut links = BTreeMap::new();
        for (desk, asker) in setup.askers.iter().enumerate() {
            for (seat, lender) in setup.lenders.iter().enumerate() {
                let is_own = lender.host == Some(desk);
                let link = if is_own {
                    Link::new(Duration::ZERO, u64::MAX / 2)
                } else {
                    Link::new(asker.latency + lender.latency, lender.bandwidth)
                };
                links.insert(Pair { desk, seat }, link);
            }
        }
        Self {
            now: Instant::ZERO,
            events: BTreeMap::new(),
            event_count: 0,
            desk_names: desks.iter().enumerate().map(|(index, desk)| (desk.name.clone(), index)).collect(),
            seat_names: seats.iter().enumerate().map(|(index, seat)| (seat.name.clone(), index)).collect(),
            desk_wakes: vec![None; desks.len()],
            seat_wakes: vec![None; seats.len()],
            desks,
            seats,
            links,
            taken: BTreeMap::new(),
            kinds: BTreeMap::new(),
            ended: BTreeMap::new(),
            condemned: BTreeSet::new(),
            noise: Rng::new(seed, "network"),
            trace: Trace::new(keeps_trace),
            tally: Tally::default(),
            setup,
        }
    }

    fn begin(&mut self) -> Result<(), Broken> {
        for desk in 0..self.desks.len() {
            self.desks[desk].start(self.now)?;
        }
        for seat in 0..self.seats.len() {
            self.push(self.seats[seat].lender.joins, Event::Starts { seat });
        }
        for order in 0..self.setup.jobs.len() {
            self.push(self.setup.jobs[order].at, Event::Submit(order));
        }
        for fault in 0..self.setup.faults.len() {
            self.push(self.setup.faults[fault].at, Event::Strikes(fault));
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), Broken> {
        let orders = self.setup.jobs.iter().map(|order| order.at);
        let must_end = orders.max().unwrap_or(Instant::ZERO).max(self.setup.calm) + self.setup.ends_within;
        let mut stops = None;
        while let Some(((at, _), event)) = self.events.pop_first() {
            if stops.is_some_and(|stops| stops < at) {
                return Ok(());
            }
            self.now = at;
            self.tally.events += 1;
            if at > must_end || self.tally.events > EVENTS_MAX {
                let waiting = self.setup.jobs.len() - self.ended.len();
                let events = self.tally.events;
                return Err(Broken::new("I8", format!("{waiting} jobs have not ended after {events} events")));
            }
            self.handle(event)?;
            if self.tally.events.is_multiple_of(BOUNDS_EVERY) {
                self.desks.iter().try_for_each(Desk::check_bounds)?;
                self.seats.iter().try_for_each(Seat::check_bounds)?;
            }
            if stops.is_none() && self.ended.len() == self.setup.jobs.len() {
                stops = Some(self.now + AFTERWARDS);
            }
        }
        if stops.is_none() && !self.setup.jobs.is_empty() {
            return Err(Broken::new("I8", "nothing happens any more, and a job has not ended"));
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), Broken> {
        let seat = match &event {
            Event::Arrives { pair, message: Message::ToWorker(_), .. } => Some(pair.seat),
            Event::Connected { pair, end: Way::Out, .. } | Event::Lost { pair, end: Way::Out, .. } => Some(pair.seat),
            Event::WakeSeat(seat) => Some(*seat),
            Event::Arrives { .. } | Event::Connected { .. } | Event::Lost { .. } => None,
            Event::WakeDesk(_) | Event::Submit(_) | Event::GivesUp(_) | Event::Strikes(_) | Event::Starts { .. } => {
                None
            }
            Event::Restarts { .. } | Event::Connects(_) => None,
        };
        // What concerns a process that stands still waits until it goes on.
        if let Some(thaws) = seat.map(|seat| self.seats[seat].frozen_until).filter(|thaws| *thaws > self.now) {
            if let Event::WakeSeat(seat) = event {
                self.seat_wakes[seat] = Some(thaws);
            }
            self.push(thaws, event);
            return Ok(());
        }
        match event {
            Event::Arrives { pair, epoch, message, body } => self.arrive(pair, epoch, message, &body),
            Event::Connected { pair, epoch, end } => self.connected(pair, epoch, end),
            Event::Lost { pair, epoch, end } => self.lost(pair, epoch, end),
            Event::WakeDesk(desk) => self.wake_desk(desk),
            Event::WakeSeat(seat) => self.wake_seat(seat),
            Event::Submit(order) => self.submit(order),
            Event::GivesUp(order) => self.give_up(order),
            Event::Strikes(fault) => self.strike(fault),
            Event::Starts { seat } => self.start_seat(seat),
            Event::Restarts { desk } => self.restart_desk(desk),
            Event::Connects(pair) => {
                self.connect(pair);
                Ok(())
            }
        }
    }

    fn arrive(&mut self, pair: Pair, epoch: u32, message: Message, body: &Arc<[u8]>) -> Result<(), Broken> {
        let end = if matches!(message, Message::ToWorker(_)) { Way::Out } else { Way::Back };
        if self.link(pair).is_ahead(end, epoch) {
            self.connected(pair, epoch, end)?;
        }
        if self.link(pair).known(end) != Some(epoch) {
            return Ok(());
        }
        let (desk, seat) = (self.desks[pair.desk].name.clone(), self.seats[pair.seat].name.clone());
        let (from, to) = if end == Way::Out { (&desk, &seat) } else { (&seat, &desk) };
        self.trace.note(self.now, format_args!("{to} hears {from}: {}", Words(&message, body)));
        if matches!(message, Message::ToRequester(ToRequester::Heartbeat { .. })) {
            self.trace.drop_last(); // It counts, and nobody wants to read it.
        }
        match message {
            Message::ToWorker(message) => {
                self.seats[pair.seat].hear(&desk, message, body, self.now);
                self.carry_seat(pair.seat);
            }
            Message::ToRequester(message) => {
                self.desks[pair.desk].hear(&seat, message, body, self.now)?;
                self.carry_desk(pair.desk)?;
            }
        }
        Ok(())
    }

    fn connected(&mut self, pair: Pair, epoch: u32, end: Way) -> Result<(), Broken> {
        let runs = if end == Way::Out { self.seats[pair.seat].runs() } else { self.desks[pair.desk].runs() };
        if !runs || !self.link(pair).learn(end, epoch) {
            return Ok(());
        }
        let (desk, seat) = (self.desks[pair.desk].name.clone(), self.seats[pair.seat].name.clone());
        if end == Way::Out {
            self.trace.note(self.now, format_args!("{seat} sees {desk} join"));
            self.seats[pair.seat].join(&desk, self.now);
            self.carry_seat(pair.seat);
        } else {
            self.trace.note(self.now, format_args!("{desk} sees {seat} join"));
            let standing = self.standing(pair);
            let path = self.path(pair);
            self.desks[pair.desk].join(&seat, standing, path, self.now)?;
            self.carry_desk(pair.desk)?;
        }
        Ok(())
    }

    fn lost(&mut self, pair: Pair, epoch: u32, end: Way) -> Result<(), Broken> {
        if !self.link(pair).forget(end, epoch) {
            return Ok(());
        }
        let (desk, seat) = (self.desks[pair.desk].name.clone(), self.seats[pair.seat].name.clone());
        if end == Way::Out {
            self.trace.note(self.now, format_args!("{seat} sees {desk} leave"));
            self.seats[pair.seat].leave(&desk, self.now);
            self.carry_seat(pair.seat);
        } else {
            self.trace.note(self.now, format_args!("{desk} sees {seat} leave"));
            self.desks[pair.desk].leave(&seat, self.now)?;
            self.carry_desk(pair.desk)?;
        }
        Ok(())
    }

    fn wake_desk(&mut self, desk: usize) -> Result<(), Broken> {
        if self.desk_wakes[desk].take_if(|at| *at == self.now).is_none() {
            return Ok(());
        }
        if self.desks[desk].due().is_some_and(|due| due <= self.now) {
            self.desks[desk].wake(self.now)?;
        }
        self.carry_desk(desk)
    }

    fn wake_seat(&mut self, seat: usize) -> Result<(), Broken> {
        if self.seat_wakes[seat].take_if(|at| *at == self.now).is_some() {
            self.seats[seat].wake(self.now);
            self.carry_seat(seat);
        }
        Ok(())
    }

    fn submit(&mut self, order: usize) -> Result<(), Broken> {
        let Setup { jobs, .. } = &self.setup;
        let order_ = &jobs[order];
        let (number, asker) = (order_.number, order_.asker);
        if self.desks[asker].submit(job_id(number), order_, self.now)? {
            let kind = self.desks[asker].plan(job_id(number)).expect("a job that is taken has a plan").kind;
            self.trace.note(self.now, format_args!("asker{asker} begins job {number}: {kind:?}"));
            self.kinds.insert(number, kind);
            self.taken.insert(number, self.now);
            if let Some(patience) = self.setup.jobs[order].given_up {
                self.push(self.now + patience, Event::GivesUp(order));
            }
        } else {
            self.push(self.now + SUBMIT_AGAIN, Event::Submit(order));
        }
        self.carry_desk(asker)
    }

    fn give_up(&mut self, order: usize) -> Result<(), Broken> {
        let (number, asker) = (self.setup.jobs[order].number, self.setup.jobs[order].asker);
        if !self.desks[asker].runs() {
            self.push(self.now + SUBMIT_AGAIN, Event::GivesUp(order));
            return Ok(());
        }
        self.trace.note(self.now, format_args!("asker{asker} gives up job {number}"));
        self.desks[asker].give_up(job_id(number), self.now)?;
        self.carry_desk(asker)
    }

    fn start_seat(&mut self, seat: usize) -> Result<(), Broken> {
        let hosts = self.seats[seat].lender.host;
        if !self.seats[seat].runs() && hosts.is_none_or(|desk| self.desks[desk].runs()) {
            self.trace.note(self.now, format_args!("{} starts", self.seats[seat].name));
            self.seats[seat].start();
            for desk in 0..self.desks.len() {
                self.connect(Pair { desk, seat });
            }
        }
        Ok(())
    }

    fn restart_desk(&mut self, desk: usize) -> Result<(), Broken> {
        if self.desks[desk].runs() {
            return Ok(());
        }
        self.trace.note(self.now, format_args!("{} starts again", self.desks[desk].name));
        self.desks[desk].start(self.now)?;
        for seat in 0..self.seats.len() {
            if self.seats[seat].lender.host == Some(desk) {
                self.start_seat(seat)?;
            } else {
                self.connect(Pair { desk, seat });
            }
        }
        self.carry_desk(desk)
    }

    fn connect(&mut self, pair: Pair) {
        let runs = self.desks[pair.desk].runs() && self.seats[pair.seat].runs();
        if !runs || self.link(pair).is_up() {
            return;
        }
        let epoch = self.link(pair).connect();
        let soon = self.link(pair).latency() * 2;
        for end in [Way::Out, Way::Back] {
            let at = self.now + soon + self.noise.time_up_to(soon);
            self.push(at, Event::Connected { pair, epoch, end });
        }
    }

    /// Ends a connection; each end hears of it after its time, or at once if it is gone itself.
    fn disconnect(&mut self, pair: Pair, after: [Option<Duration>; 2]) {
        let link = self.links.get_mut(&pair).expect("every pair has a link");
        let epoch = link.disconnect();
        for (end, after) in [Way::Out, Way::Back].into_iter().zip(after) {
            match (after, epoch) {
                (None, _) => link.forget_all(end),
                (Some(after), Some(epoch)) => {
                    self.event_count += 1;
                    self.events.insert((self.now + after, self.event_count), Event::Lost { pair, epoch, end });
                }
                (Some(_), None) => {}
            }
        }
    }

    fn carry_desk(&mut self, desk: usize) -> Result<(), Broken> {
        for news in self.desks[desk].take_news() {
            self.trace.note(self.now, format_args!("asker{desk} tells: {news:?}"));
            self.count(desk, news)?;
        }
        for (to, message, body) in self.desks[desk].take_mail() {
            let Some(seat) = self.seat_names.get(&to).copied() else { continue };
            let is_risky = match message {
                // Said once, on a stream: losing one of these is losing the connection.
                ToWorker::Store { .. } => false,
                ToWorker::Assign { .. }
                | ToWorker::Cancel { .. }
                | ToWorker::Probe { .. }
                | ToWorker::Release { .. } => true,
            };
            let may_double = is_risky && !matches!(message, ToWorker::Assign { .. });
            self.send(Pair { desk, seat }, Message::ToWorker(message), body, is_risky, may_double);
        }
        if let Some(due) = self.desks[desk].due().map(|due| due.max(self.now))
            && self.desk_wakes[desk].is_none_or(|at| due < at)
        {
            self.desk_wakes[desk] = Some(due);
            self.push(due, Event::WakeDesk(desk));
        }
        Ok(())
    }

    fn carry_seat(&mut self, seat: usize) {
        for (to, message, body) in self.seats[seat].take_mail() {
            let Some(desk) = self.desk_names.get(&to).copied() else { continue };
            let is_risky = match message {
                ToRequester::Offer(_) | ToRequester::Leave => false,
                ToRequester::Heartbeat { .. } | ToRequester::Deliver { .. } | ToRequester::Refuse { .. } => true,
            };
            self.send(Pair { desk, seat }, Message::ToRequester(message), body, is_risky, is_risky);
        }
        if let Some(due) = self.seats[seat].due().map(|due| due.max(self.now))
            && self.seat_wakes[seat].is_none_or(|at| due < at)
        {
            self.seat_wakes[seat] = Some(due);
            self.push(due, Event::WakeSeat(seat));
        }
    }

    /// Puts a message on its way. What is risky may be lost and held back.
    fn send(&mut self, pair: Pair, message: Message, body: Arc<[u8]>, is_risky: bool, may_double: bool) {
        let way = if matches!(message, Message::ToWorker(_)) { Way::Out } else { Way::Back };
        let Some(epoch) = self.link(pair).sends_on(way) else { return };
        // A device loses nothing on the way to itself.
        let is_own = self.seats[pair.seat].lender.host == Some(pair.desk);
        let is_noisy = is_risky && !is_own && self.now < self.setup.calm;
        let noise = self.setup.noise;
        if is_noisy && self.noise.chance(noise.loss) {
            return self.trace.note(self.now, format_args!("lost {pair:?}: {}", Words(&message, &body)));
        }
        let copies = if is_noisy && may_double && self.noise.chance(noise.doubling) { 2 } else { 1 };
        for _ in 0..copies {
            let is_held = is_noisy && self.noise.chance(noise.delay);
            let held = if is_held { self.noise.time_up_to(Duration::from_secs(2)) } else { Duration::ZERO };
            let (jitter, now) = (self.noise.within([0, 200]), self.now);
            let at = self.link(pair).arrival(way, 60 + body.len(), jitter, held, now);
            self.push(at, Event::Arrives { pair, epoch, message: message.clone(), body: body.clone() });
        }
    }

    /// What a requester knows of a worker beside what that says.
    fn standing(&self, pair: Pair) -> Standing {
        let lender = &self.seats[pair.seat].lender;
        if lender.host == Some(pair.desk) {
            return Standing::own();
        }
        Standing { domain: TrustDomain(format!("domain{}", lender.domain)), is_own: false }
    }

    /// What the network tells a requester of the way to a worker.
    fn path(&self, pair: Pair) -> Option<Path> {
        let round_trip = self.links[&pair].latency() * 2;
        let bytes_per_second = self.seats[pair.seat].lender.bandwidth as f64;
        self.setup.paths_known.then_some(Path { round_trip, bytes_per_second })
    }

    /// The place of a lender whose process runs.
    fn seat_of(&self, lender: usize) -> Option<usize> {
        self.seats.iter().position(|seat| seat.lender.number == lender && seat.runs())
    }

    fn link(&mut self, pair: Pair) -> &mut Link {
        self.links.get_mut(&pair).expect("every pair has a link")
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.event_count += 1;
        self.events.insert((at.max(self.now), self.event_count), event);
    }
}

/// The id of a job of this number.
fn job_id(number: usize) -> JobId {
    JobId([number as u8 + 1; 16])
}
