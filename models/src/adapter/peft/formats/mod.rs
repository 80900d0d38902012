//! Adapters that other libraries wrote, as what `peft` would load: their tensors under its names,
//! with the rank and scaling of each module.
//!
//! Must not know how deltas are made of tensors.

mod gguf;
mod mlx;
mod part;
mod single_file;

use part::Open;
pub(super) use part::Part;

use super::{config::Config, folder::AdapterFiles, load_options::LoadOptions};
use crate::Error;

/// The parts of an adapter. `open` gives the tensors of the modules that the options ask for, but
/// for GGUF, whose names say it only after they are understood.
///
/// # Errors
/// The settings or names are not those of the format, or of a form that is not supported.
pub(super) fn read(
    files: &AdapterFiles,
    options: &LoadOptions,
    open: Open,
) -> Result<Vec<Part>, Error> {
    match files {
        AdapterFiles::Peft { config, weights } => {
            Ok(vec![Part { config: Config::read(config)?, weights: open(weights)? }])
        }
        AdapterFiles::Mlx { config, weights } => mlx::read(config, weights, open),
        AdapterFiles::SingleFile(path) => single_file::read(path, open),
        AdapterFiles::Gguf(path) => gguf::read(path, options, open),
    }
}
