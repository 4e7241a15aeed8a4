//! Rounds numbers as the wire does, always, so that pixels do not depend on what was sent and what was computed at home.

use half::f16;
use protocol::Wire;

/// Rounds `values` in place: nothing for [`Wire::F32`], to the nearest f16 (ties to even) for [`Wire::F16`]. Rounding
/// twice changes nothing more.
pub fn round(values: &mut [f32], wire: Wire) {
    match wire {
        Wire::F32 => {}
        // The const conversions are plain integer code; the others may use whatever instruction the processor has.
        Wire::F16 => values.iter_mut().for_each(|value| *value = f16::from_f32_const(*value).to_f32_const()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(value: f32) -> f32 {
        let mut values = [value];
        round(&mut values, Wire::F16);
        values[0]
    }

    #[test]
    fn f16_rounds_to_nearest_and_ties_to_even() {
        let step = f32::powi(2.0, -10); // The spacing of f16 in [1, 2).
        assert_eq!(rounded(1.0 + 0.49 * step), 1.0);
        assert_eq!(rounded(1.0 + 0.5 * step), 1.0);
        assert_eq!(rounded(1.0 + 1.5 * step), 1.0 + 2.0 * step);
        assert_eq!(rounded(-1.0 - 0.51 * step), -1.0 - step);
        assert_eq!(rounded(65_504.0), 65_504.0);
        assert_eq!(rounded(f32::powi(2.0, -24)), f32::powi(2.0, -24));
        assert_eq!(rounded(f32::powi(2.0, -25)), 0.0);
        assert_eq!(rounded(-1e-9).to_bits(), (-0.0_f32).to_bits());
    }

    #[test]
    fn rounding_twice_changes_nothing_more() {
        let mut once = crate::noise::field(1, crate::noise::Purpose::Initial, 0, 1, 32, 32);
        let exact = once.clone();
        round(&mut once, Wire::F32);
        assert_eq!(once, exact);
        round(&mut once, Wire::F16);
        assert_ne!(once, exact);
        let mut twice = once.clone();
        round(&mut twice, Wire::F16);
        assert_eq!(once, twice);
    }
}
