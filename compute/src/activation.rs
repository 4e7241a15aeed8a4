//! Activations written so that a compiler turns them into vector instructions: a browser's own `exp` is a call for each
//! value, as is its `erf`.

/// Whether the processor's activations, convolutions and attention are those made for browsers. Natively the system's are
/// as fast, and what they give is a numeric class of its own.
pub(crate) const FOR_BROWSERS: bool = cfg!(target_family = "wasm");

/// `e^x` to about 2 in the last place; at the ends of f32's range it stays finite and positive.
pub(crate) fn exp(x: f32) -> f32 {
    // x = n ln 2 + r; ln 2 in two parts, the first exact in few bits (Cephes, Moshier 1992).
    let x = x.clamp(-87.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4_f32;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let power = f32::from_bits(((n as i32 + 127) as u32) << 23);
    (p * r * r + r + 1.0) * power
}

/// `x * sigmoid(x)`.
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// The Gaussian error linear unit, exact but for rounding.
pub(crate) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The error function, as a quotient of polynomials in x squared (Eigen's minimax fit).
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let p = -2.726_142_3e-10_f32;
    let p = p * s + 2.770_681_4e-8;
    let p = p * s - 2.101_024e-6;
    let p = p * s - 5.692_506_4e-5;
    let p = p * s - 7.349_906e-4;
    let p = p * s - 2.954_6e-3;
    let p = p * s - 1.609_603_3e-2;
    let q = -1.456_607_2e-5_f32;
    let q = q * s - 2.133_740_6e-4;
    let q = q * s - 1.682_827e-3;
    let q = q * s - 7.373_329e-3;
    let q = q * s - 1.426_473_9e-2;
    x * p / q
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(most: f32) -> impl Iterator<Item = f32> {
        (-100_000..=100_000).map(move |step| step as f32 * 1e-5 * most)
    }

    #[test]
    fn exp_is_right_to_the_last_places_over_its_whole_range() {
        for x in range(86.0) {
            let known = f64::from(x).exp();
            assert!((f64::from(exp(x)) - known).abs() <= 2.5e-7 * known, "{x}: {} {known}", exp(x));
        }
        for x in [f32::MIN, -1000.0, 1000.0, f32::MAX] {
            assert!(exp(x).is_finite() && exp(x) > 0.0, "{x}");
        }
    }

    #[test]
    fn activations_are_as_exact_as_f32_allows() {
        for x in range(20.0) {
            let wide = f64::from(x);
            let known = wide / (1.0 + (-wide).exp());
            assert!((f64::from(silu(x)) - known).abs() <= 4e-7 * known.abs().max(1e-3), "silu {x}");
            let known = 0.5 * wide * (1.0 + libm::erf(wide / 2.0_f64.sqrt()));
            assert!((f64::from(gelu(x)) - known).abs() <= 5e-7 * wide.abs().max(1.0), "gelu {x}: {} {known}", gelu(x));
        }
    }
}
