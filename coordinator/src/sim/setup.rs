//! A generated world before it runs: who is there, what is asked for, and what goes wrong when. Plain data, so that a failing
//! one can be made smaller piece by piece.

use std::time::Duration;

use protocol::{Instant, JobSpec, PlanChoice, Policy};

use crate::sim::clock::Clock;
use crate::sim::temper::Temper;

/// A world.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// What the streams of randomness of its run derive from.
    pub seed: u64,
    /// How far its requesters believe their workers.
    pub policy: Policy,
    /// Whether requesters are told the round trip and bandwidth of each path.
    pub paths_known: bool,
    /// Who asks.
    pub askers: Vec<Asker>,
    /// Who lends.
    pub lenders: Vec<Lender>,
    /// What is asked for.
    pub jobs: Vec<Order>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// What the network does to single messages until [`Setup::calm`].
    pub noise: Noise,
    /// From when on nothing goes wrong any more, and everybody honest who stays is there.
    pub calm: Instant,
    /// Within this time from then on, and from the last submission on, every job ends.
    pub ends_within: Duration,
}

/// A requester.
#[derive(Clone, Debug, PartialEq)]
pub struct Asker {
    /// Half of its round trips.
    pub latency: Duration,
    /// Its clock.
    pub clock: Clock,
    /// Stages between two checkpoints.
    pub checkpoint_every: u32,
}

/// A worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Lender {
    /// Its number, which stays when others are left out.
    pub number: usize,
    /// Cost units per second, as [`protocol::Work::cost`] counts.
    pub speed: u64,
    /// By how many percent its units differ in time.
    pub jitter: u64,
    /// Half of its round trips.
    pub latency: Duration,
    /// Bytes per second of its links.
    pub bandwidth: u64,
    /// Its clock.
    pub clock: Clock,
    /// Its trust domain.
    pub domain: u32,
    /// Its numeric class.
    pub class: u8,
    /// Its behaviour.
    pub temper: Temper,
    /// The requester whose own machine it runs on, if any.
    pub host: Option<usize>,
    /// When it joins first.
    pub joins: Instant,
}

/// A job.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// Its number, which stays when others are left out.
    pub number: usize,
    /// Who asks.
    pub asker: usize,
    /// When.
    pub at: Instant,
    /// What for.
    pub spec: JobSpec,
    /// How to split.
    pub choice: PlanChoice,
    /// How long after its begin its requester gives it up, if it has not ended.
    pub given_up: Option<Duration>,
}

/// Something that goes wrong at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What goes wrong. Lenders are named by their number.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A worker says goodbye, and comes back after a while, if at all.
    Leaves {
        /// Who.
        lender: usize,
        /// After how long it joins again.
        back: Option<Duration>,
    },
    /// A worker's process ends without a word; its peers notice some time later.
    Dies {
        /// Who.
        lender: usize,
        /// When its peers notice.
        noticed: Duration,
        /// After how long it joins again.
        back: Option<Duration>,
    },
    /// A worker's process stands still.
    Freezes {
        /// Who.
        lender: usize,
        /// For how long.
        lasts: Duration,
    },
    /// A worker's engine hangs while its process says that it works.
    Hangs {
        /// Who.
        lender: usize,
        /// For how long.
        lasts: Duration,
    },
    /// All links between two parts of the room fail.
    Parts {
        /// The lenders on the far side.
        far: Vec<usize>,
        /// For how long.
        lasts: Duration,
    },
    /// The connection of a worker to a requester is lost and made again.
    Resets {
        /// The worker.
        lender: usize,
        /// The requester.
        asker: usize,
    },
    /// A requester's process ends and starts again, with its last checkpoints.
    Crashes {
        /// Who.
        asker: usize,
        /// After how long it starts again.
        back: Duration,
    },
}

/// Chances in a thousand for every message that the protocol must survive without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noise {
    /// It is lost.
    pub loss: u64,
    /// It arrives twice.
    pub doubling: u64,
    /// It is held back, and others overtake it.
    pub delay: u64,
}

impl Setup {
    /// Whether the lies of this world come from at most one trust domain.
    pub fn liars_share_a_domain(&self) -> bool {
        let mut domains = self.lenders.iter().filter(|lender| lender.temper.deceives()).map(|lender| lender.domain);
        let first = domains.next();
        domains.all(|domain| Some(domain) == first)
    }

    /// One line that says how large it is.
    pub fn summary(&self) -> String {
        let dishonest = self.lenders.iter().filter(|lender| lender.temper != Temper::Honest).count();
        let Self { policy, askers, lenders, jobs, faults, noise, .. } = self;
        format!(
            "{policy:?} room, {} requesters, {} workers ({dishonest} dishonest), {} jobs, {} faults, {noise:?}",
            askers.len(),
            lenders.len(),
            jobs.len(),
            faults.len()
        )
    }
}
