//! An adapter as `peft` saves it: `adapter_config.json` and `adapter_model.safetensors` in a
//! folder.
//!
//! What is read is what `peft` 0.21 computes at inference, module by module, see [`AdapterModule`]:
//! LoRA and DoRA of linear layers and embeddings, AdaLoRA, VeRA, (IA)³, LoHa and LoKr. Settings
//! that change this in any other way are refused by name. Must not know about ONNX, and never
//! guesses which way round a tensor of an adapter lies: its name says it.

mod adalora;
mod base_layer;
mod config;
mod dora;
mod folder;
mod ia3;
mod loha;
mod lokr;
mod lora;
mod module;
mod modules;
mod parts;
mod pattern;
mod pattern_syntax;
mod step;
mod vera;

use std::path::Path;

use config::Config;
pub use module::{AdapterModule, AppliesTo, Branch, Form, Kind, LoraWeights, ModuleInput};
use serde::{Deserialize, Serialize};
pub use step::{Action, Step};

pub use crate::base_model::fingerprint;
use crate::{Error, base_weights::BaseWeights, tensor_file::TensorFile};

/// Longest `adapter_model.safetensors` that is read, in bytes.
const MAX_WEIGHTS: u64 = 16 << 30;

/// An adapter: what it was trained on and its modules.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// The base model, as the adapter names it.
    pub base_model: BaseModel,
    /// Modules sorted by name, numbers in names in the order of numbers (`layers.2` before
    /// `layers.10`). Never empty after [`Adapter::load`].
    pub modules: Vec<AdapterModule>,
}

// The fields are in alphabetical order because export.json has sorted keys.
/// The base model that an adapter belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseModel {
    /// [`fingerprint`] of the base model's weights, if the base model was given.
    pub fingerprint: Option<String>,
    /// `base_model_name_or_path` of the adapter; empty if it does not say.
    pub name: String,
    /// `revision` of the base model that the adapter names.
    pub revision: Option<String>,
}

impl Adapter {
    /// Reads an adapter folder: `dir` itself, or its only subfolder that holds an adapter.
    ///
    /// Errors: anything that would make the delta differ from what `peft` computes, or that is
    /// malformed; DoRA and VeRA, which need the base model; see [`Error`].
    pub fn load(dir: &Path) -> Result<Adapter, Error> {
        Adapter::load_with_base(dir, None)
    }

    /// [`Adapter::load`], with the folder of the base model (`model.safetensors` or shards). Its
    /// fingerprint is taken, so all of it is read, and it must have every module that the
    /// adapter changes.
    pub fn load_with_base(dir: &Path, base: Option<&Path>) -> Result<Adapter, Error> {
        let files = folder::find(dir)?;
        let mut config = Config::read(&files.config)?;
        let mut file = TensorFile::open(&files.weights, MAX_WEIGHTS)?;
        let mut base_weights = None;
        if let Some(base) = base {
            config.base_model.fingerprint = Some(fingerprint(base)?);
            base_weights = Some(BaseWeights::open(base)?);
        }
        let modules = modules::read(&mut file, &config, base_weights.as_mut())?;
        if let Some(base) = &base_weights {
            modules.iter().try_for_each(|module| check_base(base, module))?;
        }
        Ok(Adapter { base_model: config.base_model, modules })
    }

    /// Number of constants of all modules, biases included.
    pub fn parameters(&self) -> usize {
        self.modules.iter().map(AdapterModule::parameters).sum()
    }
}

/// Whether the base model has the layer of a module: the fingerprint of another model in the
/// manifest would be a false label. The tensors of a convolution can look like those of a linear
/// layer, but the layer itself does not.
fn check_base(base: &BaseWeights, module: &AdapterModule) -> Result<(), Error> {
    let weight = base.weight(&module.name)?;
    let shape = base.shape(&weight)?;
    let d_in = module.inputs.iter().find(|input| input.name == "x").map(|input| input.dim);
    let d_out = (module.applies_to == AppliesTo::Output).then_some(module.d_out);
    let fits = |out: usize, input: usize| {
        d_out.is_none_or(|d| d == out) && d_in.is_none_or(|d| d == input)
    };
    if matches!(shape.as_slice(), &[a, b] if fits(a, b) || fits(b, a)) {
        return Ok(());
    }
    let reason = format!(
        "has the shape {shape:?}, which does not fit the adapter's module; give the folder of the model that the adapter was \
         trained on (adapters of convolutions are not supported)"
    );
    Err(base.error(&weight, reason))
}
