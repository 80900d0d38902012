//! Reads all modules of an adapter file, by the type of the adapter.
//!
//! To add a type, add a file with the suffixes of its tensors and its `module` function, and a line
//! here.

use super::{
    adalora,
    base_layer::BaseLayers,
    config::{Config, Settings},
    dora, ia3, loha, lokr, lora,
    module::AdapterModule,
    module_tensors::{AdapterTensors, ModuleTensors},
    tensor_names::is_of_adapter,
    vera,
};
use crate::{
    Error,
    adapter::{base_weights::BaseWeights, module_name, weights::Weights},
};

/// Copies of a base layer's own weight and bias, which `peft` saves with adapters of embeddings and
/// output layers.
const BASE_COPIES: &[&str] = &[".base_layer.weight", BASE_BIAS];
const BASE_BIAS: &str = ".base_layer.bias";

/// The remedy where the base model is needed.
const PASS_BASE: &str = "pass its folder with --base DIR";

/// Reads all modules of an adapter file, in [`module_name::compare`] order. Every tensor of the
/// file must belong to a module.
pub(super) fn read(
    file: &mut Weights,
    config: &Config,
    mut base: Option<&mut BaseWeights>,
) -> Result<Vec<AdapterModule>, Error> {
    let mut tensors = AdapterTensors::of(file);
    let (suffixes, shared): (&[_], &[_]) = match &config.settings {
        Settings::Lora { .. } => (lora::SUFFIXES, &[]),
        Settings::AdaLora(_) => (adalora::SUFFIXES, &[]),
        Settings::Vera => (vera::SUFFIXES, vera::SHARED),
        Settings::Ia3 => (ia3::SUFFIXES, &[]),
        Settings::LoHa(_) => (loha::SUFFIXES, &[]),
        Settings::LoKr(_) => (lokr::SUFFIXES, &[]),
    };
    let sorted = tensors.sort(&[suffixes, BASE_COPIES].concat(), shared, hint)?;
    let projections = match &config.settings {
        Settings::Vera => Some(vera::Projections::read(&mut tensors)?),
        _ => None,
    };
    if base.is_none() {
        match &config.settings {
            Settings::Lora { dora: true, .. } => {
                let reason =
                    format!("DoRA divides by norms of the base model's weights: {PASS_BASE}");
                return Err(config.error("use_dora", "true", &reason));
            }
            Settings::Vera => {
                let reason =
                    format!("VeRA takes the sizes of its modules from the base model: {PASS_BASE}");
                return Err(config.error("peft_type", "\"VERA\"", &reason));
            }
            _ => {}
        }
    }

    let mut modules = Vec::with_capacity(sorted.len());
    let mut copies = Vec::new();
    let mut layers = base.as_deref_mut().map(|base| BaseLayers::new(base, config));
    for (name, mut suffixes) in sorted {
        for suffix in BASE_COPIES {
            if let Some(copy) = suffixes.remove(*suffix) {
                copies.push((name.clone(), *suffix, copy));
            }
        }
        if suffixes.is_empty() {
            continue;
        }
        // A layer inside another adapted layer: nn.MultiheadAttention, target_parameters.
        if let Some(tensor) =
            suffixes.values().next().filter(|_| name.split('.').any(|part| part == "base_layer"))
        {
            let reason = "belongs to a layer inside another adapted layer (nn.MultiheadAttention), whose delta is not \
                          added to its output; leave it out of target_modules";
            return Err(tensors.error(tensor, reason));
        }
        let mut module = ModuleTensors { file: &mut tensors, name, by_suffix: suffixes };
        modules.extend(match (&config.settings, &projections, &mut layers) {
            (Settings::Lora { ranks, bias, dora: false }, _, _) => {
                if module.has(lora::MAGNITUDE) {
                    let reason =
                        "is a magnitude vector of DoRA, but the config does not say use_dora";
                    return Err(module.error(lora::MAGNITUDE, reason));
                }
                Some(lora::module(&mut module, ranks, *bias)?)
            }
            (Settings::Lora { ranks, bias, dora: true }, _, Some(layers)) => {
                let lora = lora::module(&mut module, ranks, *bias)?;
                Some(dora::module(&mut module, lora, layers)?)
            }
            (Settings::AdaLora(allocation), _, _) => adalora::module(&mut module, allocation)?,
            (Settings::Vera, Some(projections), Some(layers)) => {
                Some(vera::module(&mut module, projections, layers)?)
            }
            (Settings::Ia3, _, _) => Some(ia3::module(&mut module)?),
            (Settings::LoHa(ranks), _, _) => Some(loha::module(&mut module, ranks)?),
            (Settings::LoKr(ranks), _, _) => Some(lokr::module(&mut module, ranks)?),
            (Settings::Lora { .. } | Settings::Vera, _, _) => {
                let what = "a form that needs the base model was not refused without it".into();
                return Err(Error::Internal { what });
            }
        });
    }
    if let Some(layers) = &layers {
        layers.check()?;
    }
    for (module, suffix, copy) in copies {
        check_copy(&mut tensors, &module, suffix, &copy, base.as_deref_mut())?;
    }
    if modules.is_empty() {
        let reason = "holds no module that changes anything, so there is no adapter in it".into();
        return Err(Error::Safetensors { path: file.path().to_owned(), reason });
    }
    modules.sort_by(|left, right| module_name::compare(&left.name, &right.name));
    Ok(modules)
}

