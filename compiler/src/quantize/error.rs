//! Errors of quantising maps and applying quantised modules.

use thiserror::Error;
use zklora_artifacts::row_quantizer::RowError;

use crate::linear_map::LinearMapError;

/// Why quantising failed.
#[derive(Debug, Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The map is malformed.
    #[error(transparent)]
    Map(#[from] LinearMapError),
    /// The public scaling is zero, not finite or out of range.
    #[error(
        "a scaling of {scaling} cannot be published; it must be a normal number other than zero"
    )]
    Scaling {
        /// The scaling given.
        scaling: f64,
    },
    /// Weights are NaN, infinite, too large or too small for a scale that is a normal number.
    #[error("term {term} of `{name}` has {what}; repair the weights")]
    Weights {
        /// The module.
        name: String,
        /// Index of the term.
        term: usize,
        /// What is wrong.
        what: String,
    },
    /// A bit width that the format does not allow.
    #[error("{which} = {bits} bits is outside {min}..={max}")]
    BitRange {
        /// Which width.
        which: &'static str,
        /// The width asked for.
        bits: u32,
        /// Smallest allowed.
        min: u32,
        /// Largest allowed.
        max: u32,
    },
    /// The certified bound reaches 2^63.
    #[error(
        "`{name}`: deltas could reach 2^63 with x, A and B of {x}, {a} and {b} bits; use fewer bits"
    )]
    Bound {
        /// The module.
        name: String,
        /// Bits of x.
        x: u32,
        /// Bits of A.
        a: u32,
        /// Bits of B.
        b: u32,
    },
    /// No combination of bit widths satisfies the bound.
    #[error(
        "`{name}`: no bit widths keep deltas below 2^63; the terms differ too much in size or the module is too large"
    )]
    NoBits {
        /// The module.
        name: String,
    },
    /// Rows of activations cannot be quantised.
    #[error(transparent)]
    Rows(#[from] RowError),
    /// The inputs do not fit the module.
    #[error("inputs do not fit: {what}")]
    Inputs {
        /// What does not fit.
        what: String,
    },
    /// An activation is outside the public bound.
    #[error("row {row} of input {input} has the value {value}, which is not below 2^{bits}")]
    OutOfRange {
        /// Index of the input; the number of inputs for the constant 1.
        input: usize,
        /// Index of the row.
        row: usize,
        /// The value.
        value: i32,
        /// The bound's exponent, x_bits - 1.
        bits: u32,
    },
}
