//! Reads an adapter as a list of modules, and checks it against its base model.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use half::{bf16, f16};

use super::{
    base_layer::as_matrix,
    base_model::BaseModel,
    config::check_name,
    folder,
    formats::{self, Part},
    load_options::LoadOptions,
    module::{AdapterModule, Form, Kind},
    modules,
    step::Action,
    tensor_names::{PREFIX, is_of_adapter},
    whole::{LeftOut, Wanted},
};
use crate::{
    AppliesTo, Error,
    adapter::{
        base_model::fingerprint, base_weights::BaseWeights, glob, module_name, weights::Weights,
    },
};

/// An adapter: its base model and its modules.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// The base model, as the adapter names it.
    pub base_model: BaseModel,
    /// Modules sorted by name, with numbers in numerical order (`layers.2` before `layers.10`).
    /// Not empty after [`Adapter::load`].
    pub modules: Vec<AdapterModule>,
    /// Tensors of layers that were trained whole, and are not among the modules.
    pub left_out: Vec<LeftOut>,
}

impl Adapter {
    /// Reads an adapter: a folder that `peft` or MLX saved, or its only subfolder that holds an
    /// adapter, or a file of kohya's scripts, LyCORIS, diffusers or llama.cpp (GGUF).
    ///
    /// # Errors
    /// A file is malformed; a setting or tensor would make the delta differ from the one that
    /// `peft` computes; DoRA or VeRA, which need the base model. See [`Error`].
    pub fn load(path: &Path) -> Result<Adapter, Error> {
        Adapter::load_with(path, &LoadOptions::default())
    }

    /// As [`Adapter::load`], with the folder of the base model.
    ///
    /// # Errors
    /// Those of [`Adapter::load_with`].
    pub fn load_with_base(path: &Path, base: Option<&Path>) -> Result<Adapter, Error> {
        Adapter::load_with(path, &LoadOptions { base, ..LoadOptions::default() })
    }

    /// As [`Adapter::load`], with options.
    ///
    /// # Errors
    /// Those of [`Adapter::load`] and of [`fingerprint`], and a layer that is missing or has other
    /// sizes.
    pub fn load_with(path: &Path, options: &LoadOptions) -> Result<Adapter, Error> {
        let files = folder::find(path)?;
        let hidden = RefCell::new(BTreeSet::new());
        let open = |paths: &[PathBuf]| open(paths, options, &hidden);
        let parts = formats::read(&files, options, &open)?;
        let (mut base_model, mut modules) = (BaseModel::default(), Vec::new());
        let mut left_out = Vec::new();
        let but = options.left_out.iter().map(String::as_str).collect();
        let wanted = Wanted { nothing: options.lora_only, but: &but };
        let mut base_weights = None;
        if let Some(base) = options.base {
            base_model.fingerprint = Some(fingerprint(base)?);
            base_weights = Some(BaseWeights::open(base)?);
        }
        for Part { config, mut weights } in parts {
            let (read, left) = modules::read(&mut weights, &config, base_weights.as_mut(), wanted)?;
            modules.extend(read);
            left_out.extend(left);
            let BaseModel { name, revision, .. } = config.base_model;
            base_model = BaseModel { name, revision, ..base_model };
        }
        modules.sort_by(|left, right| module_name::compare(&left.name, &right.name));
        let not_asked = |tensor| LeftOut { tensor, reason: "its module is not asked for".into() };
        left_out.extend(hidden.into_inner().into_iter().map(not_asked));
        left_out.sort_by(|left: &LeftOut, right| left.tensor.cmp(&right.tensor));
        if let Some(base) = &base_weights {
            // How many experts there are of each parameter.
            let mut experts: HashMap<(String, String), usize> = HashMap::new();
            for module in modules.iter().filter(|module| module.kind == Kind::Expert) {
                *experts.entry(expert_of(&module.name)).or_default() += 1;
            }
            for module in &mut modules {
                let experts = experts.get(&expert_of(&module.name)).copied().unwrap_or(0);
                check_base(base, module, experts)?;
            }
        }
        if let Some(name) = options.base_name {
            let refuse = |reason| Error::Options(format!("the name of the base model {reason}"));
            check_name(name).map_err(refuse)?;
            base_model.name = name.to_owned();
        }
        Ok(Adapter { base_model, modules, left_out })
    }

