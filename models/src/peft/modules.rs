//! All modules of an adapter file, by the type of the adapter.
//!
//! Adding a type is a file with the names of its tensors (`ENDS`) and what a module computes, and a
//! line here.

use super::{
    adalora,
    base_layer::Layers,
    config::{Config, Settings},
    dora, ia3, loha, lokr, lora,
    module::AdapterModule,
    parts::{Parts, Tensors},
    vera,
};
use crate::{Error, base_weights::BaseWeights, module_name, tensor_file::TensorFile};

/// Copies of a base layer's own weight and bias, which `peft` saves with adapters of embeddings and
/// output layers.
const BASE_COPIES: &[&str] = &[".base_layer.weight", BASE_BIAS];
const BASE_BIAS: &str = ".base_layer.bias";

/// What to do where the base model is needed.
const PASS_BASE: &str = "pass its folder with --base DIR";

/// Reads all modules of an adapter file, in [`module_name::compare`] order. Every tensor of the
/// file has to belong to one.
pub(super) fn read(
    file: &mut TensorFile,
    config: &Config,
    mut base: Option<&mut BaseWeights>,
) -> Result<Vec<AdapterModule>, Error> {
    let mut tensors = Tensors::of(file);
    let (ends, shared): (&[_], &[_]) = match &config.settings {
        Settings::Lora { .. } => (lora::ENDS, &[]),
        Settings::AdaLora(_) => (adalora::ENDS, &[]),
        Settings::Vera => (vera::ENDS, vera::SHARED),
        Settings::Ia3 => (ia3::ENDS, &[]),
        Settings::LoHa(_) => (loha::ENDS, &[]),
        Settings::LoKr(_) => (lokr::ENDS, &[]),
    };
    let sorted = tensors.sort(&[ends, BASE_COPIES].concat(), shared, hint)?;
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
                let reason = format!(
                    "the sizes of VeRA's modules are those of the base model's layers: {PASS_BASE}"
                );
                return Err(config.error("peft_type", "\"VERA\"", &reason));
            }
            _ => {}
        }
    }

    let mut modules = Vec::with_capacity(sorted.len());
    let mut copies = Vec::new();
    let mut layers = base.as_deref_mut().map(|base| Layers::new(base, config));
    for (name, mut ends) in sorted {
        for end in BASE_COPIES {
            if let Some(copy) = ends.remove(*end) {
                copies.push((name.clone(), *end, copy));
            }
        }
        if ends.is_empty() {
            continue;
        }
        // Of a layer inside another adapted one: nn.MultiheadAttention, target_parameters.
        if let Some(tensor) =
            ends.values().next().filter(|_| name.split('.').any(|part| part == "base_layer"))
        {
            let reason = "is of a layer inside another adapted layer (nn.MultiheadAttention), whose delta is not one of \
                          its output; leave it out of target_modules";
            return Err(tensors.error(tensor, reason));
        }
        let mut parts = Parts { tensors: &mut tensors, name, ends };
        modules.extend(match (&config.settings, &projections, &mut layers) {
            (Settings::Lora { ranks, bias, dora: false }, _, _) => {
                if parts.has(lora::MAGNITUDE) {
                    let reason =
                        "is a magnitude vector of DoRA, but the config does not say use_dora";
                    return Err(parts.error(lora::MAGNITUDE, reason));
                }
                Some(lora::module(&mut parts, ranks, *bias)?)
            }
            (Settings::Lora { ranks, bias, dora: true }, _, Some(layers)) => {
                let lora = lora::module(&mut parts, ranks, *bias)?;
                Some(dora::module(&mut parts, lora, layers)?)
            }
            (Settings::AdaLora(allocation), _, _) => adalora::module(&mut parts, allocation)?,
            (Settings::Vera, Some(projections), Some(layers)) => {
                Some(vera::module(&mut parts, projections, layers)?)
            }
            (Settings::Ia3, _, _) => Some(ia3::module(&mut parts)?),
            (Settings::LoHa(ranks), _, _) => Some(loha::module(&mut parts, ranks)?),
            (Settings::LoKr(ranks), _, _) => Some(lokr::module(&mut parts, ranks)?),
            // Refused above.
            (Settings::Lora { .. } | Settings::Vera, _, _) => None,
        });
    }
    if let Some(layers) = &layers {
        layers.check()?;
    }
    for (module, end, copy) in copies {
        check_copy(&mut tensors, &module, end, &copy, base.as_deref_mut())?;
    }
    if modules.is_empty() {
        let reason = "holds no module that changes anything, so there is no adapter in it".into();
        return Err(Error::Safetensors { path: file.path().to_owned(), reason });
    }
    modules.sort_by(|left, right| module_name::compare(&left.name, &right.name));
    Ok(modules)
}

/// `peft` saves the base model's own token table with an adapter that targets it, and loads it over
/// the base model's. That is no change only if the two are the same.
fn check_copy(
    tensors: &mut Tensors,
    module: &str,
    end: &str,
    copy: &str,
    base: Option<&mut BaseWeights>,
) -> Result<(), Error> {
    const SAVE_WITHOUT: &str =
        "or save the adapter with save_pretrained(..., save_embedding_layers=False)";
    let Some(base) = base else {
        let reason = format!(
            "is a copy of a weight of the base model, which may have been changed; to compare the two, {PASS_BASE}, \
             {SAVE_WITHOUT}"
        );
        return Err(tensors.error(copy, reason));
    };
    let original = match (end == BASE_BIAS, base.bias(module)) {
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
    let reason = format!(
        "is not the weight of the base model (another size, type or values), so the adapter is more than its deltas; \
         make it the base model's own, {SAVE_WITHOUT}"
    );
    Err(tensors.error(copy, reason))
}

/// `peft` saves whole tables when it finds that their size is not the one of the base model's
/// config.
const RESIZED: &str = "is a table of the base model, which peft saves if the vocabulary was resized; only the adapter's \
                       deltas can be proven: if the table was not trained, save with save_embedding_layers=False";

/// What a tensor that belongs to no module may be.
fn hint(tensor: &str) -> Option<&'static str> {
    let hints = [
        (
            "lora_embedding_",
            "is of LoRA on an embedding, but not lora_embedding_A or lora_embedding_B of a module",
        ),
        ("lora_magnitude_vector", "is of DoRA, but not the lora_magnitude_vector of a module"),
        ("lm_head.weight", RESIZED),
        ("embed_tokens.weight", RESIZED),
        ("wte.weight", RESIZED),
        (
            "modules_to_save",
            "is of a module that was trained whole; only the adapter's deltas can be proven",
        ),
        (
            "original_module",
            "is of a module that was trained whole; only the adapter's deltas can be proven",
        ),
    ];
    hints.iter().find(|(part, _)| tensor.contains(part)).map(|(_, hint)| *hint)
}
