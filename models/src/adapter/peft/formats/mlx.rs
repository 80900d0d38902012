//! MLX: `adapter_config.json` and `adapters.safetensors`, as `mlx_lm.lora` writes them.
//!
//! `y = linear(x) + scale · (x lora_a) lora_b`, with `lora_a` `[d_in, r]` and `lora_b` `[r,
//! d_out]`: the transposes of `peft`'s. `scale` is the whole factor. DoRA's `m` is `peft`'s
//! magnitude vector. All other keys of the settings say how it was trained.

use std::{collections::BTreeMap, path::Path};

use super::part::{Open, Part, peft_name};
use crate::{
    Error,
    adapter::{
        peft::{
            config::{Config, Keys, Ranked, Ranks, Settings},
            dora, lora,
        },
        strict_json::StrictJson,
        weights::View,
    },
};

const A: &str = ".lora_a";
const B: &str = ".lora_b";
const M: &str = ".m";
const PARAMETERS: &str = "lora_parameters";
const TYPE: &str = "fine_tune_type";

/// Last parts of the names of token tables.
const TABLES: &[&str] = &["embed_tokens", "wte", "tok_embeddings", "word_embeddings", "embedding"];

pub(super) fn read(config: &Path, weights: &Path, open: Open) -> Result<Vec<Part>, Error> {
    let keys = Keys::read(config)?;
    let dora = match keys.text(TYPE)?.as_deref() {
        None => keys.flag("use_dora")?,
        Some("lora") => false,
        Some("dora") => true,
        Some("full") => {
            let reason = "the whole model was trained: there is no adapter, only a new base model";
            return Err(keys.error(TYPE, reason));
        }
        Some(_) => return Err(keys.error(TYPE, "must be lora, dora or full")),
    };
    let Some(StrictJson::Object(entries)) = keys.get(PARAMETERS) else {
        return Err(keys.error(PARAMETERS, "must be an object with rank and scale"));
    };
    let parameters = Keys { path: config, entries: entries.clone() };
    if parameters.get("alpha").is_some() {
        let reason = "current versions of mlx-lm ignore alpha, and others multiply the scale by \
                      alpha / rank: remove it, and set scale to the whole factor of the product";
        return Err(parameters.error("alpha", reason));
    }
    let Some(scale) = parameters.get("scale") else {
        return Err(parameters.error("scale", "must be the factor of (x lora_a) lora_b"));
    };
    let scaling = parameters.alpha("scale", scale)?;
    let rank = match parameters.get("rank") {
        Some(rank) => parameters.rank("rank", rank)?,
        None => return Err(parameters.error("rank", "must be a positive whole number")),
    };
    let ranked = Ranked::new(rank, scaling).map_err(|reason| parameters.error("scale", reason))?;

    let weights = open(&[weights.to_owned()])?;
    let mut modules = BTreeMap::new();
    for name in weights.names() {
        let Some(module) = name.strip_suffix(A).or_else(|| name.strip_suffix(B)) else { continue };
        if weights.shape(&name)?.len() == 3 {
            let reason = "is LoRA on experts that share one tensor, which is not supported: leave \
                          the module out with --module";
            return Err(weights.error(&name, reason));
        }
        modules.insert(module.to_owned(), ranked);
    }
    let is_table = |module: &str| TABLES.contains(&module.rsplit('.').next().unwrap_or(module));
    let weights = weights.renamed(|name| {
        let [a, b] = match name.strip_suffix(A).or_else(|| name.strip_suffix(B)) {
            Some(module) if is_table(module) => [lora::EMBEDDING_A, lora::EMBEDDING_B],
            _ => [lora::A, lora::B],
        };
        let named = |end: &str, suffix: &str, view| {
            name.strip_suffix(end).map(|module| (peft_name(module, suffix), view))
        };
        named(A, a, Some(View::Transposed))
            .or_else(|| named(B, b, Some(View::Transposed)))
            .or_else(|| named(M, dora::MAGNITUDE, None))
            // What it is, the reader of modules says.
            .or_else(|| Some((peft_name(name, ""), None)))
    })?;
    let settings = Settings::Lora { ranks: Ranks::Modules(modules), bias: false, dora };
    let name = keys.text("model")?.unwrap_or_default();
    Ok(vec![Part { config: Config::of_other(config, name, settings)?, weights }])
}
