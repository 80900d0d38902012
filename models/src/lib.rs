//! Adapters and base models as files: PEFT folders in, one ONNX file per submodule out.
//!
//! This crate is for reading what `peft` and Hugging Face save and for writing what the compiler
//! takes in. It must not know about quantisation, commitments or proofs: everything here is in
//! floating point and nothing here is secret by itself.
//!
//! ```text
//! PEFT folder ─ peft::Adapter::load(_with_base) → Adapter ─ export::export → <module>.onnx per module + export.json
//! base model folder ─ fingerprint → BLAKE3 of its tensors, kept in export.json
//! base model as ONNX ─ language_model::LanguageModel::load → logits, with deltas that an Injector adds
//! ```
//!
//! Everything that is read may be hostile: every length is bounded before it is used, and whatever
//! is not understood is an [`Error`] that names the file and the key, tensor or module, never a
//! panic and never a guess.

mod base_model;
mod base_weights;
mod error;
pub mod export;
pub mod language_model;
mod module_name;
mod near;
pub mod panics;
pub mod peft;
mod strict_json;
mod tensor_file;

pub use error::Error;
pub use export::{ExportIndex, ExportedModule, export, onnx_model, read_index};
pub use peft::{
    Adapter, AdapterModule, AppliesTo, BaseModel, Form, Kind, LoraWeights, ModuleInput, fingerprint,
};
