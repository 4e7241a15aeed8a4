//! How an emulated endpoint misbehaves, and when.

use std::collections::{BTreeSet, VecDeque};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// A way to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// Takes the job and never answers.
    TimeoutAfterAccept,
    /// Takes the job and answers 502.
    ErrorAfterAccept,
    /// Takes the job and breaks the connection within its answer.
    CutAfterAccept,
    /// Gives the job to two workers.
    DoubleDelivery,
    /// Tells of the job's end a minute late, and three times.
    LateWebhook,
    /// Somebody else tells of the job's end before it has begun.
    ForgedWebhook,
    /// Runs the job, and says that it knows of none.
    Vanish,
    /// Runs the job, and says for ever that it is in progress.
    Stuck,
    /// Says that the job took thirty years.
    WrongCost,
    /// Asks for fewer calls (429).
    Throttle,
    /// Sends the answer byte by byte, twenty in a second of real time.
    SlowBody,
    /// Sends an answer of 64 MiB.
    HugeBody,
    /// Does not accept the key (401).
    AuthRevoked,
    /// Has no money left (402).
    OutOfFunds,
    /// Has no money left, and says so in words only (400).
    OutOfFundsSaid,
    /// Refuses (400), and repeats the key and the prompt it was sent.
    Refuse,
    /// Fails without having taken anything, which nobody can know (500).
    Fault,
    /// The worker dies in the middle of its first run, and the endpoint runs the job again by itself.
    WorkerDies,
    /// The job fails with a plain text.
    Fail,
    /// The job fails with an exception as the Python SDK writes it.
    FailRaised,
    /// The job is completed and there is no result.
    NoOutput,
    /// The job's progress has a name that nobody has heard of.
    OddStatus,
    /// The job runs longer than its policy allows.
    Overrun,
}

impl Behaviour {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::TimeoutAfterAccept,
        Self::ErrorAfterAccept,
        Self::CutAfterAccept,
        Self::DoubleDelivery,
        Self::LateWebhook,
        Self::ForgedWebhook,
        Self::Vanish,
        Self::Stuck,
        Self::WrongCost,
        Self::Throttle,
        Self::SlowBody,
        Self::HugeBody,
        Self::AuthRevoked,
        Self::OutOfFunds,
        Self::OutOfFundsSaid,
        Self::Refuse,
        Self::Fault,
        Self::WorkerDies,
        Self::Fail,
        Self::FailRaised,
        Self::NoOutput,
        Self::OddStatus,
        Self::Overrun,
    ];

    /// Whether it can be had from a call that starts nothing.
    fn is_of_calls(self) -> bool {
        match self {
            Self::Throttle
            | Self::SlowBody
            | Self::HugeBody
            | Self::AuthRevoked
            | Self::OutOfFunds
            | Self::OutOfFundsSaid
            | Self::Refuse
            | Self::Fault => true,
            Self::TimeoutAfterAccept
            | Self::ErrorAfterAccept
            | Self::CutAfterAccept
            | Self::DoubleDelivery
            | Self::LateWebhook
            | Self::ForgedWebhook
            | Self::Vanish
            | Self::Stuck
            | Self::WrongCost
            | Self::WorkerDies
            | Self::Fail
            | Self::FailRaised
            | Self::NoOutput
            | Self::OddStatus
            | Self::Overrun => false,
        }
    }
}

/// What it is told; what is not named stays as it was. As JSON: `{"next":["throttle"],"always":["auth_revoked"]}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Orders {
    /// For the next calls of `/run`, `/runsync`, one each; they are added to those of before.
    pub next: Vec<Option<Behaviour>>,
    /// For the next other calls, one each.
    pub next_call: Vec<Option<Behaviour>>,
    /// For all calls from now on, as far as it can be had from them; an empty list ends it.
    pub always: Option<Vec<Behaviour>>,
    /// How likely a call that nothing else is told for misbehaves, 0 to 1.
    pub chance: Option<f64>,
    /// In which ways.
    pub of: Option<Vec<Behaviour>>,
}

impl Orders {
    /// The next call of `/run` misbehaves so.
    pub fn next(behaviour: Behaviour) -> Self {
        Self { next: vec![Some(behaviour)], ..Self::default() }
    }

    /// The next other call misbehaves so.
    pub fn next_call(behaviour: Behaviour) -> Self {
        Self { next_call: vec![Some(behaviour)], ..Self::default() }
    }

