//! Counter-based normal noise: every value is a function of its coordinates, so any region can be made alone.
//!
//! Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns seed and
//! coordinates into 128 bits, Box-Muller turns those into one standard normal value.

use std::f64::consts::TAU;
use std::ops::Range;

/// What noise is for; noise of different purposes is independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The latent that denoising starts from.
    Initial,
    /// What an ancestral sampler adds after a step.
    Step,
    /// Where a step's grid of tiles begins; no noise, and drawn by [`shift`].
    Shift,
}

impl Purpose {
    fn word(self) -> u32 {
        match self {
            Self::Initial => 0,
            Self::Step => 1,
            Self::Shift => 2,
        }
    }
}

/// Standard normal noise `[channels, rows, columns]`. `step` is below 2^24.
pub fn field(seed: u64, purpose: Purpose, step: u32, channels: u32, rows: u32, columns: u32) -> Vec<f32> {
    region(seed, purpose, step, channels, 0..rows, 0..columns)
}

/// The part of [`field`] in `rows` and `columns`: the same values as there, `[channels, rows, columns]`.
pub fn region(
    seed: u64,
    purpose: Purpose,
    step: u32,
    channels: u32,
    rows: Range<u32>,
    columns: Range<u32>,
) -> Vec<f32> {
    assert!(step < 1 << 24, "the step shares a counter word with the purpose");
    let key = [seed as u32, (seed >> 32) as u32];
    let moment = purpose.word() << 24 | step;
    let mut values = Vec::with_capacity(channels as usize * rows.len() * columns.len());
    for channel in 0..channels {
        for row in rows.clone() {
            for column in columns.clone() {
                values.push(normal(philox4x32([column, row, channel, moment], key)));
            }
        }
    }
    values
}

/// How far the grid of tiles of side `tile` is shifted in a step, down and across: less than a tile. `step` is below 2^24.
pub fn shift(seed: u64, step: u32, tile: u32) -> (u32, u32) {
    let moment = Purpose::Shift.word() << 24 | step;
    let words = philox4x32([0, 0, 0, moment], [seed as u32, (seed >> 32) as u32]);
    (words[0] % tile, words[1] % tile)
}

/// Philox4x32 with ten rounds.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const ROUNDS: usize = 10;
    let product = |factor: u32, word: u32| {
        let wide = u64::from(factor) * u64::from(word);
        ((wide >> 32) as u32, wide as u32)
    };
    for round in 0..ROUNDS {
        if round > 0 {
            key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
        }
        let (high_0, low_0) = product(0xD251_1F53, counter[0]);
        let (high_1, low_1) = product(0xCD9E_8D57, counter[2]);
        counter = [high_1 ^ counter[1] ^ key[0], low_1, high_0 ^ counter[3] ^ key[1], low_0];
    }
    counter
}

/// Box-Muller (the cosine half) in f64 from 53 bits for the radius and 53 for the angle.
fn normal(words: [u32; 4]) -> f32 {
    const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
    let bits = |high: u32, low: u32| (u64::from(high) << 32 | u64::from(low)) >> 11;
    // In (0, 1], so that the logarithm is finite.
    let radius = (bits(words[0], words[1]) + 1) as f64 * UNIT;
    let angle = bits(words[2], words[3]) as f64 * UNIT;
    ((-2.0 * libm::log(radius)).sqrt() * libm::cos(TAU * angle)) as f32
}

#[cfg(test)]
mod tests {
    use protocol::{Hash, tensor};

    use super::*;

    #[test]
    fn philox_gives_the_published_answers() {
        // Random123's kat_vectors.
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let digits_of_pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(
            philox4x32(digits_of_pi, [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn noise_is_standard_normal() {
        let values = field(7, Purpose::Initial, 0, 4, 128, 128);
        let count = values.len() as f64;
        let moment = |power: i32| values.iter().map(|&value| f64::from(value).powi(power)).sum::<f64>() / count;
        // 65,536 values: four standard errors of each moment.
        for (power, expected, tolerance) in [(1, 0.0, 0.016), (2, 1.0, 0.023), (3, 0.0, 0.061), (4, 3.0, 0.16)] {
            assert!((moment(power) - expected).abs() < tolerance, "moment {power} is {}", moment(power));
        }
        let within = values.iter().filter(|value| value.abs() < 1.0).count() as f64 / count;
        assert!((within - 0.6827).abs() < 0.0073, "{within} within one deviation");
    }

    #[test]
    fn a_region_made_alone_has_the_values_of_the_whole() {
        let whole = field(3, Purpose::Initial, 5, 2, 9, 11);
        let part = region(3, Purpose::Initial, 5, 2, 4..7, 2..10);
        for channel in 0..2 {
            for row in 4..7 {
                for column in 2..10 {
                    let (inside, outside) =
                        ((channel * 3 + row - 4) * 8 + column - 2, (channel * 9 + row) * 11 + column);
                    assert_eq!(part[inside].to_bits(), whole[outside].to_bits());
                }
            }
        }
        assert_eq!(field(3, Purpose::Initial, 5, 2, 9, 20)[..11], whole[..11]);
    }

    #[test]
    fn shifts_are_less_than_a_tile_and_reach_every_place() {
        let mut seen = [[0; 8]; 2];
        for step in 0..200 {
            let (down, across) = shift(7, step, 8);
            seen[0][down as usize] += 1;
            seen[1][across as usize] += 1;
            assert_eq!(shift(7, step, 8), (down, across));
        }
        // 25 of each are expected; five standard deviations are 23.
        assert!(seen.iter().flatten().all(|&times| (2..=48).contains(&times)), "{seen:?}");
        assert_ne!((0..9).map(|step| shift(7, step, 64)).collect::<Vec<_>>(), [shift(8, 0, 64); 9]);
    }

    #[test]
    fn every_coordinate_changes_the_noise() {
        let base = field(1, Purpose::Initial, 0, 1, 4, 4);
        assert_ne!(field(2, Purpose::Initial, 0, 1, 4, 4), base);
        assert_ne!(field(1 << 32 | 1, Purpose::Initial, 0, 1, 4, 4), base);
        assert_ne!(field(1, Purpose::Step, 0, 1, 4, 4), base);
        assert_ne!(field(1, Purpose::Initial, 1, 1, 4, 4), base);
        let mut seen: Vec<u32> = field(1, Purpose::Initial, 0, 3, 20, 20).iter().map(|value| value.to_bits()).collect();
        seen.sort_unstable();
        let count = seen.len();
        seen.dedup();
        assert!(count - seen.len() <= 1, "channels, rows and columns do not repeat each other");
    }

    #[test]
    fn noise_has_the_same_bits_on_every_platform() {
        let bytes = tensor::to_bytes(&field(0x0123_4567_89ab_cdef, Purpose::Initial, 0, 4, 64, 64));
        assert_eq!(Hash::of(&bytes).to_string(), "f0de5fd49c74e62f6a7afe7c6788d8ecc2ea8c70bf983e24501fc10f4c173a94");
    }
}
