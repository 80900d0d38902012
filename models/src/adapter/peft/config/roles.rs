//! Lists every key of the supported config classes (`peft` 0.21.2) by its effect on the delta of a
//! trained adapter.
//!
//! Extend this list when `peft` gains a key. Must not know how supported keys are read.

use super::tuner::Tuner;
use crate::adapter::strict_json::StrictJson;

/// The effect of a key with its value.
#[derive(Debug, PartialEq)]
pub(super) enum Role {
    /// Read elsewhere, or without effect on a trained adapter at inference.
    Harmless,
    /// Changes the result, or may change it; the text says how.
    Refused(&'static str),
}

/// Keys of every type that are read elsewhere, or that state how the adapter was trained or which
/// modules it has; the weights file states the latter itself.
pub(super) const HARMLESS: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    // How the base weight is stored; the adapter's own tensors are stored alike for both values.
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
];

/// The same for one type.
pub(super) fn harmless_for(tuner: Tuner) -> &'static [&'static str] {
    match tuner {
        Tuner::Lora => &[
            "alpha_pattern",
            "lora_alpha",
            "lora_bias",
            "lora_dropout",
            // The name of a Python package, unused without megatron_config.
            "megatron_core",
            // Unused without use_qalora.
            "qalora_group_size",
            "r",
            "rank_pattern",
            "target_parameters",
            "trainable_token_indices",
            "use_dora",
            "use_rslora",
        ],
        Tuner::AdaLora => &[
            "beta1",
            "beta2",
            "deltaT",
            "init_r",
            "lora_alpha",
            "lora_dropout",
            "megatron_core",
            "orth_reg_weight",
            "qalora_group_size",
            // AdaLoRA starts with init_r, and ignores these keys of LoRA.
            "alpha_pattern",
            "init_lora_weights",
            "lora_bias",
            "r",
            "use_qalora",
            "use_rslora",
            "rank_pattern",
            "target_r",
            "tfinal",
            "tinit",
            "total_step",
        ],
        Tuner::Vera => &[
            "d_initial",
            "init_weights",
            "projection_prng_key",
            "r",
            "save_projection",
            "vera_dropout",
        ],
        Tuner::Ia3 => &["feedforward_modules", "init_ia3_weights"],
        Tuner::LoHa | Tuner::LoKr => &[
            "alpha",
            "alpha_pattern",
            // These two state which factors of LoKr are split; the names of the tensors do, too.
            "decompose_both",
            "decompose_factor",
            "init_weights",
            "module_dropout",
            "r",
            "rank_dropout",
            "rank_dropout_scale",
            "rank_pattern",
            // States which form the tensors of a convolution have; their names do, too.
            "use_effective_conv2d",
        ],
    }
}

/// The values that switch a key off.
#[derive(Clone, Copy)]
pub(super) enum Off {
    /// `null`, `false`, `[]` or `{}`.
    Empty,
    /// `null` only: for `peft`, `{}` means "on, with default settings".
    Null,
}

const NOT_PLAIN: &str = "this variant of LoRA computes something else than (x Aᵀ) Bᵀ · scaling; only plain LoRA and DoRA are supported";

/// Keys that change the result unless they are off.
pub(super) const UNSUPPORTED: &[(&str, Off, &str)] = &[
    (
        "alora_invocation_tokens",
        Off::Empty,
        "with Activated LoRA the delta depends on the tokens before; it is not supported",
    ),
    ("arrow_config", Off::Null, "Arrow mixes several adapters; export and prove each one alone"),
    (
        "ensure_weight_tying",
        Off::Empty,
        "tied adapters on embeddings are not supported; train without it",
    ),
    ("kasa_config", Off::Null, NOT_PLAIN),
    (
        "layer_replication",
        Off::Empty,
        "the base model has other layers with it; apply it to the base model first",
    ),
    (
        "megatron_config",
        Off::Empty,
        "Megatron's parallel layers are not supported; save the adapter for the plain model",
    ),
    ("monteclora_config", Off::Null, NOT_PLAIN),
    ("use_bdlora", Off::Null, NOT_PLAIN),
    ("use_qalora", Off::Empty, "QALoRA pools its input before lora_A; train with use_qalora=False"),
    ("velora_config", Off::Null, NOT_PLAIN),
];

