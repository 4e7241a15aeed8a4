//! How long to wait before asking again: pure functions of the count and of a random number.

use std::time::Duration;

use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, POLL_PAUSE_MAX, POLL_PAUSE_MIN};

/// The pause before look number `looks` (from 0) at a job: 250 ms, half as much more each time, 2 s at most, then up to a
/// fifth less by `chance` (0 to 1), so that many who began together do not go on together.
pub fn poll_pause(looks: u32, chance: f64) -> Duration {
    let pause = grown(POLL_PAUSE_MIN, 1.5, looks, POLL_PAUSE_MAX);
    pause.mul_f64(1.0 - 0.2 * unit(chance))
}

/// The pause after refusal number `refusals` (from 0) for the rate, or after a failure that may pass: doubles from half a
/// second to 30 s, then up to half less by `chance` (0 to 1); never less than what the endpoint asks for (its `Retry-After`),
/// which itself counts up to 30 s.
pub fn backoff(refusals: u32, chance: f64, asked: Option<Duration>) -> Duration {
    let pause = grown(BACKOFF_MIN, 2.0, refusals, BACKOFF_MAX).mul_f64(1.0 - 0.5 * unit(chance));
    pause.max(asked.unwrap_or_default().min(BACKOFF_MAX))
}

fn grown(first: Duration, factor: f64, times: u32, most: Duration) -> Duration {
    // After 64 times every factor in use is far beyond the cap, and far from infinity.
    let grown = first.as_secs_f64() * factor.powi(times.min(64).cast_signed());
    Duration::from_secs_f64(grown.min(most.as_secs_f64()))
}

fn unit(chance: f64) -> f64 {
    if chance.is_finite() { chance.clamp(0.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(pauses: impl Iterator<Item = Duration>) -> Vec<u128> {
        pauses.map(|pause| pause.as_millis()).collect()
    }

    #[test]
    fn looks_become_rarer_up_to_two_seconds() {
        assert_eq!(ms((0..8).map(|looks| poll_pause(looks, 0.0))), [250, 375, 562, 843, 1265, 1898, 2000, 2000]);
        assert_eq!(poll_pause(u32::MAX, 0.0), POLL_PAUSE_MAX);
        assert_eq!(poll_pause(0, 1.0).as_millis(), 200);
    }

    #[test]
    fn refusals_are_answered_by_longer_pauses_up_to_half_a_minute() {
        assert_eq!(
            ms((0..8).map(|count| backoff(count, 0.0, None))),
            [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]
        );
        assert_eq!(backoff(u32::MAX, 0.0, None), BACKOFF_MAX);
        assert_eq!(backoff(0, 1.0, None).as_millis(), 250);
    }

    #[test]
    fn an_endpoint_may_ask_for_a_longer_pause_but_not_for_ever() {
        assert_eq!(backoff(0, 0.5, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(backoff(0, 0.5, Some(Duration::MAX)), BACKOFF_MAX);
        assert!(backoff(9, f64::NAN, Some(Duration::ZERO)) <= BACKOFF_MAX);
    }
}
