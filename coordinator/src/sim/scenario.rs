//! Scenarios: data files that say what kinds of worlds to draw, and the drawing.

use std::time::Duration;

use protocol::limits::LEASE_TIME_MAX;
use protocol::{Instant, JobSpec, Layout, PlanChoice, Policy, Size, Tiling, Wire, Work};
use serde::Deserialize;

use crate::sim::clock::Clock;
use crate::sim::rng::Rng;
use crate::sim::setup::{Asker, Fault, Lender, Noise, Order, Setup, What};
use crate::sim::temper::Temper;
use crate::sim::toy::{SHAPE, model};

/// The scenarios that come with the crate.
const FILES: &[&str] = &[
    include_str!("../../scenarios/calm.toml"),
    include_str!("../../scenarios/churn.toml"),
    include_str!("../../scenarios/network.toml"),
    include_str!("../../scenarios/stalls.toml"),
    include_str!("../../scenarios/broken.toml"),
    include_str!("../../scenarios/liars.toml"),
    include_str!("../../scenarios/crash.toml"),
    include_str!("../../scenarios/everything.toml"),
    include_str!("../../scenarios/classes.toml"),
    include_str!("../../scenarios/audits.toml"),
    include_str!("../../scenarios/ring.toml"),
    include_str!("../../scenarios/crowd.toml"),
    include_str!("../../scenarios/colluders.toml"),
];

/// A kind of world. Ranges are `[least, most]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub about: String,
    /// How often it is drawn in the mix; zero for those that are only run by name.
    pub weight: u64,
    /// How far its rooms believe their workers, drawn.
    policy: Vec<Named>,
    /// Workers beside the three honest ones that stay; doublings are equally likely.
    workers: [u64; 2],
    requesters: [u64; 2],
    /// Jobs in all.
    jobs: [u64; 2],
    steps: [u64; 2],
    /// Sides of the canvas in latent cells.
    cells: [u64; 2],
    /// Milliseconds that a tile of one guidance branch takes; doublings are equally likely.
    unit_ms: [u64; 2],
    rtt_ms: [u64; 2],
    kib_per_s: [u64; 2],
    /// How long faults go on.
    faults_s: u64,
    /// Mean stay of a worker; zero if nobody leaves.
    #[serde(default)]
    session_s: [u64; 2],
    #[serde(default)]
    partitions: [u64; 2],
    #[serde(default)]
    resets: [u64; 2],
    #[serde(default)]
    stalls: [u64; 2],
    /// Crashes of requesters.
    #[serde(default)]
    crashes: [u64; 2],
    #[serde(default)]
    loss_permille: [u64; 2],
    #[serde(default)]
    doubling_permille: [u64; 2],
    #[serde(default)]
    delay_permille: [u64; 2],
    /// Share of dishonest workers among those who do not stay for certain.
    #[serde(default)]
    dishonest_percent: [u64; 2],
    /// Their behaviours, drawn; empty for all.
    #[serde(default)]
    tempers: Vec<Temper>,
    /// In how many trust domains the deceivers are.
    #[serde(default = "one")]
    bad_domains: u64,
    /// Requesters that lend to themselves.
    #[serde(default = "two_thirds")]
    own_percent: u64,
    /// Numeric classes in the room.
    #[serde(default = "one_of_one")]
    classes: [u64; 2],
    /// Whether clocks run at 0.9 to 1.1.
    #[serde(default)]
    skewed: bool,
}

/// A policy by its name.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Named(Policy);

impl TryFrom<String> for Named {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Policy::parse(&name).map(Self).ok_or_else(|| format!("there is no policy {name:?}"))
    }
}

/// What is wrong with a scenario file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the scenario cannot be read: {0}")]
pub struct ScenarioError(String);

