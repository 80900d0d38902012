//! Measures what committing, proving and verifying cost on this machine, for adapters of given
//! shapes: `zklora bench --profile`.
//!
//! Weights are synthetic integers, so neither ONNX nor quantisation is involved. Everything else
//! uses the files and the library calls of the commands. A [`Task`] measures one stage on a folder.
//! The caller runs each in its own process, so that the peak memory is that of one stage.
//! [`targets`] compares the figures with the targets.

mod bench_stage;
mod figures;
pub mod loglog;
mod markdown;
mod measure;
mod profile;
mod scaling;
mod synthetic_adapter;
pub mod targets;
mod task;
mod usage;

pub use bench_stage::{ALL_STAGES, BenchStage};
pub use figures::{Cost, Figure, Item, Measured, Size, StageReport};
pub use markdown::{BEGIN, END, replace_section, section};
pub use measure::measure;
pub use profile::{PROFILES, Profile, Shape};
pub use scaling::{Axis, Curve, Point, curves, drawing};
pub(crate) use synthetic_adapter::{draft as synthetic_draft, pairs as synthetic_pairs};
pub use task::{Task, files_of};
pub use usage::machine;
