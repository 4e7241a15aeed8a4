//! How long one job takes in an undisturbed room, against what no schedule can beat and against the best peer alone.

use std::time::Duration;

use protocol::{Instant, JobSpec, Layout, PlanChoice, PlanKind, Policy, Size, Tiling, Wire};

use crate::sim::clock::Clock;
use crate::sim::rng::Rng;
use crate::sim::setup::{Asker, Lender, Noise, Order, Setup};
use crate::sim::temper::Temper;
use crate::sim::toy::{Painting, SHAPE, model};
use crate::sim::world::run;

/// The room is quiet for this long before the job, so that everybody is there.
const SETTLED: Duration = Duration::from_secs(5);

/// One slow peer alone may take long.
const PATIENCE: Duration = Duration::from_secs(1_000_000);

/// Work is called divisible from this many units of a stage for each peer.
const UNITS_PER_PEER: usize = 16;

/// Work is called divisible where the quickest peer's unit takes this many times the longest round trip.
const UNIT_PER_RTT: u32 = 2;

/// One room's figures, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Makespan {
    /// Peers that lend.
    pub peers: usize,
    /// Whether a stage has many units for each peer, and a unit takes well above a round trip.
    pub is_divisible: bool,
    /// How the job was split.
    pub kind: PlanKind,
    /// As measured.
    pub measured: f64,
    /// The larger of total work over total speed and the longest chain on the quickest peer.
    pub bound: f64,
    /// Stage by stage, the least time in which whole units can be computed and come back.
    pub integer_bound: f64,
    /// The best peer alone, as measured.
    pub alone: f64,
}

/// Draws a room and measures it; its requester is told the paths' round trips and bandwidths, or has to find out. `None` if the job does not end, which no undisturbed room may do.
pub fn makespan(seed: u64, paths_known: bool) -> Option<Makespan> {
    let setup = Setup { paths_known, ..draw(seed) };
    let order = &setup.jobs[0];
    let outcome = run(&setup, false);
    let measured = outcome.times.get(&0).filter(|_| outcome.broken.is_none())?.as_secs_f64();
    let kind = outcome.kinds[&0];
    let works = stages(&order.spec, finest(&order.spec, kind));
    let parts =
        stages(&order.spec, if order.spec.layout.tiles.is_whole() { PlanKind::Cfg } else { PlanKind::CfgTiles });
    let best = (0..setup.lenders.len()).min_by(|one, other| {
        let alone = |index: &usize| integer_bound(&works, &setup, &setup.lenders[*index..=*index]);
        alone(one).total_cmp(&alone(other))
    })?;
    let alone = Setup { lenders: vec![setup.lenders[best].clone()], ..setup.clone() };
    let alone = run(&alone, false).times.get(&0)?.as_secs_f64();
    let units = works.iter().map(|stage| stage.units).max().unwrap_or(0);
    let quickest = setup.lenders.iter().map(|lender| lender.speed).max()?;
    let unit = works.iter().max_by_key(|stage| stage.units)?.cost as f64 / quickest as f64;
    let longest = setup.lenders.iter().map(|lender| rtt(&setup, lender)).fold(0.0, f64::max);
    Some(Makespan {
        peers: setup.lenders.len(),
        is_divisible: units >= UNITS_PER_PEER * setup.lenders.len() && unit >= f64::from(UNIT_PER_RTT) * longest,
        kind,
        measured,
        bound: bound(&parts, &setup),
        integer_bound: integer_bound(&works, &setup, &setup.lenders),
        alone,
    })
}

/// The stages of a job in units of this kind.
fn stages(spec: &JobSpec, kind: PlanKind) -> Vec<StageWork> {
    Painting::works_of(spec, kind).into_iter().map(|(units, cost)| StageWork { units, cost }).collect()
}

/// The smallest units of the job's layout: of these is what nobody can beat. Runs of steps and whole pictures spare the way
/// there and back instead, and are held to their own.
fn finest(spec: &JobSpec, kind: PlanKind) -> PlanKind {
    match kind {
        PlanKind::Whole | PlanKind::Runs { .. } => kind,
        PlanKind::Cfg | PlanKind::Tiles | PlanKind::CfgTiles if spec.layout.tiles.is_whole() => PlanKind::Cfg,
        PlanKind::Cfg | PlanKind::Tiles | PlanKind::CfgTiles => PlanKind::CfgTiles,
    }
}