impl Scenario {
    /// Reads a scenario.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        toml::from_str(text).map_err(|error| ScenarioError(error.to_string()))
    }

    /// Those that come with the crate.
    pub fn all() -> Vec<Self> {
        FILES.iter().map(|text| Self::parse(text).expect("the crate's scenarios are tested")).collect()
    }

    /// The scenario of a seed in the mix.
    pub fn of_mix(scenarios: &[Self], seed: u64) -> &Self {
        let total = scenarios.iter().map(|scenario| scenario.weight).sum::<u64>();
        let mut ticket = Rng::new(seed, "scenario").next() % total.max(1);
        let drawn = scenarios.iter().find(|scenario| {
            let wins = ticket < scenario.weight;
            ticket = ticket.saturating_sub(scenario.weight);
            wins
        });
        drawn.expect("the ticket is below the sum of the weights")
    }

    /// Draws the world of a seed.
    pub fn draw(&self, seed: u64) -> Setup {
        let mut rng = Rng::new(seed, &self.name);
        let calm = Instant::ZERO + Duration::from_secs(self.faults_s);
        let Named(policy) = *rng.pick(&self.policy);
        let askers: Vec<Asker> = (0..rng.within(self.requesters)).map(|_| self.asker(&mut rng)).collect();
        let lenders = self.lenders(&mut rng, askers.len(), calm);
        let slowest = lenders.iter().take(STAYING).map(|lender| lender.speed).min().unwrap_or(1);
        let jobs: Vec<Order> = (0..rng.within(self.jobs) as usize)
            .map(|number| self.order(&mut rng, number, askers.len()).within(slowest))
            .collect();
        let mut faults = self.churn(&mut rng, &lenders, calm);
        faults.extend(self.accidents(&mut rng, &lenders, askers.len(), calm));
        faults.sort_by_key(|fault| fault.at);
        let noise = Noise {
            loss: rng.within(self.loss_permille),
            doubling: rng.within(self.doubling_permille),
            delay: rng.within(self.delay_permille),
        };
        let work = jobs.iter().map(Order::cost).sum::<u64>() / slowest;
        let ends_within = PATIENCE + Duration::from_secs(SLOWEST_TIMES * work);
        let paths_known = rng.chance(500);
        Setup { seed, policy, paths_known, askers, lenders, jobs, faults, noise, calm, ends_within }
    }

    fn clock(&self, rng: &mut Rng) -> Clock {
        if !self.skewed {
            return Clock::TRUE;
        }
        Clock { offset: Duration::from_secs(rng.within([0, 1_000_000])), rate: rng.within([900_000, 1_100_000]) }
    }

    fn latency(&self, rng: &mut Rng) -> Duration {
        // Half a round trip is the sum of two such halves.
        let [least, most] = self.rtt_ms;
        Duration::from_micros(rng.log_within([least * 500, most * 500]) / 2)
    }

    fn asker(&self, rng: &mut Rng) -> Asker {
        Asker { latency: self.latency(rng), clock: self.clock(rng), checkpoint_every: rng.within([1, 4]) as u32 }
    }

    fn lenders(&self, rng: &mut Rng, askers: usize, calm: Instant) -> Vec<Lender> {
        let others = rng.log_within(self.workers) as usize;
        let dishonest = rng.within(self.dishonest_percent) * 10;
        let classes = rng.within(self.classes) as u8;
        // Some requesters lend to themselves: one of those who stay, or one of the others.
        let own = |desk: usize| {
            let device = *rng.pick(&[if desk < STAYING { desk } else { STAYING + desk }, STAYING + desk]);
            rng.chance(self.own_percent * 10).then_some(device)
        };
        let owns: Vec<Option<usize>> = (0..askers).map(own).collect();
        let lender = |number: usize| {
            let stays = number < STAYING;
            let is_dishonest = !stays && rng.chance(dishonest);
            let tempers = if self.tempers.is_empty() { &Temper::DISHONEST[..] } else { &self.tempers };
            let temper = if is_dishonest { *rng.pick(tempers) } else { Temper::Honest };
            // A tile of one branch costs sixteen.
            let speed = 16_000 / rng.log_within(self.unit_ms).max(1);
            // One's own device may be broken, but does not deceive.
            let host = owns.iter().position(|own| *own == Some(number) && !temper.deceives());
            Lender {
                number,
                speed: speed.max(1),
                jitter: rng.within([0, 25]),
                latency: self.latency(rng),
                bandwidth: 1024 * rng.log_within(self.kib_per_s),
                clock: self.clock(rng),
                domain: if temper.deceives() {
                    1000 + rng.below(self.bad_domains as usize) as u32
                } else {
                    number as u32
                },
                class: if classes > 1 && !stays { rng.below(classes as usize) as u8 } else { 0 },
                temper,
                host,
                joins: Instant::ZERO
                    + if rng.chance(700) { Duration::ZERO } else { rng.time_up_to((calm - Instant::ZERO) / 2) },
            }
        };
        (0..STAYING + others).map(lender).collect()
    }

    fn order(&self, rng: &mut Rng, number: usize, askers: usize) -> Order {
        let side = |rng: &mut Rng| rng.within(self.cells) as u32 * SHAPE.factor;
        let size = Size { width: side(rng), height: side(rng) };
        let choice = *rng.pick(CHOICES);
        let mut layout = Layout::new(choice, size, &SHAPE);
        layout.decode_tiles = rng.chance(500).then_some(Tiling { tile: 4, overlap: 1 });
        layout.wire = Wire::F32;
        let spec = JobSpec {
            model: model(),
            prompt: format!("picture {}", rng.below(1000)),
            negative: ["", "fog"][rng.below(2)].into(),
            size,
            steps: rng.within(self.steps) as u32,
            guidance: [1.0, 3.0, 7.5][rng.below(3)],
            seed: rng.next(),
            layout,
        };
        let at = Instant::ZERO + Duration::from_millis(500) + rng.time_up_to(Duration::from_secs(self.faults_s) / 2);
        let given_up = rng.chance(100).then(|| rng.time_up_to(Duration::from_secs(5)));
        Order { number, asker: rng.below(askers), at, spec, choice, given_up }
    }

    /// When workers leave and come back. Those that stay for certain do so only in the calm.
    fn churn(&self, rng: &mut Rng, lenders: &[Lender], calm: Instant) -> Vec<Fault> {
        let mean = Duration::from_secs(rng.log_within(self.session_s));
        let mut faults = Vec::new();
        if self.session_s[1] == 0 {
            return faults;
        }
        for lender in lenders {
            let mut at = lender.joins + rng.exponential(mean);
            while at < calm {
                let away = match rng.chance(300) {
                    true => Duration::from_millis(100) + rng.time_up_to(Duration::from_millis(400)),
                    false => Duration::from_millis(200) + rng.exponential(Duration::from_secs(8)),
                };
                let comes_back = at + away < calm && rng.chance(800) || lender.number < STAYING;
                let back = comes_back.then_some(away.min(calm - at));
                let what = match rng.below(3) {
                    0 => What::Leaves { lender: lender.number, back },
                    _ => {
                        let noticed = if rng.chance(500) {
                            Duration::from_millis(5)
                        } else {
                            rng.time_up_to(Duration::from_secs(12))
                        };
                        What::Dies { lender: lender.number, noticed, back }
                    }
                };
                faults.push(Fault { at, what });
                if !comes_back {
                    break;
                }
                at = at + away + Duration::from_secs(1) + rng.exponential(mean);
            }
        }
        faults
    }

    fn accidents(&self, rng: &mut Rng, lenders: &[Lender], askers: usize, calm: Instant) -> Vec<Fault> {
        let mut faults = Vec::new();
        let span = calm - Instant::ZERO;
        let at = |rng: &mut Rng| Instant::ZERO + rng.time_up_to(span * 3 / 4);
        let lasting = |rng: &mut Rng, at: Instant, most: u64| {
            Duration::from_millis(rng.log_within([200, most * 1000])).min(calm - at)
        };
        for _ in 0..rng.within(self.partitions) {
            let at = at(rng);
            let far = lenders.iter().map(|lender| lender.number).filter(|_| rng.chance(400)).collect();
            faults.push(Fault { at, what: What::Parts { far, lasts: lasting(rng, at, 30) } });
        }
        for _ in 0..rng.within(self.resets) {
            let (lender, asker) = (rng.pick(lenders).number, rng.below(askers));
            faults.push(Fault { at: at(rng), what: What::Resets { lender, asker } });
        }
        for _ in 0..rng.within(self.stalls) {
            let (at, lender) = (at(rng), rng.pick(lenders).number);
            let lasts = lasting(rng, at, 60);
            let freezes = rng.chance(500);
            let what = if freezes { What::Freezes { lender, lasts } } else { What::Hangs { lender, lasts } };
            faults.push(Fault { at, what });
        }
        for _ in 0..rng.within(self.crashes) {
            let (at, asker) = (at(rng), rng.below(askers));
            faults.push(Fault { at, what: What::Crashes { asker, back: lasting(rng, at, 10) } });
        }
        faults
    }
}

