//! Running the user's own base model with adapters that contributors serve: losses, text, and a
//! verified proof of every session.
//!
//! ```text
//! contributors ─ describe → manifests ─ points → injection points ─ LanguageModel::load
//! text ─ logits ─(at each point)→ mixture: quantise, ask every contributor, add up → logits → loss, tokens
//! sessions ─ finish → proofs, verdicts → EffectReport
//! ```

mod base;
mod mixture;
mod points;
mod run;

pub(crate) use base::{compare, fingerprint};
pub(crate) use mixture::one_hot;
pub use mixture::{Mixture, Mode};
pub(crate) use points::{Part, Point, points};
pub use points::{Source, applies_to, sources};
pub use run::patched;
pub(crate) use run::tokenizer;
pub use run::{Event, Generation, InferOptions, Outcome, run};
