//! Adapters in: they are read (`peft`), and written as one ONNX file per submodule (`export`).
//!
//! Of tract, only the protobuf types are used here: nothing is run.

mod base_model;
mod base_weights;
pub mod export;
mod gguf_file;
mod glob;
mod module_name;
pub mod peft;
mod strict_json;
mod tensor_file;
mod weights;