/// From the last fault on, jobs have this long beside their work: one lease that is held as long as one may be.
const PATIENCE: Duration = LEASE_TIME_MAX;

/// Beside that, this many times as long as the slowest of those who stay would need for everything: in a paranoid room it
/// has to compute everything, and some of it twice.
const SLOWEST_TIMES: u64 = 3;

/// How people ask for their pictures to be split.
const CHOICES: &[PlanChoice] =
    &[PlanChoice::Auto, PlanChoice::Auto, PlanChoice::Whole, PlanChoice::Tiles, PlanChoice::Shifted, PlanChoice::Cfg];

/// A whole picture may be one unit, and a lease longer than [`LEASE_TIME_MAX`] is taken back: nothing is asked for that would
/// take the slowest of those who stay nearly as long.
const WHOLE_PICTURE_MAX: Duration = Duration::from_secs(150);

impl Order {
    /// What one unit of all of it costs.
    fn cost(&self) -> u64 {
        Work::Paint { spec: Box::new(self.spec.clone()) }.cost(&SHAPE)
    }

    /// The same with so few steps that a worker of this speed can do all of it in one lease.
    fn within(mut self, speed: u64) -> Self {
        while self.spec.steps > 1 && self.cost() > speed * WHOLE_PICTURE_MAX.as_secs() {
            self.spec.steps /= 2;
        }
        self
    }
}

