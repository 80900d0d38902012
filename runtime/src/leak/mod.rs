//! Measures how much of an adapter's effect an attacker recovers from a few ordinary rows: `zklora
//! leak`.
//!
//! The contributor runs it alone on their own adapter. No row leaves the machine, so the ledger
//! gets no entry.
//!
//! ```text
//! first part of a text ─ base model with the adapter's deltas → the rows and deltas of a user
//!     ─ fit of least norm, module by module → a stolen adapter for every number of rows
//! rest of the text ─ base model; with the adapter; with each stolen adapter
//!     → losses, distances of deltas
//! ```
//!
//! The results are lower bounds of the leak. An attacker can also choose the inputs, weight
//! directions by how common they are in the base model, round the fit to integers of few bits, or
//! use the fit as the start of training.

mod equations;
mod fit;
mod measure;
mod measurement;
mod plot;
mod probe;

pub use measure::{Options, measure};
pub use measurement::{FORMAT, Measurement, Recovered, Spread, VERSION, known, percent};
pub use plot::plot;
