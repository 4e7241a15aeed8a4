//! A machine's own clock: it runs fast or slow, and began at another time than everybody else's.

use std::time::Duration;

use protocol::Instant;

/// How a machine's clock differs from true time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// What it shows at the simulation's beginning.
    pub offset: Duration,
    /// Microseconds it counts in a true second.
    pub rate: u64,
}

impl Clock {
    /// A clock that shows true time.
    pub const TRUE: Self = Self { offset: Duration::ZERO, rate: 1_000_000 };

    /// What it shows at a true time.
    pub fn at(self, time: Instant) -> Instant {
        let micros = micros(time) as u128 * u128::from(self.rate) / 1_000_000;
        Instant::from_origin(self.offset + Duration::from_micros(micros as u64))
    }

    /// The first true time at which it shows `shown` or more.
    pub fn when(self, shown: Instant) -> Instant {
        let since = u128::from(micros(shown).saturating_sub(self.offset.as_micros() as u64));
        let micros = (since * 1_000_000).div_ceil(u128::from(self.rate));
        Instant::from_origin(Duration::from_micros(micros as u64))
    }

    /// What it counts while `duration` passes.
    pub fn measure(self, duration: Duration) -> Duration {
        Duration::from_micros((duration.as_micros() * u128::from(self.rate) / 1_000_000) as u64)
    }
}

/// Microseconds since the origin.
pub fn micros(time: Instant) -> u64 {
    time.since(Instant::ZERO).as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skewed_clock_is_never_woken_too_early() {
        for rate in [900_000, 999_983, 1_000_000, 1_100_000] {
            let clock = Clock { offset: Duration::from_secs(77), rate };
            for due in (77_000_000..77_010_000).map(|due| Instant::from_origin(Duration::from_micros(due))) {
                let when = clock.when(due);
                assert!(clock.at(when) >= due, "{rate}");
                let before = Instant::from_origin(Duration::from_micros(micros(when).saturating_sub(1)));
                assert!(when == Instant::ZERO || clock.at(before) < due, "{rate}");
            }
        }
    }
}
