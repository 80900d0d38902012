//! Reads all modules of an adapter file, by the type of the adapter.
//!
//! To add a type, add a file with the suffixes of its tensors and its `module` function, and a line
//! here.

use std::collections::BTreeMap;

use super::{
    adalora,
    base_layer::BaseLayers,
    config::{Config, Settings},
    dora, experts, ia3, loha, lokr, lora,
    module::AdapterModule,
    module_tensors::{AdapterTensors, ModuleTensors, Sorted, TensorsBySuffix},
    vera,
    whole::{self, LeftOut, Wanted},
};
use crate::{
    Error,
    adapter::{base_weights::BaseWeights, module_name, weights::Weights},
};

/// The remedy where the base model is needed.
const PASS_BASE: &str = "pass its folder with --base DIR";

/// Reads all modules of an adapter file, in [`module_name::compare`] order, and the tensors of
/// layers that were trained whole and are left out. Every tensor of the file must belong to a
/// module.
pub(super) fn read(
    file: &mut Weights,
    config: &Config,
    base: Option<&mut BaseWeights>,
    wanted: Wanted,
) -> Result<(Vec<AdapterModule>, Vec<LeftOut>), Error> {
    let mut tensors = AdapterTensors::of(file);
    let (suffixes, shared): (&[_], &[_]) = match &config.settings {
        Settings::Lora { .. } => (lora::SUFFIXES, &[]),
        Settings::AdaLora(_) => (adalora::SUFFIXES, &[]),
        Settings::Vera => (vera::SUFFIXES, vera::SHARED),
        Settings::Ia3 => (ia3::SUFFIXES, &[]),
        Settings::LoHa { .. } => (loha::SUFFIXES, &[]),
        Settings::LoKr { .. } => (lokr::SUFFIXES, &[]),
    };
    let magnitude: &[&str] = match &config.settings {
        Settings::LoHa { dora: true, .. } | Settings::LoKr { dora: true, .. } => &[dora::MAGNITUDE],
        _ => &[],
    };
    let duplicates = whole::duplicates(&mut tensors)?;
    let suffixes = [suffixes, magnitude].concat();
    let Sorted { modules: mut sorted, others } =
        tensors.sort(&suffixes, whole::SUFFIXES, &duplicates, shared, hint)?;
    let projections = match &config.settings {
        Settings::Vera => Some(vera::Projections::read(&mut tensors)?),
        _ => None,
    };
    if base.is_none() {
        match &config.settings {
            Settings::Lora { dora: true, .. }
            | Settings::LoHa { dora: true, .. }
            | Settings::LoKr { dora: true, .. } => {
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

    let mut trained_whole = BTreeMap::new();
    for (name, by_suffix) in &mut sorted {
        let of_base: TensorsBySuffix =
            by_suffix.extract_if(.., |suffix, _| whole::SUFFIXES.contains(suffix)).collect();
        if !of_base.is_empty() {
            trained_whole.insert(name.clone(), of_base);
        }
    }
    sorted.retain(|_, by_suffix| !by_suffix.is_empty());
    let mut modules = match &config.settings {
        Settings::Lora { ranks, .. } => experts::read(&mut tensors, config, ranks, &mut sorted)?,
        _ => Vec::new(),
    };
    let mut layers = base.map(|base| BaseLayers::new(base, config));
    for (name, suffixes) in sorted {
        // A layer inside another adapted layer.
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
                if config.of_peft && module.has(lora::MID) {
                    return Err(module.error(lora::MID, "is no tensor of peft, which ignores it"));
                }
                if module.has(dora::MAGNITUDE) {
                    let reason =
                        "is a magnitude vector of DoRA, but the config does not say use_dora";
                    return Err(module.error(dora::MAGNITUDE, reason));
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
            (Settings::LoHa { ranks, dora }, _, layers) => {
                let loha = loha::module(&mut module, ranks)?;
                Some(with_magnitude(&mut module, loha, *dora, layers.as_mut())?)
            }
            (Settings::LoKr { ranks, dora }, _, layers) => {
                let lokr = lokr::module(&mut module, ranks, config.of_peft)?;
                Some(with_magnitude(&mut module, lokr, *dora, layers.as_mut())?)
            }
            (Settings::Lora { .. } | Settings::Vera, _, _) => {
                let what = "a form that needs the base model was not refused without it".into();
                return Err(Error::Internal { what });
            }
        });
    }
    let left_out = whole::add(
        &mut tensors,
        trained_whole,
        others,
        config,
        layers.as_mut().map(|layers| &mut *layers.base),
        wanted,
        &mut modules,
    )?;
    if let Some(layers) = &layers {
        layers.check()?;
    }
    if modules.is_empty() {
        let reason = "holds no module that changes anything, so there is no adapter in it".into();
        return Err(Error::Safetensors { path: file.path().to_owned(), reason });
    }
    modules.sort_by(|left, right| module_name::compare(&left.name, &right.name));
    Ok((modules, left_out))
}

/// The module with the magnitude vector that LyCORIS gives it, if it does.
fn with_magnitude(
    tensors: &mut ModuleTensors,
    module: AdapterModule,
    dora: bool,
    layers: Option<&mut BaseLayers>,
) -> Result<AdapterModule, Error> {
    match layers.filter(|_| dora) {
        Some(layers) => dora::module(tensors, module, layers),
        None => Ok(module),
    }
}

/// What a tensor that belongs to no module probably is.
fn hint(tensor: &str) -> Option<&'static str> {
    const SAVED_BY_HAND: &str = "is a layer that was trained whole, under the name that it has in state_dict(); save the \
         adapter with save_pretrained";
    let hints = [
        (
            "lora_embedding_",
            "belongs to LoRA on an embedding, but is not lora_embedding_A or lora_embedding_B of a module",
        ),
        (
            "lora_magnitude_vector",
            "belongs to DoRA, but is not the lora_magnitude_vector of a module",
        ),
        ("modules_to_save", SAVED_BY_HAND),
        ("original_module", SAVED_BY_HAND),
    ];
    hints.iter().find(|(part, _)| tensor.contains(part)).map(|(_, hint)| *hint)
}
