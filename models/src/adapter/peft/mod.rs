//! Reads an adapter that `peft` saved, a folder with `adapter_config.json` and
//! `adapter_model.safetensors`, or another library, as what `peft` would load.
//!
//! ```text
//! path ─ folder (which format?) → files ─ formats → parts: config + tensors under peft's names
//! part ─ modules (a file a form) → AdapterModule
//! ```
//!
//! The result is what `peft` 0.21 computes at inference, module by module ([`AdapterModule`]): LoRA
//! and DoRA of linear layers, convolutions, embeddings and experts, AdaLoRA, VeRA, (IA)³, LoHa and
//! LoKr, and layers that were trained whole. Settings that change the result in any other way are
//! refused by name. Must not know about ONNX, and never
//! guesses the orientation of an adapter's tensor: the name of the tensor states it.

mod adalora;
mod adapter;
mod base_layer;
mod base_model;
mod config;
mod dora;
mod experts;
mod folder;
mod formats;
mod ia3;
mod load_options;
mod loha;
mod lokr;
mod lora;
mod module;
mod module_tensors;
mod modules;
mod pattern;
mod pattern_syntax;
mod step;
mod supported;
mod tensor_names;
mod tied;
mod tucker;
mod vera;
mod warnings;
mod whole;

pub use adapter::Adapter;
pub use base_model::BaseModel;
pub use load_options::LoadOptions;
pub use module::{AdapterModule, Branch, Form, Kind, LoraWeights, ModuleInput};
pub use step::{Action, Step};
pub use supported::{Case, supported};
pub use warnings::first_of;
pub use whole::LeftOut;

pub use super::base_model::fingerprint;