/// Checks a copy of a base weight: `peft` saves the base model's own token table with an adapter
/// that targets it, and replaces the base model's table when it loads the adapter. The two must be
/// equal.
fn check_copy(
    tensors: &mut AdapterTensors,
    module: &str,
    suffix: &str,
    copy: &str,
    base: Option<&mut BaseWeights>,
) -> Result<(), Error> {
    const SAVE_WITHOUT: &str =
        "or save the adapter with save_pretrained(..., save_embedding_layers=False)";
    let Some(base) = base else {
        let reason = format!(
            "is a copy of a base model's weight that may have been changed; to compare the two, {PASS_BASE}, \
             {SAVE_WITHOUT}"
        );
        return Err(tensors.error(copy, reason));
    };
    let original = match (suffix == BASE_BIAS, base.bias(module)) {
        (false, _) => base.weight(module)?,
        (true, Some(bias)) => bias,
        (true, None) => {
            return Err(
                tensors.error(copy, "is a bias that this layer of the base model does not have")
            );
        }
    };
    if base.digest(&original)? == tensors.digest(copy)? {
        return Ok(());
    }
    // The model may have been loaded in another type.
    if base.shape(&original)? == tensors.shape(copy)?
        && base.read(&original)? == tensors.values(module, copy)?
    {
        return Ok(());
    }
    let reason = format!(
        "differs from the weight of the base model in size or values, so the adapter changes more than its \
         deltas; restore the base model's weight, {SAVE_WITHOUT}"
    );
    Err(tensors.error(copy, reason))
}

/// For a whole table, which `peft` saves if its size differs from that in the base model's config.
const RESIZED: &str = "is a table of the base model, which peft saves if the vocabulary was resized; only the adapter's \
                       deltas can be proven: if the table was not trained, save with save_embedding_layers=False";

const STATE: &str = "is none of an adapter's tensors: it was trained whole, or state_dict() saved it with the whole model; save \
                     the adapter with save_pretrained, or leave it out with --module";

/// What a tensor that belongs to no module probably is.
fn hint(tensor: &str) -> Option<&'static str> {
    let hints = [
        (
            "lora_embedding_",
            "belongs to LoRA on an embedding, but is not lora_embedding_A or lora_embedding_B of a module",
        ),
        (
            "lora_magnitude_vector",
            "belongs to DoRA, but is not the lora_magnitude_vector of a module",
        ),
        ("lm_head.weight", RESIZED),
        ("embed_tokens.weight", RESIZED),
        ("wte.weight", RESIZED),
        (
            "modules_to_save",
            "belongs to a module that was trained whole; only the adapter's deltas can be proven",
        ),
        (
            "original_module",
            "belongs to a module that was trained whole; only the adapter's deltas can be proven",
        ),
    ];
    let own = hints.iter().find(|(part, _)| tensor.contains(part)).map(|(_, hint)| *hint);
    own.or((!is_of_adapter(tensor)).then_some(STATE))
}
