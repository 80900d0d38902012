//! The integer model with the adapter of an artifacts folder: `zklora integer`.
//!
//! ```text
//! base model ─ compile → folder
//! folder + base model (+ artifacts) ─ setup → program ─ run: units → scores
//!                                            └ check: text → differences from the float model
//! ```

mod adapter;
mod bound_model;
mod check;
mod compile;
mod float_adapter;
mod plot;
mod prove;
mod run;
mod setup;

pub use bound_model::{BaseModel, BoundModel};
pub use check::{CheckOptions, Comparison, Headroom, Side, UnitDifference, WorstToken, check};
pub use compile::{Compiled, compile};
pub use plot::plot;
pub use prove::{
    Estimate, Measured, PlanSize, Provable, ProveOptions, Proved, estimate, leaves_within, prove,
};
pub use run::{RunOptions, Scored, run, units_of_text};
pub use setup::Setup;
pub use zklora_integer::score::Score;
