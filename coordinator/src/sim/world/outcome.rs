//! What became of a world: what was counted, and what must hold at its end.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::{Instant, PlanKind};

use super::{World, job_id};
use crate::sim::audit::Broken;
use crate::sim::desk::{Desk, End, News};
use crate::sim::seat::Seat;
use crate::sim::setup::Noise;
use crate::sim::temper::Temper;
use crate::sim::toy::paint_alone;

/// What became of a world.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// SHA-256 over the trace.
    pub hash: [u8; 32],
    /// The invariant that did not hold, if any.
    pub broken: Option<Broken>,
    /// The end of the trace, if it was kept.
    pub tail: Vec<String>,
    /// What was counted.
    pub tally: Tally,
    /// How long each job took from its submission, by its number; only those that ended with a picture.
    pub times: BTreeMap<usize, Duration>,
    /// How each job was split.
    pub kinds: BTreeMap<usize, PlanKind>,
}

/// Counts of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events on the queue.
    pub events: u64,
    /// Virtual milliseconds.
    pub millis: u64,
    /// Jobs that ended with a picture.
    pub painted: u64,
    /// Jobs that ended with reasons.
    pub failed: u64,
    /// Jobs that their requesters gave up.
    pub given_up: u64,
    /// Units that were accepted.
    pub accepted: u64,
    /// Units that engines began.
    pub begun: u64,
    /// Wrong bodies that were accepted where that may happen.
    pub wrong_accepted: u64,
    /// Times that a job went back to before a wrong answer.
    pub rolled_back: u64,
    /// Honest workers.
    pub honest: u64,
    /// Honest workers that somebody condemned.
    pub honest_condemned: u64,
    /// Deceivers.
    pub deceivers: u64,
    /// Dishonest workers that somebody condemned.
    pub dishonest_condemned: u64,
    /// Pauses of honest workers.
    pub honest_paused: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.events += other.events;
        self.millis += other.millis;
        self.painted += other.painted;
        self.failed += other.failed;
        self.given_up += other.given_up;
        self.accepted += other.accepted;
        self.begun += other.begun;
        self.wrong_accepted += other.wrong_accepted;
        self.rolled_back += other.rolled_back;
        self.honest += other.honest;
        self.honest_condemned += other.honest_condemned;
        self.deceivers += other.deceivers;
        self.dishonest_condemned += other.dishonest_condemned;
        self.honest_paused += other.honest_paused;
    }
}

impl World {
    pub(super) fn check_end(&mut self) -> Result<(), Broken> {
        for order in &self.setup.jobs {
            let desk = &self.desks[order.asker];
            match desk.end_of(job_id(order.number)) {
                None => return Err(Broken::new("I1", format!("job {} is lost", order.number))),
                Some(End::Failed | End::GivenUp) => {}
                Some(End::Painted) => {
                    let is_sure = desk.wrong_accepted() == 0 && self.seats.iter().all(|seat| seat.lender.class == 0);
                    if is_sure && desk.picture(job_id(order.number)) != Some(paint_alone(&order.spec, 0)) {
                        return Err(Broken::new("P1", format!("job {} has the wrong picture", order.number)));
                    }
                }
            }
        }
        for desk in &self.desks {
            let held = |roster: &crate::roster::Roster| roster.lenders().map(|(_, lender)| lender.leases_held()).sum();
            let held: usize = desk.roster().map_or(0, held);
            if held > 0 {
                return Err(Broken::new("I10", format!("{} still holds {held} leases after all jobs", desk.name)));
            }
        }
        // Workers have been told that their leases are over, unless the word was lost.
        let is_told = |seat: &&Seat| seat.lender.temper != Temper::Forgetful && seat.frozen_until < self.now;
        let idle = self.setup.noise == Noise::default();
        match self.seats.iter().filter(is_told).find(|seat| idle && seat.leases_held() > 0) {
            Some(seat) => Err(Broken::new("W1", format!("{} holds leases after all jobs", seat.name))),
            None => Ok(()),
        }
    }

    pub(super) fn outcome(mut self, broken: Option<Broken>) -> Outcome {
        let is_honest = |seat: &&Seat| seat.lender.temper == Temper::Honest;
        self.tally.millis = (self.now - Instant::ZERO).as_millis() as u64;
        self.tally.begun = self.seats.iter().map(|seat| seat.units_begun).sum();
        self.tally.wrong_accepted = self.desks.iter().map(Desk::wrong_accepted).sum();
        self.tally.honest = self.seats.iter().filter(is_honest).count() as u64;
        self.tally.deceivers = self.seats.iter().filter(|seat| seat.lender.temper.deceives()).count() as u64;
        let condemned = self.seats.iter().filter(|seat| self.condemned.contains(&seat.name));
        self.tally.honest_condemned = condemned.clone().filter(is_honest).count() as u64;
        self.tally.dishonest_condemned = condemned.count() as u64 - self.tally.honest_condemned;
        let times = self.ended.iter().filter_map(|(number, at)| {
            let painted = self.setup.jobs.iter().find(|order| order.number == *number)?;
            let end = self.desks[painted.asker].end_of(job_id(*number));
            (end == Some(End::Painted)).then(|| (*number, *at - self.taken[number]))
        });
        Outcome {
            hash: self.trace.hash(),
            broken,
            times: times.collect(),
            kinds: self.kinds,
            tail: self.trace.tail().map(str::to_owned).collect(),
            tally: self.tally,
        }
    }

    pub(super) fn count(&mut self, desk: usize, news: News) -> Result<(), Broken> {
        match news {
            News::Accepted(..) => self.tally.accepted += 1,
            News::Stage(..) | News::Dropped(..) => {}
            News::RolledBack(..) => self.tally.rolled_back += 1,
            News::Ended(id, end) => {
                let own = |order: &&crate::sim::setup::Order| order.asker == desk && job_id(order.number) == id;
                if let Some(order) = self.setup.jobs.iter().find(own) {
                    self.ended.insert(order.number, self.now);
                }
                match end {
                    End::Painted => self.tally.painted += 1,
                    End::Failed => self.tally.failed += 1,
                    End::GivenUp => self.tally.given_up += 1,
                }
            }
            News::Paused(peer, _) => {
                let honest = |seat: &usize| self.seats[*seat].lender.temper == Temper::Honest;
                self.tally.honest_paused += u64::from(self.seat_names.get(&peer).is_some_and(honest));
            }
            News::Condemned(peer, _) => {
                let seat = self.seat_names.get(&peer).map(|seat| &self.seats[*seat]);
                if seat.is_some_and(|seat| seat.lender.temper == Temper::Honest) && self.setup.liars_share_a_domain() {
                    return Err(Broken::new("H1", format!("honest {peer} is condemned")));
                }
                self.condemned.insert(peer);
            }
        }
        Ok(())
    }
}
