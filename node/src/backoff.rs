//! How long to wait before trying again: twice as long after every failure, up to a limit.

use std::time::Duration;

/// Waits that double from one to another.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits from `first` to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Notes a failure and says how long to wait.
    pub fn fail(&mut self) -> Duration {
        let factor = 2_u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.first.saturating_mul(factor).min(self.longest)
    }

    /// The same for one of many who may have failed at the same moment: `chance`, from 0 to 1, chooses between half of the
    /// wait and all of it, so that they do not come back together.
    pub fn fail_with_jitter(&mut self, chance: f64) -> Duration {
        self.fail().mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }

    /// Forgets the failures; says whether there were any.
    pub fn succeed(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(SECOND, 30 * SECOND);
        let waits: Vec<u64> = (0..7).map(|_| backoff.fail().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert!(backoff.succeed());
        assert!(!backoff.succeed(), "there was no failure since");
        assert_eq!(backoff.fail(), SECOND);
    }

    #[test]
    fn jitter_lies_between_half_and_all() {
        let wait = |chance| Backoff::new(SECOND, 30 * SECOND).fail_with_jitter(chance);
        assert_eq!([wait(-1.0), wait(0.0)], [SECOND / 2; 2]);
        assert_eq!(wait(0.5), SECOND * 3 / 4);
        assert_eq!([wait(1.0), wait(9.0)], [SECOND; 2]);
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let mut backoff = Backoff::new(SECOND, 30 * SECOND);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.fail(), 30 * SECOND);
        assert_eq!(backoff.failures(), u32::MAX);
    }
}