/// Honest workers, each of its own domain, that are there when the faults are over.
pub const STAYING: usize = 3;

fn two_thirds() -> u64 {
    66
}

fn one() -> u64 {
    1
}

fn one_of_one() -> [u64; 2] {
    [1, 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenarios_of_the_crate_can_be_read_and_drawn() {
        let all = Scenario::all();
        let names: std::collections::BTreeSet<&str> = all.iter().map(|scenario| scenario.name.as_str()).collect();
        assert_eq!(names.len(), all.len(), "every scenario has its own name");
        for scenario in &all {
            for seed in 0..50 {
                let setup = scenario.draw(seed);
                assert_eq!(setup, scenario.draw(seed), "a seed is a world");
                assert!(setup.jobs.iter().all(|order| order.spec.check(&SHAPE).is_ok()), "{} {seed}", scenario.name);
                assert!(setup.faults.iter().all(|fault| fault.at < setup.calm), "{} {seed}", scenario.name);
            }
        }
        let drawn: std::collections::BTreeSet<&str> =
            (0..1000).map(|seed| Scenario::of_mix(&all, seed).name.as_str()).collect();
        assert_eq!(drawn.len(), all.iter().filter(|scenario| scenario.weight > 0).count(), "the mix has them all");
    }

    #[test]
    fn a_scenario_with_a_misspelt_line_is_refused() {
        let error = Scenario::parse("name = \"x\"\nabuot = \"y\"").unwrap_err();
        assert!(error.to_string().contains("abuot"), "{error}");
    }
}
