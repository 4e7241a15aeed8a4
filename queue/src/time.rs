//! Wall-clock time as the queue keeps it: milliseconds since 1970, always an argument.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

const MS_OF_DAY: u64 = 24 * 60 * 60 * 1000;

/// Milliseconds since 1970-01-01 UTC. Several relays on one queue compare theirs, so their clocks must agree to a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// This moment, later by `by`; the end of time at most.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; nothing if it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The day it falls on.
    pub fn day(self) -> Day {
        Day(self.0 / MS_OF_DAY)
    }
}

/// Days since 1970-01-01 UTC: what a daily budget is counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Day(pub u64);

impl fmt::Display for Day {
    /// `2026-11-26`, by the civil calendar (Hinnant's `civil_from_days`).
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shifted = self.0 + 719_468; // Days since 0000-03-01.
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        write!(formatter, "{year:04}-{month:02}-{day:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_by_the_calendar() {
        let days = [(0, "1970-01-01"), (11_016, "2000-02-29"), (11_017, "2000-03-01"), (20_783, "2026-11-26")];
        for (day, text) in days {
            assert_eq!(Day(day).to_string(), text);
        }
    }

    #[test]
    fn a_day_begins_at_midnight_and_time_has_an_end() {
        assert_eq!(UnixMs(MS_OF_DAY - 1).day(), Day(0));
        assert_eq!(UnixMs(MS_OF_DAY).day(), Day(1));
        assert_eq!(UnixMs(u64::MAX).after(Duration::MAX), UnixMs(u64::MAX));
        assert_eq!(UnixMs(1).since(UnixMs(5)), Duration::ZERO);
    }
}
