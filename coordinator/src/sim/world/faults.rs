//! What goes wrong in a world, when its time has come.

use std::time::Duration;

use super::{Event, World};
use crate::sim::audit::Broken;
use crate::sim::links::Pair;
use crate::sim::setup::What;

/// A connection that carries nothing for this long is given up by both ends.
const IDLE_MAX: Duration = Duration::from_secs(15);

impl World {
    pub(super) fn strike(&mut self, fault: usize) -> Result<(), Broken> {
        let what = self.setup.faults[fault].what.clone();
        self.trace.note(self.now, format_args!("{what:?}"));
        match what {
            What::Leaves { lender, back } => self.leave(lender, back),
            What::Dies { lender, noticed, back } => self.die(lender, noticed, back),
            What::Freezes { lender, lasts } => self.freeze(lender, lasts),
            What::Hangs { lender, lasts } => {
                if let Some(seat) = self.seat_of(lender) {
                    self.seats[seat].hang(self.now + lasts, self.now);
                    self.carry_seat(seat);
                }
            }
            What::Parts { far, lasts } => self.part(&far, lasts),
            What::Resets { lender, asker } => {
                if let Some(seat) = self.seat_of(lender) {
                    let pair = Pair { desk: asker, seat };
                    let hears = [(); 2].map(|()| Some(self.noise.time_up_to(Duration::from_millis(500))));
                    self.disconnect(pair, hears);
                    let again = self.now + self.noise.time_up_to(Duration::from_secs(1));
                    self.push(again, Event::Connects(pair));
                }
            }
            What::Crashes { asker, back } => self.crash(asker, back),
        }
        Ok(())
    }

    fn leave(&mut self, lender: usize, back: Option<Duration>) {
        let Some(seat) = self.seat_of(lender) else { return };
        if self.seats[seat].frozen_until > self.now {
            return self.die(lender, Duration::from_millis(5), back);
        }
        self.seats[seat].say_goodbye(self.now);
        self.carry_seat(seat);
        self.stop_seat(seat, Duration::ZERO, back);
    }

    fn die(&mut self, lender: usize, noticed: Duration, back: Option<Duration>) {
        if let Some(seat) = self.seat_of(lender) {
            self.stop_seat(seat, noticed, back);
        }
    }

    fn stop_seat(&mut self, seat: usize, noticed: Duration, back: Option<Duration>) {
        self.seats[seat].stop();
        for desk in 0..self.desks.len() {
            let pair = Pair { desk, seat };
            let after = noticed + self.link(pair).latency() * 2 + Duration::from_millis(1);
            self.disconnect(pair, [None, Some(after)]);
        }
        if let Some(back) = back {
            self.push(self.now + back, Event::Starts { seat });
        }
    }

    fn freeze(&mut self, lender: usize, lasts: Duration) {
        let Some(seat) = self.seat_of(lender).filter(|seat| self.seats[*seat].lender.host.is_none()) else { return };
        let thaws = self.now + lasts;
        self.seats[seat].frozen_until = self.seats[seat].frozen_until.max(thaws);
        self.seats[seat].hang(thaws, self.now);
        self.carry_seat(seat);
        if lasts > IDLE_MAX {
            for desk in 0..self.desks.len() {
                let pair = Pair { desk, seat };
                self.disconnect(pair, [Some(IDLE_MAX), Some(IDLE_MAX)]);
                self.push(thaws + Duration::from_millis(500), Event::Connects(pair));
            }
        }
    }

    fn part(&mut self, far: &[usize], lasts: Duration) {
        let until = self.now + lasts;
        for lender in far {
            let Some(seat) = self.setup.lenders.iter().position(|other| other.number == *lender) else { continue };
            for desk in 0..self.desks.len() {
                let pair = Pair { desk, seat };
                if self.seats[seat].lender.host == Some(desk) {
                    continue;
                }
                self.link(pair).part(until);
                if lasts > IDLE_MAX {
                    self.disconnect(pair, [Some(IDLE_MAX), Some(IDLE_MAX)]);
                    self.push(until + Duration::from_millis(500), Event::Connects(pair));
                }
            }
        }
    }

    fn crash(&mut self, desk: usize, back: Duration) {
        self.desks[desk].crash();
        self.desk_wakes[desk] = None;
        for seat in 0..self.seats.len() {
            if self.seats[seat].lender.host == Some(desk) {
                self.stop_seat(seat, Duration::from_millis(5), None);
            }
            let noticed = Duration::from_millis(5) + self.noise.time_up_to(Duration::from_secs(5));
            self.disconnect(Pair { desk, seat }, [Some(noticed), None]);
        }
        self.push(self.now + back, Event::Restarts { desk });
    }
}
