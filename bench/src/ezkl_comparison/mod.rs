//! Compares the native proof with EZKL on the same module, rows and machine: `zklora bench
//! --against ezkl`.

mod compare;
mod comparison;
mod ezkl_side;
mod measure;
mod native_side;
mod page;
mod run;
mod synthetic_peft;

pub use compare::compare;
pub use comparison::{Accuracy, ComparedStage, Comparison, Figures, Outcome, Ratio, SystemReport};
pub use page::page;
pub use run::Options;
pub use synthetic_peft::{Shape, synthetic_adapter};
