//! GGUF: an adapter of llama.cpp, as its `convert_lora_to_gguf.py` writes it from one of `peft`.
//!
//! `blk.0.attn_q.weight.lora_a` is `lora_A` and `lora_b` is `lora_B`, in their orientation. The
//! scaling is `adapter.lora.alpha` / rank, or 1 if alpha is 0. Names are those of llama.cpp's
//! graph, and the rows of q and k of Llama are in another order: with the two halves of each head
//! interleaved. How many heads there are is in the base model's `config.json`.

use std::{collections::BTreeMap, path::Path};

use super::part::{Open, Part, peft_name};
use crate::{
    Error,
    adapter::{
        glob,
        peft::{
            config::{Config, Keys, Ranked, Ranks, Settings},
            load_options::LoadOptions,
            lora,
        },
        strict_json::StrictJson,
        weights::{View, Weights},
    },
};

/// Architectures whose layers have these names. Mistral is `llama` there.
const ARCHITECTURES: &[&str] = &["llama", "qwen2", "qwen3", "gemma", "gemma2"];
/// Those whose q and k have permuted rows. Before one is added above: look it up in llama.cpp's
/// `convert_hf_to_gguf.py`.
const PERMUTED: &[&str] = &["llama"];

/// Names of llama.cpp's graph in a block, and those of `transformers`.
const LAYERS: &[(&str, &str)] = &[
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

const A: &str = ".weight.lora_a";
const B: &str = ".weight.lora_b";

pub(super) fn read(path: &Path, options: &LoadOptions, open: Open) -> Result<Vec<Part>, Error> {
    let weights = open(&[path.to_owned()])?;
    let refuse =
        |what: String, hint: &str| Error::Format { path: path.to_owned(), what, hint: hint.into() };
    let text = |key: &str| weights.metadata(key).unwrap_or("nothing");
    let (kind, form) = (text("general.type"), text("adapter.type"));
    if (kind, form) != ("adapter", "lora") {
        let what = format!("this GGUF file says that it is {kind}, {form}, and no LoRA adapter");
        return Err(refuse(what, "pass the file that convert_lora_to_gguf.py wrote"));
    }
    let architecture = text("general.architecture").to_owned();
    if !ARCHITECTURES.contains(&architecture.as_str()) {
        let what = format!("the names of layers of {architecture:?} in GGUF are not known");
        return Err(refuse(what, "pass the folder of peft that it was converted from"));
    }
    let heads = Heads::read(options.base)?;
    let is_selected = |module: &str| {
        options.modules.is_empty() || options.modules.iter().any(|of| glob::matches(of, module))
    };
    let alpha = weights.number("adapter.lora.alpha").unwrap_or(0.0);
    let mut ranks = BTreeMap::new();
    let mut views: BTreeMap<String, (String, Option<View>)> = BTreeMap::new();
    for name in weights.names() {
        let stem = name.strip_suffix(A).or_else(|| name.strip_suffix(B));
        let Some((module, layer)) = stem.and_then(module) else {
            if !options.modules.is_empty() {
                continue;
            }
            let reason = "is no LoRA of a linear layer that is known (embeddings and norms are \
                          not): leave it out with --module, or pass the folder of peft";
            return Err(weights.error(&name, reason));
        };
        if !is_selected(&module) {
            continue;
        }
        let suffix = if name.ends_with(A) { lora::A } else { lora::B };
        let mut view = None;
        if name.ends_with(B) {
            let rank = weights.shape(&name)?.last().copied().unwrap_or(0);
            let scaling = if alpha == 0.0 { 1.0 } else { alpha / rank.max(1) as f64 };
            let ranked =
                Ranked::new(rank, scaling).map_err(|reason| weights.error(&name, reason))?;
            ranks.insert(module.clone(), ranked);
            view = heads.view(&weights, &architecture, layer, &name)?;
        }
        views.insert(name, (peft_name(&module, suffix), view));
    }
    let weights = weights.renamed(|name| views.get(name).cloned())?;
    let settings = Settings::Lora { ranks: Ranks::Modules(ranks), bias: false, dora: false };
    let name = weights.metadata("general.base_model.0.name").unwrap_or_default().to_owned();
    Ok(vec![Part { config: Config::of_other(path, name, settings)?, weights }])
}

/// The name of `transformers` for a layer, and that of llama.cpp in its block.
fn module(stem: &str) -> Option<(String, &str)> {
    if stem == "output" {
        return Some(("lm_head".into(), stem));
    }
    let (block, layer) = stem.strip_prefix("blk.")?.split_once('.')?;
    let number: u32 = block.parse().ok()?;
    let (_, own) = LAYERS.iter().find(|(name, _)| *name == layer)?;
    Some((format!("model.layers.{number}.{own}"), layer))
}

/// Heads of q and of k, if the base model is given.
struct Heads(Option<[usize; 2]>);

impl Heads {
    fn read(base: Option<&Path>) -> Result<Heads, Error> {
        let Some(path) = base.map(|base| base.join("config.json")).filter(|path| path.exists())
        else {
            return Ok(Heads(None));
        };
        let keys = Keys::read(&path)?;
        let heads = match keys.get("num_attention_heads") {
            Some(heads) => keys.rank("num_attention_heads", heads)?,
            None => return Ok(Heads(None)),
        };
        let of_k = match keys.get("num_key_value_heads") {
            None | Some(StrictJson::Null) => heads,
            Some(of_k) => keys.rank("num_key_value_heads", of_k)?,
        };
        Ok(Heads(Some([heads, of_k])))
    }

    /// How the rows of a layer's B are read.
    fn view(
        &self,
        weights: &Weights,
        architecture: &str,
        layer: &str,
        tensor: &str,
    ) -> Result<Option<View>, Error> {
        let which = match layer {
            "attn_q" => 0,
            "attn_k" => 1,
            _ => return Ok(None),
        };
        if !PERMUTED.contains(&architecture) {
            return Ok(None);
        }
        let Some(heads) = self.0 else {
            let reason = "has rows in llama.cpp's order, which depends on the number of heads: pass \
                          the base model's folder with --base (its config.json says how many)";
            return Err(weights.error(tensor, reason));
        };
        let rows = weights.shape(tensor)?.first().copied().unwrap_or(0);
        match rows.is_multiple_of(heads[which].saturating_mul(2)) {
            true => Ok(Some(View::Interleaved { heads: heads[which] })),
            false => {
                let reason =
                    format!("has {rows} rows, which are no {} heads of two halves", heads[which]);
                Err(weights.error(tensor, reason))
            }
        }
    }
}
