//! Amounts, prices, budgets, and the entries of the ledger.

use std::fmt;
use std::iter::Sum;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attempt::AttemptKey;
use crate::names::{JobId, RoomName, UserName};
use crate::time::UnixMs;

/// Millionths of a US dollar. Money is never a float; what a configuration gives in dollars is rounded up where it is a price
/// and down where it is a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MicroUsd(pub u64);

impl MicroUsd {
    /// Dollars rounded up; `None` unless finite, not negative and below a billion.
    pub fn from_usd_up(usd: f64) -> Option<Self> {
        (usd.is_finite() && (0.0..1.0e9).contains(&usd)).then(|| Self((usd * 1.0e6).ceil() as u64))
    }

    /// Dollars rounded down; `None` unless finite, not negative and below a billion.
    pub fn from_usd_down(usd: f64) -> Option<Self> {
        // A hundred-millionth is added because 0.29 dollars are 289,999.99… millionths in binary.
        (usd.is_finite() && (0.0..1.0e9).contains(&usd)).then(|| Self((usd * 1.0e6 + 0.01).floor() as u64))
    }

    /// Dollars, for people and JSON.
    pub fn usd(self) -> f64 {
        self.0 as f64 / 1.0e6
    }

    /// The sum; the largest amount where it does not fit.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference; nothing where it would be negative.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for MicroUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Self::plus)
    }
}

impl fmt::Display for MicroUsd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "${}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// What a second of an endpoint's worker costs, and the times that are paid beside the work itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// For each second or part of one.
    pub per_second: MicroUsd,
    /// The longest a cold start is paid for.
    pub cold_start_max: Duration,
    /// The longest a job may run (`policy.executionTimeout`).
    pub execution_max: Duration,
    /// How long a worker idles, paid, after a job (RunPod: 5 s unless set otherwise).
    pub idle: Duration,
}

impl Price {
    /// The most that one attempt can cost: what is held before it.
    pub fn worst(&self) -> MicroUsd {
        self.of(self.cold_start_max + self.execution_max + self.idle)
    }

    /// What an attempt cost that took so long to start and to execute, never more than [`Self::worst`]: the endpoint ends a
    /// job at `executionTimeout`, so a longer time is a wrong report.
    pub fn measured(&self, cold_start: Duration, execution: Duration) -> MicroUsd {
        let cold_start = cold_start.min(self.cold_start_max);
        self.of(cold_start + execution.min(self.execution_max) + self.idle).min(self.worst())
    }

    fn of(&self, time: Duration) -> MicroUsd {
        let seconds = u64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
        MicroUsd(seconds.saturating_mul(self.per_second.0))
    }
}

/// Which budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Everything ever spent by this queue.
    Total,
    /// Everything of one day.
    Day,
    /// One user's of one day.
    UserDay,
    /// One room's of one day.
    RoomDay,
}

/// Ceilings on holds and charges together. Nothing is spent unless every one of them says how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budgets {
    /// Of this queue for ever: the prepaid amount.
    pub total: MicroUsd,
    /// Of a day.
    pub day: MicroUsd,
    /// Of each user on a day.
    pub user_day: MicroUsd,
    /// Of each room on a day.
    pub room_day: MicroUsd,
}

/// What is held or charged already, for one user and room on one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spending {
    /// Of this queue for ever.
    pub total: MicroUsd,
    /// Of the day.
    pub day: MicroUsd,
    /// Of the user on the day.
    pub user_day: MicroUsd,
    /// Of the room on the day.
    pub room_day: MicroUsd,
}

/// A hold would exceed a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{hold} more would exceed the budget {budget:?}: {spent} of {limit} are spent or held")]
pub struct OverBudget {
    /// Which.
    pub budget: Budget,
    /// What was to be held.
    pub hold: MicroUsd,
    /// What is spent or held.
    pub spent: MicroUsd,
    /// The ceiling.
    pub limit: MicroUsd,
}

