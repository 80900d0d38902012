//! How much of what an adapter does somebody recovers from a few ordinary rows: `zklora leak`.
//!
//! The contributor measures it alone, with the own adapter: no row leaves the machine, nobody is
//! shown anything, so nothing is entered in the ledger.
//!
//! ```text
//! first part of a text ─ base model with the adapter's deltas → rows and deltas, as a user has them
//!                      ─ fit of least norm, module by module → a stolen adapter for every number of rows
//! rest of the text     ─ base model; with the adapter; with each stolen adapter → losses, distances of deltas
//! ```
//!
//! These are lower bounds of what leaks. A thief can choose the inputs, weigh directions by how
//! common they are in the base model, round the fit to integers of few bits, or train on from it.

mod equations;
mod fit;
mod measure;
mod measurement;
mod plot;
mod probe;

pub use measure::{Options, measure};
pub use measurement::{FORMAT, Measurement, Recovered, Spread, VERSION, known, percent};
pub use plot::plot;