    /// All calls misbehave so from now on.
    pub fn always(behaviours: &[Behaviour]) -> Self {
        Self { always: Some(behaviours.to_vec()), ..Self::default() }
    }

    /// Calls misbehave so likely, in one of these ways.
    pub fn by_chance(chance: f64, of: &[Behaviour]) -> Self {
        Self { chance: Some(chance), of: Some(of.to_vec()), ..Self::default() }
    }
}

/// What is drawn for each call.
pub(crate) struct Script {
    next: VecDeque<Option<Behaviour>>,
    next_call: VecDeque<Option<Behaviour>>,
    always: BTreeSet<Behaviour>,
    chance: f64,
    of: Vec<Behaviour>,
    rng: StdRng,
}

impl Script {
    pub(crate) fn new(seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self {
            next: VecDeque::new(),
            next_call: VecDeque::new(),
            always: BTreeSet::new(),
            chance: 0.0,
            of: Vec::new(),
            rng,
        }
    }

    pub(crate) fn obey(&mut self, orders: Orders) {
        self.next.extend(orders.next);
        self.next_call.extend(orders.next_call);
        if let Some(always) = orders.always {
            self.always = always.into_iter().collect();
        }
        self.chance = orders.chance.unwrap_or(self.chance).clamp(0.0, 1.0);
        self.of = orders.of.unwrap_or_else(|| std::mem::take(&mut self.of));
    }

    /// How a call that starts a job misbehaves.
    pub(crate) fn of_run(&mut self) -> BTreeSet<Behaviour> {
        let next = self.next.pop_front();
        self.drawn(next, |_| true)
    }

    /// How any other call misbehaves.
    pub(crate) fn of_call(&mut self) -> BTreeSet<Behaviour> {
        let next = self.next_call.pop_front();
        self.drawn(next, Behaviour::is_of_calls)
    }

    fn drawn(&mut self, next: Option<Option<Behaviour>>, fits: impl Fn(Behaviour) -> bool) -> BTreeSet<Behaviour> {
        let mut drawn: BTreeSet<Behaviour> = self.always.iter().copied().filter(|one| fits(*one)).collect();
        let told = match next {
            Some(told) => told,
            None => self.by_chance(&fits),
        };
        drawn.extend(told);
        drawn
    }

    fn by_chance(&mut self, fits: &impl Fn(Behaviour) -> bool) -> Option<Behaviour> {
        let of: Vec<Behaviour> = self.of.iter().copied().filter(|one| fits(*one)).collect();
        if of.is_empty() || !self.rng.random_bool(self.chance) {
            return None;
        }
        Some(of[self.rng.random_range(0..of.len())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_comes_in_order_and_once() {
        let mut script = Script::new(1);
        script
            .obey(Orders { next: vec![Some(Behaviour::Stuck), None, Some(Behaviour::Throttle)], ..Orders::default() });
        let drawn: Vec<_> = (0..4).map(|_| script.of_run().into_iter().next()).collect();
        assert_eq!(drawn, [Some(Behaviour::Stuck), None, Some(Behaviour::Throttle), None]);
        assert!(script.of_call().is_empty());
    }

    #[test]
    fn always_is_until_told_otherwise_and_only_where_it_can_be() {
        let mut script = Script::new(1);
        script.obey(Orders::always(&[Behaviour::AuthRevoked, Behaviour::Stuck]));
        assert_eq!(script.of_run().len(), 2);
        assert_eq!(script.of_call(), BTreeSet::from([Behaviour::AuthRevoked]));
        script.obey(Orders::next(Behaviour::Fault));
        assert_eq!(script.of_run().len(), 3);
        script.obey(Orders::always(&[]));
        assert!(script.of_run().is_empty());
    }

    #[test]
    fn chance_is_of_the_seed() {
        let draw = |seed: u64| {
            let mut script = Script::new(seed);
            script.obey(Orders::by_chance(0.5, &Behaviour::ALL));
            (0..1000).map(|_| script.of_run()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        let often = draw(7).iter().filter(|drawn| !drawn.is_empty()).count();
        assert!((400..600).contains(&often), "{often}");
    }

    #[test]
    fn orders_are_read_from_json() {
        let orders: Orders = serde_json::from_str(r#"{"next":["double_delivery",null],"chance":0.1}"#).unwrap();
        assert_eq!(orders.next, [Some(Behaviour::DoubleDelivery), None]);
        assert!(serde_json::from_str::<Orders>(r#"{"nxt":[]}"#).is_err());
    }
}
