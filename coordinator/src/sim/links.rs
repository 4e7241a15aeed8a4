//! Links between requesters and workers: how long messages are under way, and which connection they travel on.
//!
//! A connection keeps order, as a stream does, except for what [`Noise`](crate::sim::setup::Noise) holds back. Its two ends
//! hear of it at different times; what travels on a connection that an end no longer has is lost.

use std::time::Duration;

use protocol::Instant;

/// Which way a message goes; also the end at which it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// To the worker.
    Out,
    /// To the requester.
    Back,
}

/// A requester and a worker, by their places in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The requester.
    pub desk: usize,
    /// The worker.
    pub seat: usize,
}

/// The link of a pair.
#[derive(Clone, Debug)]
pub struct Link {
    /// Half a round trip.
    latency: Duration,
    bandwidth: u64,
    /// The connection that is made or kept, counted from one; zero if there never was one.
    epoch: u32,
    is_up: bool,
    /// The connection that each end knows, the worker's end first.
    known: [Option<u32>; 2],
    /// The last connection that each end knows to be lost.
    lost: [u32; 2],
    /// When the last byte of what was sent before leaves and arrives, each way.
    free: [Instant; 2],
    last: [Instant; 2],
    /// Until when nothing passes.
    parted_until: Instant,
}

impl Link {
    /// A link without a connection.
    pub fn new(latency: Duration, bandwidth: u64) -> Self {
        let zero = [Instant::ZERO; 2];
        let parted_until = Instant::ZERO;
        Self {
            latency,
            bandwidth,
            epoch: 0,
            is_up: false,
            known: [None; 2],
            lost: [0; 2],
            free: zero,
            last: zero,
            parted_until,
        }
    }

    /// Makes a new connection; returns its number.
    pub fn connect(&mut self) -> u32 {
        self.epoch += 1;
        self.is_up = true;
        self.free = [Instant::ZERO; 2];
        self.last = [Instant::ZERO; 2];
        self.epoch
    }

    /// Ends the present connection, if there is one; returns its number.
    pub fn disconnect(&mut self) -> Option<u32> {
        std::mem::take(&mut self.is_up).then_some(self.epoch)
    }

    /// Whether a connection is made or kept.
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// Nothing passes until then.
    pub fn part(&mut self, until: Instant) {
        self.parted_until = self.parted_until.max(until);
    }

    /// An end hears that a connection is made. False if it knows a newer one, or that this one is lost.
    pub fn learn(&mut self, end: Way, epoch: u32) -> bool {
        let is_news = self.is_ahead(end, epoch);
        if is_news {
            self.known[end as usize] = Some(epoch);
        }
        is_news
    }

    /// An end hears that a connection is lost. False if it knows a newer one, or never knew this one.
    pub fn forget(&mut self, end: Way, epoch: u32) -> bool {
        self.lost[end as usize] = self.lost[end as usize].max(epoch);
        self.known[end as usize].take_if(|known| *known == epoch).is_some()
    }

    /// An end is gone, and with it all that it knew.
    pub fn forget_all(&mut self, end: Way) {
        self.lost[end as usize] = self.epoch;
        self.known[end as usize] = None;
    }

    /// Whether a connection is newer than the one this end knows.
    pub fn is_ahead(&self, end: Way, epoch: u32) -> bool {
        epoch > self.known[end as usize].unwrap_or(0).max(self.lost[end as usize])
    }

    /// The connection that this end knows.
    pub fn known(&self, end: Way) -> Option<u32> {
        self.known[end as usize]
    }

    /// The connection on which a message that is sent this way travels.
    pub fn sends_on(&self, way: Way) -> Option<u32> {
        match way {
            Way::Out => self.known[Way::Back as usize],
            Way::Back => self.known[Way::Out as usize],
        }
    }

    /// When a message of this size that is sent at `now` arrives, `held` later than those before it need.
    pub fn arrival(&mut self, way: Way, bytes: usize, jitter_permille: u64, held: Duration, now: Instant) -> Instant {
        let way = way as usize;
        let takes = Duration::from_micros(bytes as u64 * 1_000_000 / self.bandwidth);
        self.free[way] = self.free[way].max(now) + takes;
        let latency = self.latency + self.latency * jitter_permille as u32 / 1000;
        // What is sent while the link is parted is sent again when it is not.
        let begins = if now < self.parted_until { self.parted_until.max(self.free[way]) } else { self.free[way] };
        let in_order = (begins + latency).max(self.last[way]);
        if held.is_zero() {
            self.last[way] = in_order;
        }
        in_order + held
    }

    /// Half a round trip.
    pub fn latency(&self) -> Duration {
        self.latency
    }
}
