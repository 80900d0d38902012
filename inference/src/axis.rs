//! Axes: lists of things with places on a hypercube (docs/inference-proof.md, "Symbols").

use std::sync::Arc;

use zklora_proof::{field::F, fold::eq_weights};

/// A list whose element k has the place `places[k]` below `2^bits`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// log₂ of the number of places.
    pub bits: usize,
    /// The place of each element, all different.
    pub places: Vec<usize>,
}

impl Axis {
    /// Elements at the places 0, 1, 2, …
    pub fn dense(count: usize) -> Axis {
        Axis { bits: bits_for(count), places: (0..count).collect() }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// `eq(point, place)` of each element.
    pub fn weights(&self, point: &[F]) -> Arc<Vec<F>> {
        let all = eq_weights(point, 1 << self.bits);
        Arc::new(self.places.iter().map(|place| all[*place]).collect())
    }

    /// Values of the elements at their places; zero elsewhere.
    pub fn spread(&self, values: &[F]) -> Vec<F> {
        let mut out = vec![F::default(); 1 << self.bits];
        self.places.iter().zip(values).for_each(|(place, value)| out[*place] = *value);
        out
    }
}

/// The least number of bits that holds `count` places.
pub fn bits_for(count: usize) -> usize {
    count.max(1).next_power_of_two().trailing_zeros() as usize
}

/// `eq(point, i)` for i = 0 … count − 1, where `point` has as many coordinates as `count` needs.
pub fn dense_weights(point: &[F], count: usize) -> Vec<F> {
    eq_weights(point, count)
}
