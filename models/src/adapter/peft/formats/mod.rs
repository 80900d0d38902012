//! Adapters that other libraries wrote, as what `peft` would load: their tensors under its names,
//! with the rank and scaling of each module.
//!
//! Must not know how deltas are made of tensors.

mod mlx;
mod single_file;

use std::path::{Path, PathBuf};

use super::{config::Config, folder::AdapterFiles, module_tensors::PREFIX};
use crate::{Error, adapter::weights::Weights};

/// Tensors that are read with one config. An adapter with modules of several forms has several.
pub(super) struct Part {
    pub(super) config: Config,
    pub(super) weights: Weights,
}

/// Opens files of weights, with the names that the caller wants.
pub(super) type Open<'a> = &'a dyn Fn(&[PathBuf]) -> Result<Weights, Error>;

/// The parts of an adapter.
///
/// # Errors
/// The settings or names are not those of the format, or of a form that is not supported.
pub(super) fn read(files: &AdapterFiles, open: Open) -> Result<Vec<Part>, Error> {
    match files {
        AdapterFiles::Peft { config, weights } => {
            Ok(vec![Part { config: Config::read(config)?, weights: open(weights)? }])
        }
        AdapterFiles::Mlx { config, weights } => mlx::read(config, weights, open),
        AdapterFiles::SingleFile(path) => single_file::read(path, open),
        AdapterFiles::Gguf(path) => Err(not_yet(path)),
    }
}

fn not_yet(path: &Path) -> Error {
    Error::Format {
        path: path.to_owned(),
        what: "this is an adapter of llama.cpp (GGUF)".into(),
        hint: "pass the folder that it was converted from (convert_lora_to_gguf.py reads one of \
               peft)"
            .into(),
    }
}

/// The name that `peft` gives to a tensor of a module.
fn peft_name(module: &str, suffix: &str) -> String {
    format!("{PREFIX}{module}{suffix}")
}
