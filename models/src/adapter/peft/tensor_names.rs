//! Names that `peft` would not find in the base model: those of wrappers that were around the model
//! when it was saved. Each has its remedy, a text to replace (`zklora export --rename FROM=TO`).
//!
//! Must not know shapes or values.

/// The prefix that `peft` puts before the name of every module.
pub(super) const PREFIX: &str = "base_model.model.";

/// Why `peft` would not find a tensor, and what to replace by what in its name.
#[derive(Debug, PartialEq)]
pub(super) struct Remedy {
    why: &'static str,
    from: &'static str,
    to: &'static str,
}

/// Parts of names that wrappers of modules leave.
const WRAPPERS: &[Remedy] = &[
    Remedy { why: "torch.compile was around the model", from: "_orig_mod.", to: "" },
    Remedy { why: "FSDP was around a module", from: "_fsdp_wrapped_module.", to: "" },
    Remedy {
        why: "activation checkpointing was around a module",
        from: "_checkpoint_wrapped_module.",
        to: "",
    },
    Remedy {
        why: "the prefix of peft is there twice (a PeftModel of a PeftModel)",
        from: "base_model.model.base_model.model.",
        to: PREFIX,
    },
    Remedy {
        why: "the name of the adapter is in it, as state_dict() has it and save_pretrained not",
        from: ".default",
        to: "",
    },
];

/// Whether a tensor's name has a part that only tensors of adapters have.
pub(super) fn is_of_adapter(tensor: &str) -> bool {
    let parts = ["lora_", "hada_", "lokr_", "ia3_", "vera_"];
    tensor.split('.').any(|name| parts.iter().any(|part| name.starts_with(part)))
}

/// The remedy for a tensor; none if its name is one that `peft` can find.
pub(super) fn remedy(tensor: &str) -> Option<&'static Remedy> {
    const DATA_PARALLEL: Remedy = Remedy {
        why: "DataParallel was around the model",
        from: "module.base_model",
        to: "base_model",
    };
    const NO_PREFIX: Remedy =
        Remedy { why: "it does not begin with `base_model.model.`", from: "", to: PREFIX };
    match () {
        () if tensor.starts_with("module.base_model.model.") => Some(&DATA_PARALLEL),
        () if !is_of_adapter(tensor) => None,
        () => WRAPPERS
            .iter()
            .find(|of| tensor.contains(of.from))
            .or_else(|| (!tensor.starts_with("base_model.")).then_some(&NO_PREFIX)),
    }
}

impl std::fmt::Display for Remedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Remedy { why, from, to } = self;
        write!(
            f,
            "names no module that peft would find in the base model: {why}; if the rest of the names \
             is right, export with --rename {from}={to}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrapper_has_its_remedy() {
        for (name, from) in [
            ("_orig_mod.base_model.model.q.lora_A.weight", "_orig_mod."),
            ("base_model.model._orig_mod.q.lora_A.weight", "_orig_mod."),
            (
                "base_model.model.l.0._checkpoint_wrapped_module.q.lora_B.weight",
                "_checkpoint_wrapped_module.",
            ),
            ("base_model.model._fsdp_wrapped_module.q.lora_A.weight", "_fsdp_wrapped_module."),
            (
                "base_model.model.base_model.model.q.lora_A.weight",
                "base_model.model.base_model.model.",
            ),
            ("module.base_model.model.q.lora_A.weight", "module.base_model"),
            ("base_model.model.q.lora_A.default.weight", ".default"),
            ("base_model.model.q.hada_w1_a.default", ".default"),
            ("model.layers.0.q.lora_A.weight", ""),
        ] {
            assert_eq!(remedy(name).map(|of| of.from), Some(from), "{name}");
        }
        for name in [
            "base_model.model.q.lora_A.weight",
            "base_model.vera_A",
            "base_model.model.default.q.base_layer.weight",
            "model.embed_tokens.weight",
        ] {
            assert_eq!(remedy(name), None, "{name}");
        }
    }
}
