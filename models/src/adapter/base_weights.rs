//! Looks up the weights of a base model by the name of a module, and reads them one at a time.
//!
//! Must not know about adapters, nor the orientation of a weight.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use crate::{
    Error,
    adapter::{base_model::open_shards, tensor_file::TensorFile},
    error::quoted,
    similar_names::similar_names,
};

/// Names of the token table that an output layer is tied to, if the file has no weight for that
/// layer.
const TIED: &[&str] = &[
    "model.embed_tokens",
    "transformer.wte",
    "gpt_neox.embed_in",
    "model.decoder.embed_tokens",
    "embed_tokens",
    "wte",
];

/// Ends of the names of weights: as they are, and packed.
const WEIGHTS: &[&str] = &[".weight", ".qweight", ".weight_packed", ".weight_blocks"];

/// Beginnings of kohya's names of modules. (`lora_te1_` and `lora_te2_` are in folders of their
/// own.)
const FLAT: &[&str] =
    &["lora_unet_", "lora_transformer_", "lora_te1_", "lora_te2_", "lora_te_", "lycoris_"];

/// Beginnings of names that `transformers` changed in multimodal models: as they are in old files,
/// and in new models.
const MOVED: &[(&str, &str)] = &[
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head", "lm_head"),
    ("model.", "model.language_model."),
    ("visual.", "model.visual."),
    ("vision_tower.", "model.vision_tower."),
    ("vision_model.", "model.vision_model."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
];

/// A base model folder whose headers have been read.
pub(crate) struct BaseWeights {
    dir: PathBuf,
    shards: Vec<TensorFile>,
    /// Shard of every tensor.
    shard_of: HashMap<String, usize>,
}

/// A tensor of a base model.
#[derive(Debug, Clone)]
pub(crate) struct BaseTensor {
    shard: usize,
    name: String,
}

impl BaseWeights {
    /// Opens a folder that `save_pretrained` wrote.
    pub(crate) fn open(dir: &Path) -> Result<BaseWeights, Error> {
        let shards = open_shards(dir)?;
        let shard_of = shards
            .iter()
            .enumerate()
            .flat_map(|(shard, file)| file.names().into_iter().map(move |name| (name, shard)))
            .collect();
        Ok(BaseWeights { dir: dir.to_owned(), shards, shard_of })
    }

    /// The weight of a module, the first that exists of:
    ///
    /// 1. `<module>.weight`;
    /// 2. without the first part of the name, because base models are saved without the head
    ///    (`h.0.attn.c_attn.weight` for `transformer.h.0.attn.c_attn`);
    /// 3. for `lm_head`, the token table that it is tied to;
    /// 4. the name that the layer had before `transformers` moved the parts of multimodal models,
    ///    which renames it when it loads such a file, if only one of them exists;
    /// 5. for kohya's names, the only one that is the same with its dots as underscores;
    /// 6. the only name that ends in the module's, because models are saved with the head
    ///    (`model.layers.0…` for `layers.0…`).
    ///
    /// A quantised layer has its packed weight.
    pub(crate) fn weight(&self, module: &str) -> Result<BaseTensor, Error> {
        self.find_weight(module).ok_or_else(|| {
            let mut names: Vec<&str> = self
                .shard_of
                .keys()
                .filter_map(|name| WEIGHTS.iter().find_map(|end| name.strip_suffix(end)))
                .collect();
            names.sort_unstable();
            let similar: Vec<String> =
                similar_names(module, names).iter().take(3).map(|name| quoted(name)).collect();
            Error::Tensor {
                path: self.dir.clone(),
                tensor: format!("{module}.weight"),
                reason: format!(
                    "is not in this base model, although the adapter changes that module; similar names: {}; pass the \
                     folder of the model that the adapter was trained on, or export with --rename if the layer has \
                     another name there",
                    similar.join(", ")
                ),
            }
        })
    }

    /// Checks that there is an expert `<module>.<expert>.<parameter>`: a slice of a parameter of so
    /// many experts, of which `fits` accepts the sizes, or some layers of its own, which
    /// `transformers` joins.
    ///
    /// # Errors
    /// There is neither.
    pub(crate) fn check_expert(
        &self,
        module: &str,
        experts: usize,
        fits: impl Fn(usize, usize) -> bool,
    ) -> Result<(), Error> {
        let mut parts = module.rsplitn(3, '.');
        let (parameter, number) = (parts.next(), parts.next());
        let [parameter, number, all] =
            [parameter, number, parts.next()].map(Option::unwrap_or_default);
        let found = match self.tensor(all, &format!(".{parameter}")) {
            Some(fused) => match *self.shape(&fused)?.as_slice() {
                [count, a, b] => count == experts && (fits(a, b) || fits(b, a)),
                _ => false,
            },
            None => {
                let own = format!("{all}.{number}.");
                self.shard_of.keys().any(|name| name.starts_with(&own))
            }
        };
        match found {
            true => Ok(()),
            false => Err(Error::Tensor {
                path: self.dir.clone(),
                tensor: format!("{all}.{parameter}"),
                reason: format!(
                    "does not have {experts} experts with the sizes of the adapter's modules, or is not in this base model; \
                     pass the folder of the model that the adapter was trained on"
                ),
            }),
        }
    }

    /// [`BaseWeights::weight`], without an error.
    pub(crate) fn find_weight(&self, module: &str) -> Option<BaseTensor> {
        self.stored_name(module).and_then(|name| self.any_weight(&name))
    }

    /// How a layer is quantised; none if its weight is in the file as it is.
    pub(crate) fn quantised(&self, module: &str) -> Option<&'static str> {
        let name = self.stored_name(module)?;
        let signs = [
            (".weight.quant_state.bitsandbytes__nf4", "bitsandbytes, 4 bits"),
            (".weight.quant_state.bitsandbytes__fp4", "bitsandbytes, 4 bits"),
            (".weight.absmax", "bitsandbytes, 4 bits"),
            (".SCB", "bitsandbytes, 8 bits"),
            (".qweight", "GPTQ or AWQ"),
            (".weight_packed", "compressed-tensors"),
            (".weight_scale_inv", "FP8 with scales"),
            (".weight_scale", "FP8 with scales"),
            (".weight_blocks", "MXFP4"),
        ];
        signs.iter().find(|(end, _)| self.tensor(&name, end).is_some()).map(|(_, how)| *how)
    }

    fn any_weight(&self, name: &str) -> Option<BaseTensor> {
        WEIGHTS.iter().find_map(|end| self.tensor(name, end))
    }

    /// The bias of a module, if it has one; looked up as [`BaseWeights::weight`].
    pub(crate) fn bias(&self, module: &str) -> Option<BaseTensor> {
        // The module's own names only: a head that is tied to the token table has its own bias.
        self.own_names(module)
            .map(str::to_owned)
            .chain(self.only_flat_name(module))
            .chain(self.only_name_ending_in(module))
            .find_map(|name| self.tensor(&name, ".bias"))
    }

    /// The module's name, and the same name without its first part.
    fn own_names<'m>(&self, module: &'m str) -> impl Iterator<Item = &'m str> {
        [Some(module), module.split_once('.').map(|(_, rest)| rest)].into_iter().flatten()
    }

    /// The module's name in the file.
    fn stored_name(&self, module: &str) -> Option<String> {
        let tied: &[&str] = if module == "lm_head" { TIED } else { &[] };
        let mut known = self.own_names(module).chain(tied.iter().copied());
        known
            .find(|name| self.any_weight(name).is_some())
            .map(str::to_owned)
            .or_else(|| self.only_moved_name(module))
            .or_else(|| self.only_flat_name(module))
            .or_else(|| self.only_name_ending_in(module))
    }

    /// The only layer whose name is the module's, which kohya's scripts and LyCORIS wrote with
    /// underscores for dots.
    fn only_flat_name(&self, module: &str) -> Option<String> {
        let flat = FLAT.iter().find_map(|prefix| module.strip_prefix(prefix))?;
        let modules = self.shard_of.keys();
        let modules =
            modules.filter_map(|name| WEIGHTS.iter().find_map(|end| name.strip_suffix(end)));
        let mut found = modules.filter(|name| name.replace('.', "_") == flat);
        found.next().filter(|_| found.next().is_none()).map(str::to_owned)
    }

    /// The only older name of a layer of a multimodal model that the file has.
    fn only_moved_name(&self, module: &str) -> Option<String> {
        let mut found: Vec<String> = MOVED
            .iter()
            .filter_map(|(old, new)| Some(format!("{old}{}", module.strip_prefix(new)?)))
            .filter(|name| self.any_weight(name).is_some())
            .collect();
        found.sort_unstable();
        found.dedup();
        found.pop().filter(|_| found.is_empty())
    }

    /// The only module whose name ends in this one after a dot.
    fn only_name_ending_in(&self, module: &str) -> Option<String> {
        let of = |end: &str| {
            let long = format!(".{module}{end}");
            let mut found =
                self.shard_of.keys().filter(|name| !module.is_empty() && name.ends_with(&long));
            match (found.next(), found.next()) {
                (Some(only), None) => only.strip_suffix(end).map(str::to_owned),
                _ => None,
            }
        };
        WEIGHTS.iter().find_map(|end| of(end))
    }

    fn tensor(&self, module: &str, end: &str) -> Option<BaseTensor> {
        let name = format!("{module}{end}");
        self.shard_of.get(&name).map(|&shard| BaseTensor { shard, name })
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Shape of a tensor.
    pub(crate) fn shape(&self, tensor: &BaseTensor) -> Result<Vec<usize>, Error> {
        Ok(self.shards[tensor.shard].info(&tensor.name)?.shape.clone())
    }

    /// A tensor's values, row-major, all finite.
    ///
    /// # Errors
    /// It is the packed weight of a quantised layer, or not finite.
    pub(crate) fn read(&mut self, tensor: &BaseTensor) -> Result<Vec<f32>, Error> {
        let module = WEIGHTS.iter().find_map(|end| tensor.name.strip_suffix(end));
        if let Some(how) = module.and_then(|module| self.quantised(module)) {
            let reason = format!(
                "is quantised ({how}), and this adapter needs the weight itself: pass the folder of the model that is not \
                 quantised"
            );
            return Err(self.error(tensor, reason));
        }
        let values = self.shards[tensor.shard].read_f32(&tensor.name)?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => Err(self.error(tensor, format!("holds {} at position {at}", values[at]))),
        }
    }

    /// BLAKE3 of type, shape and content of a tensor.
    pub(crate) fn digest(&mut self, tensor: &BaseTensor) -> Result<blake3::Hash, Error> {
        self.shards[tensor.shard].digest(&tensor.name)
    }

    /// An error about a tensor.
    pub(crate) fn error(&self, tensor: &BaseTensor, reason: String) -> Error {
        self.shards[tensor.shard].tensor_error(&tensor.name, reason)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use safetensors::{Dtype, tensor::TensorView};

    use super::*;

    fn model(names: &[&str]) -> (tempfile::TempDir, BaseWeights) {
        let dir = tempfile::tempdir().unwrap();
        let views = names
            .iter()
            .map(|name| (*name, TensorView::new(Dtype::F32, vec![1, 1], &[0; 4]).unwrap()));
        std::fs::write(
            dir.path().join("model.safetensors"),
            safetensors::serialize(views, None).unwrap(),
        )
        .unwrap();
        let base = BaseWeights::open(dir.path()).unwrap();
        (dir, base)
    }

    #[test]
    fn a_module_is_found_by_its_name_then_without_the_head_then_tied() {
        let (_dir, base) = model(&[
            "transformer.h.0.weight",
            "h.0.weight",
            "h.1.weight",
            "h.1.bias",
            "wte.weight",
        ]);
        let found = |module: &str| base.weight(module).map(|tensor| tensor.name);
        assert_eq!(found("transformer.h.0").unwrap(), "transformer.h.0.weight");
        assert_eq!(found("transformer.h.1").unwrap(), "h.1.weight");
        assert_eq!(base.bias("transformer.h.1").unwrap().name, "h.1.bias");
        assert!(base.bias("transformer.h.0").is_none());
        assert_eq!(found("lm_head").unwrap(), "wte.weight");
        for absent in ["transformer.h.2", "h", "0", "x.y.h.1", ""] {
            let error = found(absent).unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{absent}.weight`")) && error.contains("trained on"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_module_of_a_model_that_was_saved_with_its_head_is_found_if_it_is_the_only_one() {
        let (_dir, base) = model(&[
            "model.layers.0.q.weight",
            "model.layers.0.q.bias",
            "a.layers.1.q.weight",
            "b.layers.1.q.weight",
        ]);
        assert_eq!(base.weight("layers.0.q").unwrap().name, "model.layers.0.q.weight");
        assert_eq!(base.bias("layers.0.q").unwrap().name, "model.layers.0.q.bias");
        for other in ["layers.1.q", "yers.0.q", "q", ""] {
            assert!(base.weight(other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_tied_head_has_the_bias_of_its_own_name() {
        let (_dir, base) =
            model(&["lm_head.bias", "model.embed_tokens.weight", "model.embed_tokens.bias"]);
        assert_eq!(base.weight("lm_head").unwrap().name, "model.embed_tokens.weight");
        assert_eq!(base.bias("lm_head").unwrap().name, "lm_head.bias");
    }

    #[test]
    fn a_head_with_its_own_weight_is_not_tied() {
        let (_dir, base) = model(&["lm_head.weight", "model.embed_tokens.weight"]);
        assert_eq!(base.weight("lm_head").unwrap().name, "lm_head.weight");
    }
}
