//! Reads an adapter folder as a list of modules, and checks it against its base model.

use std::path::Path;

use super::{base_model::BaseModel, config::Config, folder, module::AdapterModule, modules};
use crate::{
    AppliesTo, Error,
    adapter::{base_model::fingerprint, base_weights::BaseWeights, tensor_file::TensorFile},
};

/// Longest `adapter_model.safetensors` that is read, in bytes.
const MAX_WEIGHTS: u64 = 16 << 30;

/// An adapter: its base model and its modules.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// The base model, as the adapter names it.
    pub base_model: BaseModel,
    /// Modules sorted by name, with numbers in numerical order (`layers.2` before `layers.10`).
    /// Not empty after [`Adapter::load`].
    pub modules: Vec<AdapterModule>,
}

impl Adapter {
    /// Reads an adapter folder: `dir` itself, or its only subfolder that holds an adapter.
    ///
    /// # Errors
    /// A file is malformed; a setting or tensor would make the delta differ from the one that
    /// `peft` computes; DoRA or VeRA, which need the base model. See [`Error`].
    pub fn load(dir: &Path) -> Result<Adapter, Error> {
        Adapter::load_with_base(dir, None)
    }

    /// As [`Adapter::load`], with the folder of the base model (`model.safetensors` or shards). The
    /// whole base model is read, to compute its fingerprint, and it must have every module that the
    /// adapter changes.
    ///
    /// # Errors
    /// Those of [`Adapter::load`] and of [`fingerprint`], and a layer that is missing or has other
    /// sizes.
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

    /// Number of constants of all modules, including biases.
    pub fn parameters(&self) -> usize {
        self.modules.iter().map(AdapterModule::parameters).sum()
    }
}

/// Checks that the base model has the layer of a module: the manifest must not have the fingerprint
/// of another model. The tensors of a convolution can look like those of a linear layer; the layer
/// itself has more dimensions.
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
        "has the shape {shape:?}, which does not fit the adapter's module; pass the folder of the model that the adapter was \
         trained on (adapters of convolutions are not supported)"
    );
    Err(base.error(&weight, reason))
}
