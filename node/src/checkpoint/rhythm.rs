//! How often a painting is kept: Young's formula over what was measured.

use std::time::Duration;

/// A painting process is lost about this often: its machine sleeps, restarts, runs out of battery or memory.
const TIME_BETWEEN_LOSSES: Duration = Duration::from_secs(3600);

/// A picture is kept at least this often while it is painted, however seldom the formula says.
const KEPT_PER_PICTURE_MIN: u32 = 4;

/// Steps between two checkpoints: `sqrt(2 cost losses)` is the time between them that costs least, counting both the writing
/// and what is painted again (Young 1974), here in whole steps of a picture of `steps`.
pub fn every_steps(cost: Duration, step: Duration, steps: u32) -> u32 {
    let most = steps.div_ceil(KEPT_PER_PICTURE_MIN).max(1);
    let seconds = (2.0 * cost.as_secs_f64() * TIME_BETWEEN_LOSSES.as_secs_f64()).sqrt();
    // A step of no time at all would be kept never; the bound above holds it.
    let young = (seconds / step.as_secs_f64()).ceil();
    if young < f64::from(most) { (young as u32).max(1) } else { most }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn dear_steps_are_kept_often_and_cheap_ones_seldom() {
        // sqrt(2 * 0.02 s * 3600 s) = 12 s.
        assert_eq!(every_steps(20 * MS, 5000 * MS, 100), 3);
        assert_eq!(every_steps(20 * MS, 1000 * MS, 100), 12);
        assert_eq!(every_steps(20 * MS, 60_000 * MS, 100), 1);
        assert_eq!(every_steps(2000 * MS, 5000 * MS, 100), 24);
    }

    #[test]
    fn a_quarter_of_the_picture_is_the_most_that_can_be_lost() {
        for steps in 1..=200 {
            for (cost, step) in [(20 * MS, MS), (20 * MS, Duration::ZERO), (Duration::ZERO, Duration::ZERO)] {
                assert!(every_steps(cost, step, steps) <= steps.div_ceil(4));
            }
            assert!(every_steps(Duration::ZERO, MS, steps) == 1);
        }
    }
}
