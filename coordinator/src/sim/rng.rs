//! Seeded randomness that is the same on every machine, with distributions of plain arithmetic.

use std::time::Duration;

use crate::rng::Rng as SplitMix;

/// The machines' own generator, with all that a world is drawn by.
#[derive(Clone, Debug)]
pub struct Rng(SplitMix);

impl Rng {
    /// The stream of `seed` that is called `name`, independent of its other streams: what draws from one does not shift
    /// what is drawn from another.
    pub fn new(seed: u64, name: &str) -> Self {
        let mut rng = SplitMix(seed ^ 0x6d61_6e79_6861_6e64);
        for byte in name.bytes() {
            rng.0 = rng.next() ^ u64::from(byte);
        }
        Self(rng)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0.next()
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A number from `least` to `most`, both included.
    pub fn within(&mut self, [least, most]: [u64; 2]) -> u64 {
        least + self.next() % (most.max(least) - least + 1)
    }

    /// A number from `least` to `most` of which every doubling is equally likely.
    pub fn log_within(&mut self, [least, most]: [u64; 2]) -> u64 {
        let least = least.max(1);
        let doublings = (most / least).checked_ilog2().unwrap_or(0);
        let low = least << self.within([0, u64::from(doublings)]);
        self.within([low, (2 * low - 1).min(most)])
    }

    /// True with this chance in a thousand.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.next() % 1000 < permille
    }

    /// One of `choices`, which are not empty.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// A time up to `most`.
    pub fn time_up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.within([0, most.as_micros() as u64]))
    }

    /// A time of exponential distribution.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        let uniform = ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        Duration::from_micros((mean.as_micros() as f64 * minus_ln(uniform)) as u64)
    }

    /// A value in [-1, 1).
    pub fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// The negative logarithm of a number in (0, 1]. The platform's may differ in its last bits; sums and products do not.
fn minus_ln(mut number: f64) -> f64 {
    let mut halvings = 0.0;
    while number < 0.5 {
        number *= 2.0;
        halvings += 1.0;
    }
    let ratio = (1.0 - number) / (1.0 + number);
    let square = ratio * ratio;
    let series = 1.0 + square * (1.0 / 3.0 + square * (1.0 / 5.0 + square * (1.0 / 7.0 + square / 9.0)));
    halvings * std::f64::consts::LN_2 + 2.0 * ratio * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_have_the_range_and_the_mean_they_say() {
        let mut rng = Rng::new(1, "test");
        assert!((0..10_000).all(|_| (3..=60).contains(&rng.log_within([3, 60]))));
        let below_six = (0..10_000).filter(|_| rng.log_within([3, 47]) < 6).count();
        assert!((2_300..2_700).contains(&below_six), "{below_six} of 10000 in the first of four doublings");
        let mean = (0..20_000).map(|_| rng.exponential(Duration::from_secs(60)).as_secs_f64()).sum::<f64>() / 20_000.0;
        assert!((58.0..62.0).contains(&mean), "{mean}");
        assert!((minus_ln(0.1) - 0.1f64.ln().abs()).abs() < 1e-5);
    }
}
