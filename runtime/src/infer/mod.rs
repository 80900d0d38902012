//! Runs the user's base model with adapters that contributors serve: losses, text, and a verified
//! proof of every session.
//!
//! ```text
//! contributors ─ describe → manifests ─ injection_points → injection points ─ LanguageModel::load
//! text ─ forward pass → logits → loss, tokens
//!        └ at each injection point ─ delta_injector: quantise, ask every contributor, add up
//! sessions ─ finish → proofs, verdicts → EffectReport
//! ```

mod base_model;
#[cfg(feature = "network")]
mod delta_injector;
mod injection_points;
#[cfg(feature = "network")]
mod run;

pub use base_model::tokenizer;
pub(crate) use base_model::{compare, fingerprint};
#[cfg(feature = "network")]
pub use delta_injector::{DeltaInjector, Mode};
pub use injection_points::{InputSource, applies_to, input_sources};
pub(crate) use injection_points::{Point, PointModule, one_hot, points};
#[cfg(feature = "network")]
pub use run::{Event, Generation, InferOptions, Outcome, patched, run};
