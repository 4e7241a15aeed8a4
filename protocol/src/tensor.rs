//! Tensors on the wire: little-endian f32 in row-major order, checked before they are believed.

use crate::limits::MAGNITUDE_MAX;

/// Why a received tensor is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The byte length is not what the unit's shape says.
    #[error("{found} bytes where the unit's shape needs {expected}")]
    Length {
        /// Bytes the shape needs.
        expected: usize,
        /// Bytes received.
        found: usize,
    },
    /// A value is infinite, not a number, or larger than any sound network gives.
    #[error("value {index} is not a finite number of sane size")]
    Value {
        /// Index of the first bad value.
        index: usize,
    },
}

/// Encodes `values` as little-endian f32.
pub fn to_bytes(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; size_of_val(values)];
    bytes.chunks_exact_mut(4).zip(values).for_each(|(word, value)| word.copy_from_slice(&value.to_le_bytes()));
    bytes
}

/// Decodes exactly `count` finite values of magnitude at most [`MAGNITUDE_MAX`].
pub fn from_bytes(bytes: &[u8], count: usize) -> Result<Vec<f32>, TensorError> {
    check(bytes, count)?;
    Ok(bytes.chunks_exact(4).map(value).collect())
}

/// Checks that [`from_bytes`] would decode this, without memory for the values.
pub fn check(bytes: &[u8], count: usize) -> Result<(), TensorError> {
    let expected = count.saturating_mul(4);
    if bytes.len() != expected {
        return Err(TensorError::Length { expected, found: bytes.len() });
    }
    // Among the bits of finite numbers without their sign, the order is that of the numbers; infinities and what is not a
    // number come after them. One maximum over integers is all that most bodies need.
    let magnitude = |word: &[u8]| value(word).to_bits() & !(1 << 31);
    let largest = bytes.chunks_exact(4).fold(0, |largest, word| magnitude(word).max(largest));
    if largest <= MAGNITUDE_MAX.to_bits() {
        return Ok(());
    }
    let index = bytes.chunks_exact(4).position(|word| magnitude(word) > MAGNITUDE_MAX.to_bits());
    Err(TensorError::Value { index: index.expect("the largest magnitude is one of them") })
}

fn value(word: &[u8]) -> f32 {
    f32::from_le_bytes([word[0], word[1], word[2], word[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_wire_bit_for_bit() {
        let values = [0.0, -0.0, 1.5, f32::MIN_POSITIVE / 4.0, -65_504.0];
        let back = from_bytes(&to_bytes(&values), values.len()).unwrap();
        assert!(values.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn a_tensor_that_lies_is_refused() {
        assert_eq!(from_bytes(&[0; 7], 2), Err(TensorError::Length { expected: 8, found: 7 }));
        assert_eq!(from_bytes(&[], usize::MAX), Err(TensorError::Length { expected: usize::MAX, found: 0 }));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e6] {
            assert_eq!(from_bytes(&to_bytes(&[1.0, bad]), 2), Err(TensorError::Value { index: 1 }));
        }
    }
}
