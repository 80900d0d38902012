//! Claims on virtual values: what lookups and operators leave for the operators before them
//! (docs/inference-proof.md, "Symbols").

use std::{collections::BTreeMap, sync::Arc};

use zklora_proof::{field::F, fold::eq_weights};

use crate::{axis::bits_for, cells::Expression, values::Value};

/// `Σ_{t,o} weights[t]·features[o]·V(t, o) = value`
#[derive(Debug, Clone)]
pub struct Claim {
    /// A weight for each element of the axis.
    pub weights: Arc<Vec<F>>,
    /// A weight for each feature.
    pub features: Vec<F>,
    /// The features' weights as a product, where they stand for heads and keys.
    pub heads: Option<Heads>,
    /// The value.
    pub value: Expression,
}

/// Weights of heads and of keys.
#[derive(Debug, Clone)]
pub struct Heads {
    /// A weight for each head.
    pub heads: Vec<F>,
    /// A weight for each key.
    pub keys: Vec<F>,
}

impl Heads {
    /// Those of a block of whole heads, from `first` on, at a point.
    pub fn of_block(point: &[F], first: usize, count: usize, keys: usize) -> Heads {
        let (high, low) = point.split_at(point.len().saturating_sub(bits_for(keys)));
        let inner = eq_weights(high, 1 << high.len());
        let mut heads = vec![F::default(); count];
        heads[first..first + inner.len()].copy_from_slice(&inner);
        Heads { heads, keys: eq_weights(low, keys) }
    }
}

/// The claims that are open, by value.
#[derive(Debug, Default)]
pub struct Claims(BTreeMap<Value, Vec<Claim>>);

impl Claims {
    /// Adds a claim.
    pub fn push(&mut self, value: Value, claim: Claim) {
        self.0.entry(value).or_default().push(claim);
    }

    /// Takes the claims on a value.
    pub fn take(&mut self, value: Value) -> Vec<Claim> {
        self.0.remove(&value).unwrap_or_default()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
