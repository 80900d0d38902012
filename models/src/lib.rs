//! Adapters and base models in floating point, in two halves that do not know each other.
//!
//! * `adapter` reads adapters of `peft` and other libraries ([`peft`]) and writes one ONNX file per
//!   submodule for the compiler ([`mod@export`]). It needs tract's protobuf types only.
//! * [`language_model`] runs a base model from an ONNX file, with deltas added at its layers. It
//!   needs tract's inference, optimiser and runtime.
//!
//! ```text
//! folder or file of an adapter ─ peft::Adapter::load or load_with → Adapter
//! Adapter ─ export::export → <module>.onnx per module + export.json
//! base model folder ─ fingerprint → BLAKE3 of its tensors, kept in export.json
//! base model as ONNX ─ language_model::LanguageModel::load → logits, with an Injector's deltas
//! ```
//!
//! This crate must not know about quantisation, commitments or proofs. It handles float weights,
//! which `compiler` later treats as secret. All files may be hostile: every length is bounded
//! before it is used, and anything that is not understood is an [`Error`] that names the file and
//! the key, tensor or module. It never panics and never guesses.

mod adapter;
mod applies_to;
mod error;
pub mod language_model;
pub mod panics;
mod similar_names;

pub use adapter::{export, peft};
pub use applies_to::AppliesTo;
pub use error::Error;
pub use export::{ExportIndex, ExportedModule, export, onnx_model, read_index};
pub use peft::{
    Adapter, AdapterModule, BaseModel, Form, Kind, LoadOptions, LoraWeights, ModuleInput,
    fingerprint,
};
