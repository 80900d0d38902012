//! Certifies how large a delta can become, exactly, from the integers.

use zklora_proof::weights::DeltaBound;

use super::quantized::QuantizedTerm;

/// The smallest `n`, `1 ≤ n ≤ 63`, with `2^n` above the bound of [`DeltaBound`], which the proof
/// crate holds published weights to. None if there is none.
pub(super) fn delta_bits(terms: &[QuantizedTerm], x_bits: u32) -> Option<u32> {
    let mut bound = DeltaBound::default();
    for term in terms {
        match term {
            QuantizedTerm::LowRank { a, b, .. } => {
                a.iter().zip(b).try_for_each(|(a, b)| bound.low_rank(a, b))
            }
            QuantizedTerm::Bias { shift, b: row }
            | QuantizedTerm::ElementScale { shift, g: row, .. } => bound.shifted(row, *shift),
        }?;
    }
    let bits = (u128::BITS - bound.with_x_bits(x_bits)?.leading_zeros()).max(1);
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
        assert_eq!(delta_bits(&[QuantizedTerm::Bias { shift: 60, b: vec![1] }], 4), None);
        assert_eq!(delta_bits(&[QuantizedTerm::Bias { shift: 59, b: vec![1] }], 4), Some(63));
        assert_eq!(delta_bits(&[QuantizedTerm::Bias { shift: 200, b: vec![1] }], 4), None);
    }

    /// An adapter before its training has only zeros in B: the inner products are still bounded.
    #[test]
    fn inner_products_count_where_the_delta_is_zero() {
        // 2^3 · (3 + 3) = 48 < 2^6.
        assert_eq!(delta_bits(&[low_rank(3, 0)], 4), Some(6));
        assert_eq!(delta_bits(&[low_rank(0, 3)], 4), Some(1));
        assert_eq!(delta_bits(&[low_rank(i32::MAX, 0)], 33), None);
    }
}
