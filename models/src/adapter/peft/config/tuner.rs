//! Reads `peft_type`: lists the supported adapter types, and a reason for each family of
//! unsupported ones.
//!
//! Must not know the settings of any type.

use super::keys::Keys;
use crate::{Error, adapter::strict_json::StrictJson};

/// A supported `peft_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tuner {
    Lora,
    AdaLora,
    Vera,
    Ia3,
    LoHa,
    LoKr,
}

pub(super) const SUPPORTED: &[(&str, Tuner)] = &[
    ("LORA", Tuner::Lora),
    ("ADALORA", Tuner::AdaLora),
    ("VERA", Tuner::Vera),
    ("IA3", Tuner::Ia3),
    ("LOHA", Tuner::LoHa),
    ("LOKR", Tuner::LoKr),
];

/// Families of types of `peft` 0.21.2 and earlier that are refused for the same reason.
pub(super) const REFUSED: &[(&[&str], &str)] = &[
    (
        &[
            "ADAPTION_PROMPT",
            "CARTRIDGE",
            "CPT",
            "MULTITASK_PROMPT_TUNING",
            "PREFIX_TUNING",
            "PROMPT_TUNING",
            "P_TUNING",
        ],
        "this type trains a prompt or the input of attention, which is not a linear map of a module's activations",
    ),
    (
        &["BOFT", "HRA", "OFT", "PSOFT", "ROAD"],
        "this type rotates the base weights or outputs; the map that it adds is not of low rank",
    ),
    (
        &["LN_TUNING", "OSF", "SHIRA", "TRAINABLE_TOKENS"],
        "this type changes the base model's own weights",
    ),
    (&["POLY", "XLORA"], "this type mixes several adapters; export and prove each one alone"),
];

const UNKNOWN: &str = "this type is not supported";

/// The type of a config. Call this first: the keys of another type would give confusing errors.
pub(super) fn tuner(keys: &Keys) -> Result<Tuner, Error> {
    let name = match keys.get("peft_type") {
        Some(StrictJson::Text(name)) => name.as_str(),
        _ => {
            return Err(keys
                .error("peft_type", format!("the adapter's type must be one of {}", supported())));
        }
    };
    if let Some((_, tuner)) = SUPPORTED.iter().find(|(known, _)| name == *known) {
        return Ok(*tuner);
    }
    let refused = REFUSED.iter().find(|(names, _)| names.contains(&name));
    let reason = refused.map_or(UNKNOWN, |(_, reason)| reason);
    Err(keys.error("peft_type", format!("{reason}; supported are {}", supported())))
}

fn supported() -> String {
    let names: Vec<&str> = SUPPORTED.iter().map(|(name, _)| *name).collect();
    format!("{} (DoRA and embeddings are LORA)", names.join(", "))
}
