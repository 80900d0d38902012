//! [`LinearMap`](crate::LinearMap) → integers, with a certified bound on every delta
//! (docs/protocol.md, "Quantisation").
//!
//! `search` tries bit widths, which `bits` predicts from the weights; `round` makes the integers;
//! `bound` certifies them; `reference` computes deltas with them (`quantized` has the types). The
//! crate `zklora-artifacts` quantises activations (`row_quantizer`). Knows nothing of commitments
//! or fields: the proof only needs integers that are small. Only the basic IEEE operations are
//! used, in a fixed order, so the same weights give the same integers on every machine.

mod bits;
mod bound;
mod error;
mod quantized;
mod reference;
mod round;
mod search;

pub use bits::{A_BITS, B_BITS, Bits, CREST_FACTOR, MOST_AUTOMATIC};
pub use error::QuantizeError;
pub use quantized::{Quantized, QuantizedTerm};
pub use search::{candidates, quantize, quantize_within};

#[cfg(test)]
mod tests;
