//! Values of an evaluation: a row of integers for each token.

use std::borrow::Cow;

use ethnum::I256;

use crate::{program::Size, whole::Whole};

/// `[rows, columns]` of integers.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Tokens of all units.
    pub rows: usize,
    /// Features.
    pub columns: usize,
    /// The integers, row-major.
    pub integers: Integers,
}

/// Integers of a matrix. Which they are depends on the program's bounds only.
#[derive(Clone, PartialEq)]
pub enum Integers {
    /// Of at most 63 bits.
    Small(Vec<i64>),
    /// Of at most 127 bits.
    Narrow(Vec<i128>),
    /// Of at most 251 bits: sums with an adapter's part.
    Wide(Vec<I256>),
}

impl std::fmt::Debug for Integers {
    // With an adapter, activations tell of its weights.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("integers, not shown")
    }
}

impl Matrix {
    pub(crate) fn new<T: Cell>(rows: usize, columns: usize, values: Vec<T>) -> Matrix {
        Matrix { rows, columns, integers: T::integers(values) }
    }

    /// In the type for values of this size.
    pub(crate) fn sized(self, size: &Size) -> Matrix {
        match &self.integers {
            Integers::Narrow(values) if size.is_small() => {
                let small = values.iter().map(|x| *x as i64).collect();
                Matrix { integers: Integers::Small(small), ..self }
            }
            _ => self,
        }
    }

    /// The integers, if they are not wide: what all operators but sums and roundings read.
    pub fn values(&self) -> Cow<'_, [i128]> {
        i128::read(&self.integers)
    }

    /// Some rows, in this order.
    pub(crate) fn of_rows(&self, rows: &[usize]) -> Matrix {
        let columns = self.columns;
        match &self.integers {
            Integers::Small(values) => {
                Matrix::new(rows.len(), columns, picked(values, columns, rows))
            }
            _ => Matrix::new(rows.len(), columns, picked(&self.values(), columns, rows)),
        }
    }

    pub(crate) fn is_small(&self) -> bool {
        matches!(self.integers, Integers::Small(_))
    }
}

fn picked<T: Copy>(values: &[T], columns: usize, rows: &[usize]) -> Vec<T> {
    rows.iter().flat_map(|row| &values[row * columns..][..columns]).copied().collect()
}

/// An integer of a matrix.
pub(crate) trait Cell: Whole {
    /// Integers of a matrix in this type, which must hold them.
    fn read(integers: &Integers) -> Cow<'_, [Self]>;

    /// Integers of a matrix.
    fn integers(values: Vec<Self>) -> Integers;
}

impl Cell for i64 {
    fn read(integers: &Integers) -> Cow<'_, [i64]> {
        match integers {
            Integers::Small(values) => values.into(),
            Integers::Narrow(values) => values.iter().map(|x| *x as i64).collect(),
            Integers::Wide(_) => Cow::default(),
        }
    }

    fn integers(values: Vec<i64>) -> Integers {
        Integers::Small(values)
    }
}

impl Cell for i128 {
    fn read(integers: &Integers) -> Cow<'_, [i128]> {
        match integers {
            Integers::Small(values) => values.iter().map(|x| i128::from(*x)).collect(),
            Integers::Narrow(values) => values.into(),
            Integers::Wide(_) => Cow::default(),
        }
    }

    fn integers(values: Vec<i128>) -> Integers {
        Integers::Narrow(values)
    }
}
