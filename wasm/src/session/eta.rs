//! How long a job still takes, from how fast it went lately.

use std::collections::VecDeque;
use std::time::Duration;

/// Accepted units that are looked back on: some steps of a small job, one step of a large one.
const SAMPLES_MAX: usize = 24;

/// Fewer tell nothing: the first unit comes with loading and handshakes.
const SAMPLES_MIN: usize = 3;

/// Times at which so much was done.
#[derive(Debug, Default)]
pub struct Eta {
    samples: VecDeque<(Duration, u64)>,
}

impl Eta {
    /// Of `total`, `done` is done at `now`; gives the seconds that are left, once they can be told.
    pub fn note(&mut self, done: u64, total: u64, now: Duration) -> Option<f32> {
        if self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((now, done));
        if self.samples.len() < SAMPLES_MIN {
            return None;
        }
        let (began, before) = *self.samples.front()?;
        let took = now.saturating_sub(began).as_secs_f32();
        let gained = done.saturating_sub(before) as f32;
        (took > 0.0 && gained > 0.0).then(|| total.saturating_sub(done) as f32 * took / gained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_the_last_units_did() {
        let mut eta = Eta::default();
        assert_eq!(eta.note(10, 100, Duration::from_secs(9)), None);
        assert_eq!(eta.note(20, 100, Duration::from_secs(10)), None);
        assert_eq!(eta.note(30, 100, Duration::from_secs(11)), Some(7.0));
    }

    #[test]
    fn a_slow_beginning_is_forgotten() {
        let mut eta = Eta::default();
        eta.note(1, 1000, Duration::ZERO);
        let last = (0..50).filter_map(|unit| eta.note(unit, 1000, Duration::from_secs(1000 + unit))).last();
        assert_eq!(last, Some(951.0));
    }

    #[test]
    fn units_that_come_at_once_promise_nothing() {
        let mut eta = Eta::default();
        assert!((0..5).all(|unit| eta.note(unit, 10, Duration::ZERO).is_none()));
    }
}
