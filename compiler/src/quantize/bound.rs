//! Certifies how large a delta can become, exactly, from the integers.

use super::quantized::QuantizedTerm;

/// The smallest `n`, `1 ≤ n ≤ 63`, that bounds every delta:
///
/// ```text
/// max_k 2^(x_bits-1) · (Σ_j ‖A_j‖₁·|B_jk| + Σ 2^shift·|b_k| + Σ 2^shift·|g_k|) < 2^n
/// ```
///
/// The sum of absolute values also bounds every partial sum in any order. None if there is no such
/// `n`, or if some `2^(x_bits-1) · ‖A_j‖₁`, which bounds the intermediate `x·A_j`, reaches 2^63.
pub(super) fn delta_bits(terms: &[QuantizedTerm], x_bits: u32) -> Option<u32> {
    let x_limit = 1u128.checked_shl(x_bits.checked_sub(1)?)?;
    let mut gains: Vec<u128> = vec![];
    let mut add = |row: &[i32], factor: u128| -> Option<()> {
        gains.resize(gains.len().max(row.len()), 0);
        for (gain, value) in gains.iter_mut().zip(row) {
            *gain = gain.checked_add(factor.checked_mul(u128::from(value.unsigned_abs()))?)?;
        }
        Some(())
    };
    for term in terms {
        match term {
            QuantizedTerm::LowRank { a, b, .. } => {
                for (a, b) in a.iter().zip(b) {
                    let norm: u128 = a.iter().map(|value| u128::from(value.unsigned_abs())).sum();
                    if norm.checked_mul(x_limit)? >= 1 << 63 {
                        return None;
                    }
                    add(b, norm)?;
                }
            }
            QuantizedTerm::Bias { shift, b: row }
            | QuantizedTerm::ElementScale { shift, g: row, .. } => {
                add(row, 1u128.checked_shl(*shift)?)?;
            }
        }
    }
    let bound = gains.into_iter().max().unwrap_or(0).checked_mul(x_limit)?;
    let bits = (u128::BITS - bound.leading_zeros()).max(1);
    (bits <= 63).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn low_rank(a: i32, b: i32) -> QuantizedTerm {
        QuantizedTerm::LowRank { input: 0, a: vec![vec![a, -a]], b: vec![vec![0, b]] }
    }

    #[test]
    fn the_bound_is_the_smallest_power_of_two_above() {
        // 2^3 · (3 + 3) · 5 = 240 < 2^8.
        assert_eq!(delta_bits(&[low_rank(3, -5)], 4), Some(8));
        // 2^3 · (2 + 2) · 8 = 256 < 2^9.
        assert_eq!(delta_bits(&[low_rank(2, 8)], 4), Some(9));
        assert_eq!(delta_bits(&[low_rank(3, 0)], 4), Some(1));
    }

    #[test]
    fn a_large_intermediate_is_refused_even_if_the_delta_is_zero() {
        assert_eq!(delta_bits(&[low_rank(i32::MAX, 0)], 33), None);
        assert_eq!(delta_bits(&[QuantizedTerm::Bias { shift: 60, b: vec![1] }], 4), None);
        assert_eq!(delta_bits(&[QuantizedTerm::Bias { shift: 59, b: vec![1] }], 4), Some(63));
        assert_eq!(delta_bits(&[QuantizedTerm::Bias { shift: 200, b: vec![1] }], 4), None);
    }
}
