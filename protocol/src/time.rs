//! Time as the pure crates see it: a number the driver passes in.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Microseconds since an origin of the driver's choice; only differences mean anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The driver's origin.
    pub const ZERO: Self = Self(0);

    /// The last instant there is: never.
    pub const MAX: Self = Self(u64::MAX);

    /// The instant `since_origin` after the driver's origin; saturates after 584,000 years.
    pub fn from_origin(since_origin: Duration) -> Self {
        Self(u64::try_from(since_origin.as_micros()).unwrap_or(u64::MAX))
    }

    /// Time passed since `earlier`, or zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_never_wrap() {
        let late = Instant::from_origin(Duration::MAX);
        assert_eq!(late + Duration::from_secs(1), late);
        assert_eq!(Instant::ZERO - late, Duration::ZERO);
        assert_eq!((Instant::ZERO + Duration::from_millis(3)) - Instant::ZERO, Duration::from_millis(3));
    }
}
