//! How much work to submit to a GPU before waiting for it.

/// Longest that one submission should take, in milliseconds. The screen is drawn by the same GPU: longer submissions
/// make a page stutter, and several seconds make some systems reset the device.
pub const SUBMISSION_MS_MAX: f64 = 250.0;

/// Learns from measured times how many blocks of work fit into one submission.
///
/// Before a block is enqueued, [`Pace::is_full_for`] says whether to wait for what is enqueued already; after each
/// wait, [`Pace::measured`] takes the milliseconds from the first of these blocks to the end of the wait. Costs are in
/// any unit that is about proportional to time, such as multiplications. A block that takes too long alone cannot be
/// split here.
#[derive(Clone, Debug)]
pub struct Pace {
    ms_max: f64,
    /// Unknown until the first measurement.
    ms_per_cost: Option<f64>,
    pending: f64,
}

impl Pace {
    /// Submissions of at most `ms_max` milliseconds, as far as blocks allow.
    pub fn new(ms_max: f64) -> Self {
        Self { ms_max, ms_per_cost: None, pending: 0.0 }
    }

    /// Counts a block of that cost as enqueued.
    pub fn enqueued(&mut self, cost: f64) {
        self.pending += cost;
    }

    /// All that was enqueued is finished, and took `ms` milliseconds. Slowness counts at once, speed by half: a
    /// submission that is too long is worse than one that could have been longer.
    pub fn measured(&mut self, ms: f64) {
        let rate = ms / std::mem::take(&mut self.pending);
        if rate.is_finite() && rate >= 0.0 {
            let known = self.ms_per_cost.filter(|known| *known > rate);
            self.ms_per_cost = Some(known.map_or(rate, |known| (known + rate) / 2.0));
        }
    }

    /// Whether to wait before a block of that cost: it would make the submission too long, or nothing is known yet but
    /// for the one block that is on its way.
    pub fn is_full_for(&self, cost: f64) -> bool {
        let fits = self.ms_per_cost.is_some_and(|rate| (self.pending + cost) * rate <= self.ms_max);
        self.pending > 0.0 && !fits
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(SUBMISSION_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds of each submission when blocks of these costs run on a GPU that needs `ms_per_cost`.
    fn submissions(pace: &mut Pace, costs: &[f64], ms_per_cost: f64) -> Vec<f64> {
        let (mut finished, mut ms) = (Vec::new(), 0.0);
        for &cost in costs {
            if pace.is_full_for(cost) {
                pace.measured(ms);
                finished.push(std::mem::take(&mut ms));
            }
            pace.enqueued(cost);
            ms += cost * ms_per_cost;
        }
        pace.measured(ms);
        finished.push(ms);
        finished
    }

    #[test]
    fn the_first_block_runs_alone_and_later_ones_share() {
        let found = submissions(&mut Pace::new(250.0), &[1.0; 11], 50.0);
        assert_eq!(found, [50.0, 250.0, 250.0]);
    }

    #[test]
    fn no_submission_is_longer_than_the_cap_while_the_speed_stays() {
        let costs: Vec<f64> = (0..200).map(|i| f64::from(i * 37 % 23 + 1)).collect();
        let found = submissions(&mut Pace::new(250.0), &costs, 4.0);
        assert!(found.iter().all(|ms| *ms <= 250.0), "{found:?}");
        assert!(found.len() < costs.len() / 2, "blocks are not waited for one by one: {}", found.len());
    }

    #[test]
    fn a_slow_gpu_is_waited_for_after_each_block() {
        assert_eq!(submissions(&mut Pace::new(250.0), &[1.0; 3], 400.0), [400.0; 3]);
    }

    #[test]
    fn slowing_down_counts_at_once_and_speeding_up_by_half() {
        let mut pace = Pace::new(100.0);
        submissions(&mut pace, &[1.0], 10.0);
        submissions(&mut pace, &[1.0], 50.0);
        assert_eq!(submissions(&mut pace, &[1.0; 4], 10.0)[0], 20.0, "two blocks at 50 ms each were expected to fit");
        let later = submissions(&mut pace, &[1.0; 40], 10.0);
        assert_eq!(later, [50.0, 60.0, 80.0, 80.0, 90.0, 40.0]);
    }

    #[test]
    fn nothing_enqueued_teaches_nothing() {
        let mut pace = Pace::default();
        pace.measured(5.0);
        assert!(!pace.is_full_for(f64::MAX));
        pace.enqueued(1.0);
        assert!(pace.is_full_for(1.0));
    }
}