    /// The 16-bit type that holds every number of the adapter's matrices, if one does: the weights
    /// were saved in it once.
    pub fn narrow_type(&self) -> Option<&'static str> {
        let steps = self.modules.iter().flat_map(|of| &of.branches).flat_map(|of| &of.steps);
        let matrices = steps.filter(|step| matches!(step.action, Action::Matrix { .. }));
        let numbers = || matrices.clone().flat_map(|step| &step.values).filter(|&&v| v != 0.0);
        let is = |fits: fn(f32) -> bool| numbers().all(|&value| fits(value));
        match numbers().next() {
            None => None,
            Some(_) if is(|value| bf16::from_f32(value).to_f32() == value) => Some("BF16"),
            Some(_) if is(|value| f16::from_f32(value).to_f32() == value) => Some("F16"),
            Some(_) => None,
        }
    }

    /// Number of constants of all modules, including biases.
    pub fn parameters(&self) -> usize {
        self.modules.iter().map(AdapterModule::parameters).sum()
    }
}

/// Opens files of weights with the names and modules that the options ask for. Tensors of layers
/// that were trained whole and are not asked for go into `hidden`.
fn open(
    paths: &[PathBuf],
    options: &LoadOptions,
    hidden: &RefCell<BTreeSet<String>>,
) -> Result<Weights, Error> {
    let renamed = |name: &str| {
        options.rename.iter().fold(name.to_owned(), |name, (from, to)| match from.is_empty() {
            true => format!("{to}{name}"),
            false => name.replace(from, to),
        })
    };
    // The module is some beginning of the name.
    let is_selected = |name: &str| {
        // VeRA's matrices belong to all modules.
        if name.starts_with("base_model.") && !name.starts_with(PREFIX) {
            return true;
        }
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        let ends = name.match_indices('.').map(|(at, _)| at).chain([name.len()]);
        ends.into_iter()
            .any(|end| options.modules.iter().any(|glob| glob::matches(glob, &name[..end])))
    };
    let weights = Weights::open(paths)?.renamed(|name| Some((renamed(name), None)))?;
    // Patterns that match nothing are refused later, with the names that there are.
    let selects = !options.modules.is_empty()
        && !weights.is_gguf()
        && weights.names().iter().any(|name| is_selected(name));
    if !selects {
        return Ok(weights);
    }
    let names = weights.names();
    let others = names.iter().filter(|name| !is_selected(name) && !is_of_adapter(name));
    let short = others.filter_map(|name| Some(name.strip_prefix(PREFIX)?.to_owned()));
    hidden.borrow_mut().extend(short);
    weights.renamed(|name| is_selected(name).then(|| (name.to_owned(), None)))
}

/// The module and the parameter of an expert, `<module>.<expert>.<parameter>`.
fn expert_of(name: &str) -> (String, String) {
    let mut parts = name.rsplitn(3, '.');
    let (parameter, _) = (parts.next().unwrap_or_default(), parts.next());
    (parts.next().unwrap_or_default().to_owned(), parameter.to_owned())
}

/// Checks that the base model has the layer of a module: the manifest must not have the fingerprint
/// of another model. The tensors of a convolution can look like those of a linear layer; the layer
/// itself has more dimensions.
fn check_base(base: &BaseWeights, module: &mut AdapterModule, experts: usize) -> Result<(), Error> {
    let d_in = module.inputs.iter().find(|input| input.name == "x").map(|input| input.dim);
    let fits = |out: usize, input: usize| {
        let d_out = (module.applies_to == AppliesTo::Output).then_some(module.d_out);
        d_out.is_none_or(|d| d == out) && d_in.is_none_or(|d| d == input)
    };
    if module.kind == Kind::Expert {
        return base.check_expert(&module.name, experts, fits);
    }
    let weight = base.weight(&module.name)?;
    if base.quantised(&module.name).is_some() {
        // Its shape is that of the packed numbers.
        return Ok(());
    }
    let stored = base.shape(&weight)?;
    let fits = match (module.kind, stored.as_slice()) {
        // A norm, whose bias was trained.
        (Kind::Linear, &[out]) => module.form == Form::Whole && d_in.is_none() && fits(out, out),
        (Kind::Linear | Kind::Embedding, &[a, b]) => fits(a, b) || fits(b, a),
        // Each group of outputs of a convolution reads its own channels; the adapter reads all.
        (Kind::Linear | Kind::Convolution, [out, kernel @ ..]) if kernel.len() > 1 => {
            let own = as_matrix(&stored).last().copied().unwrap_or(0);
            let groups = d_in.map_or(Some(0), |d_in| d_in.checked_rem(own));
            module.kind = Kind::Convolution;
            groups == Some(0) && module.d_out == *out
        }
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let reason = format!(
        "has the shape {stored:?}, which does not fit the adapter's module; pass the folder of the model that the adapter was \
         trained on"
    );
    Err(base.error(&weight, reason))
}