/// Settings of one initialisation each, without effect if `init_lora_weights` names another;
/// [`initialisation`] checks that key.
pub(super) const OF_INITIALISATIONS: &[&str] =
    &["corda_config", "eva_config", "loftq_config", "lora_ga_config"];

/// Keys of training, of other libraries and of old versions of `peft`, which `peft` ignores.
pub(super) const OF_TRAINING: &[&str] = &[
    // Of model configs that leaked in (peft issue 1168).
    "_from_model_config",
    "transformers_version",
    "_name_or_path",
    // LoRA+.
    "lora_plus_lr_ratio",
    "loraplus_lr_ratio",
    "loraplus_lr_embedding",
    // How `peft` 0.2 evaluated: with merged weights or beside them.
    "merge_weights",
    "gradient_checkpointing",
    "use_gradient_checkpointing",
];

/// The effect of `key` with `value` in a config of this type.
pub(super) fn role(tuner: Tuner, key: &str, value: &StrictJson) -> Role {
    if HARMLESS.contains(&key)
        || OF_INITIALISATIONS.contains(&key)
        || OF_TRAINING.contains(&key)
        || harmless_for(tuner).contains(&key)
    {
        return Role::Harmless;
    }
    match key {
        "bias" => bias(value),
        "init_lora_weights" => initialisation(value),
        _ => match UNSUPPORTED.iter().find(|(name, _, _)| *name == key) {
            Some((_, off, reason)) => refuse_unless(is_off(value, *off), reason),
            None => refuse_unless(
                is_off(value, Off::Empty),
                "this version does not know the key, so the key may change what the adapter computes; if it does not, \
                 remove it from the file (peft 0.14 and later ignore keys that they do not know)",
            ),
        },
    }
}

fn refuse_unless(accepted: bool, reason: &'static str) -> Role {
    if accepted { Role::Harmless } else { Role::Refused(reason) }
}

fn is_off(value: &StrictJson, off: Off) -> bool {
    match (value, off) {
        (StrictJson::Null, _) => true,
        (StrictJson::Bool(false), Off::Empty) => true,
        (StrictJson::List(values), Off::Empty) => values.is_empty(),
        (StrictJson::Object(entries), Off::Empty) => entries.is_empty(),
        _ => false,
    }
}

fn bias(value: &StrictJson) -> Role {
    refuse_unless(
        matches!(value, StrictJson::Text(kind) if kind == "none" || kind == "all" || kind.ends_with("_only")),
        "must be \"none\", \"all\" or that of the type, such as \"lora_only\"",
    )
}

/// PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change the base weights when the adapter is created, and
/// again when it is loaded. EVA and MiCA only choose the initial weights.
fn initialisation(value: &StrictJson) -> Role {
    const CONVERT: &str = "this initialisation changes the base weights, and again when the adapter is loaded; convert the \
                           adapter: save_pretrained(path, path_initial_model_for_weight_conversion=...), with the adapter \
                           as it was before the training";
    const LOFTQ: &str = "LoftQ changes the base weights: the adapter belongs to the quantised model that LoftQ made. Save \
                         that model, name it in base_model_name_or_path, and set init_lora_weights to true";
    const UNKNOWN: &str = "only true, false, \"gaussian\", \"orthogonal\", \"eva\" and \"mica\" are supported, as others may \
                           change the base weights";
    let kind = match value {
        StrictJson::Bool(_) => return Role::Harmless,
        StrictJson::Text(kind) => kind.to_ascii_lowercase(),
        _ => return Role::Refused(UNKNOWN),
    };
    match kind.as_str() {
        "gaussian" | "orthogonal" | "eva" | "mica" => Role::Harmless,
        "olora" | "corda" | "lora_ga" => Role::Refused(CONVERT),
        "loftq" => Role::Refused(LOFTQ),
        pissa if pissa.starts_with("pissa") => Role::Refused(CONVERT),
        _ => Role::Refused(UNKNOWN),
    }
}
