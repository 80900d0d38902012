//! A part of an adapter, as each format gives it.

use std::path::PathBuf;

use crate::{
    Error,
    adapter::{
        peft::{config::Config, tensor_names::PREFIX},
        weights::Weights,
    },
};

/// Tensors that are read with one config. An adapter with modules of several forms has several.
pub(in crate::adapter::peft) struct Part {
    pub(in crate::adapter::peft) config: Config,
    pub(in crate::adapter::peft) weights: Weights,
}

/// Opens files of weights, with the names that the caller wants.
pub(in crate::adapter::peft) type Open<'a> = &'a dyn Fn(&[PathBuf]) -> Result<Weights, Error>;

/// The name that `peft` gives to a tensor of a module.
pub(super) fn peft_name(module: &str, suffix: &str) -> String {
    format!("{PREFIX}{module}{suffix}")
}