struct StageWork {
    units: usize,
    /// Of one unit.
    cost: u64,
}

fn rtt(setup: &Setup, lender: &Lender) -> f64 {
    2.0 * (setup.askers[0].latency + lender.latency).as_secs_f64()
}

fn bound(works: &[StageWork], setup: &Setup) -> f64 {
    let total: u64 = works.iter().map(|stage| stage.units as u64 * stage.cost).sum();
    let speed: u64 = setup.lenders.iter().map(|lender| lender.speed).sum();
    let quickest = setup.lenders.iter().map(|lender| lender.speed).max().unwrap_or(1);
    let chain: u64 = works.iter().map(|stage| stage.cost).sum();
    (total as f64 / speed as f64).max(chain as f64 / quickest as f64)
}

/// The sum over stages of the least time in which the peers can compute that many whole units and have them back.
fn integer_bound(works: &[StageWork], setup: &Setup, lenders: &[Lender]) -> f64 {
    let stage = |stage: &StageWork| {
        let done = |time: f64| -> f64 {
            let of = |lender: &Lender| {
                let service = stage.cost as f64 / lender.speed as f64;
                ((time - rtt(setup, lender)) / service + 1e-9).floor().max(0.0)
            };
            lenders.iter().map(of).sum()
        };
        let (mut least, mut most) = (0.0, 1e9);
        for _ in 0..60 {
            let middle = (least + most) / 2.0;
            if done(middle) >= stage.units as f64 { most = middle } else { least = middle }
        }
        most
    };
    works.iter().map(stage).sum()
}

/// A room of 1 to 64 honest peers, speeds 1 to 20, round trips of 1 to 400 ms, and one job.
fn draw(seed: u64) -> Setup {
    let mut rng = Rng::new(seed, "makespan");
    let peers = rng.log_within([1, 64]) as usize;
    // A tile of one branch costs sixteen; it takes the quickest peers this long.
    let unit_ms = rng.log_within([5, 400]);
    let rtt_ms = rng.log_within([1, 400]);
    let latency = |rng: &mut Rng| Duration::from_micros(rng.within([250, 250 * rtt_ms]));
    let asker = Asker { latency: latency(&mut rng), clock: Clock::TRUE, checkpoint_every: 1 };
    let lender = |number: usize| Lender {
        number,
        speed: (16_000 * 20 / (unit_ms * rng.log_within([20, 400]))).max(1),
        jitter: 0,
        latency: latency(&mut rng),
        bandwidth: 1024 * 1024 * rng.log_within([1, 64]),
        clock: Clock::TRUE,
        domain: number as u32,
        class: 0,
        temper: Temper::Honest,
        host: None,
        joins: Instant::ZERO,
    };
    let lenders = (0..peers).map(lender).collect();
    let side = |rng: &mut Rng| SHAPE.factor * 2 * rng.log_within([2, 17]) as u32;
    let size = Size { width: side(&mut rng), height: side(&mut rng) };
    let choice = PlanChoice::Auto;
    let mut layout = Layout::new(choice, size, &SHAPE);
    layout.decode_tiles = (!layout.tiles.is_whole()).then_some(Tiling { tile: 4, overlap: 1 });
    layout.wire = Wire::F32;
    let spec = JobSpec {
        model: model(),
        prompt: "a quiet room".into(),
        negative: String::new(),
        size,
        steps: rng.within([4, 10]) as u32,
        guidance: [1.0, 7.5][rng.below(2)],
        seed: rng.next(),
        layout,
    };
    let jobs = vec![Order { number: 0, asker: 0, at: Instant::ZERO + SETTLED, spec, choice, given_up: None }];
    Setup {
        seed,
        policy: Policy::Friends,
        paths_known: true,
        askers: vec![asker],
        lenders,
        jobs,
        faults: Vec::new(),
        noise: Noise::default(),
        calm: Instant::ZERO,
        ends_within: PATIENCE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_room_beats_what_no_schedule_can_beat() {
        for seed in 0..40 {
            let Makespan { measured, bound, integer_bound, .. } =
                makespan(seed, true).expect("an undisturbed job ends");
            assert!(measured >= bound * 0.999, "seed {seed}: {measured} s, bound {bound} s");
            assert!(measured >= integer_bound * 0.999, "seed {seed}: {measured} s, bound {integer_bound} s");
        }
    }
}
