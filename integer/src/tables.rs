//! The tables of a model, each computed once however many programs use it.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    fixed,
    graph::{Function, Rotation},
    rules,
};

/// Cosine and sine of every position.
pub type Wave = Arc<Vec<(i32, i32)>>;

/// Tables of one kind, by what they are computed from.
type Known<K, T> = Mutex<HashMap<K, Arc<Vec<T>>>>;

/// The tables of every kind.
#[derive(Debug, Default)]
pub struct Tables {
    exponentials: Known<(u64, u32), u64>,
    activations: Known<(Function, i32, i32), i32>,
    waves: Known<(u32, usize), (i32, i32)>,
}

/// What `known` has for a key; if it has nothing, what `make` makes.
fn get<K: Hash + Eq, T>(known: &Known<K, T>, key: K, make: impl FnOnce() -> Vec<T>) -> Arc<Vec<T>> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(known.entry(key).or_insert_with(|| Arc::new(make())))
}

impl Tables {
    /// [`fixed::exponentials`]
    pub fn exponentials(&self, unit: f64, bits: u32) -> Arc<Vec<u64>> {
        let make = || fixed::exponentials(unit, bits, rules::TABLE);
        get(&self.exponentials, (unit.to_bits(), bits), make)
    }

    /// [`fixed::activation`]
    pub fn activation(&self, function: Function, x_bits: i32, bits: i32) -> Arc<Vec<i32>> {
        let make = || fixed::activation(function, x_bits, bits);
        get(&self.activations, (function, x_bits, bits), make)
    }

    /// [`fixed::rotations`]
    pub fn wave(&self, rotation: &Rotation, positions: usize) -> Wave {
        let make = || fixed::rotations(rotation.frequency, positions, rules::WAVE_BITS);
        get(&self.waves, (rotation.frequency.to_bits(), positions), make)
    }
}