impl Budgets {
    /// Whether `hold` fits under every ceiling beside what is `spent`; says which is in the way.
    pub fn permit(&self, hold: MicroUsd, spent: &Spending) -> Result<(), OverBudget> {
        let lines = [
            (Budget::Total, spent.total, self.total),
            (Budget::Day, spent.day, self.day),
            (Budget::RoomDay, spent.room_day, self.room_day),
            (Budget::UserDay, spent.user_day, self.user_day),
        ];
        for (budget, spent, limit) in lines {
            if spent.plus(hold) > limit {
                return Err(OverBudget { budget, hold, spent, limit });
            }
        }
        Ok(())
    }
}

/// What an entry of the ledger says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// The worst case was set aside.
    Hold,
    /// A hold ended.
    Release,
    /// Money was spent, as far as can be measured.
    Charge,
    /// The room did itself what the cloud would have charged so much for.
    Saving,
}

/// One line of the ledger, written once and never changed. Of every attempt, holds equal releases when it is settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: UnixMs,
    /// For which job.
    pub job: JobId,
    /// For which paid attempt; `None` for a saving.
    pub attempt: Option<AttemptKey>,
    /// Whose.
    pub user: UserName,
    /// In which room.
    pub room: RoomName,
    /// What.
    pub kind: EntryKind,
    /// How much.
    pub amount: MicroUsd,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Price = Price {
        per_second: MicroUsd(190),
        cold_start_max: Duration::from_secs(60),
        execution_max: Duration::from_secs(120),
        idle: Duration::from_secs(5),
    };

    #[test]
    fn a_budget_is_reached_but_never_passed() {
        let budgets =
            Budgets { total: MicroUsd(100), day: MicroUsd(50), user_day: MicroUsd(20), room_day: MicroUsd(30) };
        let spent = Spending { total: MicroUsd(40), day: MicroUsd(40), user_day: MicroUsd(10), room_day: MicroUsd(10) };
        assert_eq!(budgets.permit(MicroUsd(10), &spent), Ok(()));
        assert_eq!(budgets.permit(MicroUsd(11), &spent).unwrap_err().budget, Budget::Day);
        let spent = Spending { day: MicroUsd(0), ..spent };
        assert_eq!(budgets.permit(MicroUsd(11), &spent).unwrap_err().budget, Budget::UserDay);
        assert!(budgets.permit(MicroUsd(u64::MAX), &spent).is_err(), "no sum wraps around");
        assert!(Budgets::default().permit(MicroUsd(1), &Spending::default()).is_err(), "nothing is free by default");
    }

    #[test]
    fn a_measured_cost_never_exceeds_what_was_held() {
        assert_eq!(PRICE.worst(), MicroUsd(185 * 190));
        let short = PRICE.measured(Duration::from_millis(1500), Duration::from_millis(2600));
        assert_eq!(short, MicroUsd(10 * 190), "parts of a second are whole ones");
        assert_eq!(PRICE.measured(Duration::MAX / 4, Duration::MAX / 4), PRICE.worst());
    }

    #[test]
    fn dollars_are_rounded_against_the_spender() {
        assert_eq!(MicroUsd::from_usd_up(0.000_19), Some(MicroUsd(190)));
        assert_eq!(MicroUsd::from_usd_up(0.000_000_1), Some(MicroUsd(1)));
        assert_eq!(MicroUsd::from_usd_down(0.29), Some(MicroUsd(290_000)));
        assert_eq!(MicroUsd::from_usd_down(0.000_000_9), Some(MicroUsd(0)));
        for wrong in [-1.0, f64::NAN, f64::INFINITY, 1.0e9] {
            assert_eq!((MicroUsd::from_usd_up(wrong), MicroUsd::from_usd_down(wrong)), (None, None));
        }
    }

    #[test]
    fn amounts_are_written_in_dollars() {
        assert_eq!(MicroUsd(1_234_567).to_string(), "$1.234567");
    }
}
