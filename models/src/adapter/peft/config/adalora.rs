//! Reads the ranks that AdaLoRA kept for each module.
//!
//! `rank_pattern` differs from that of LoRA: for the name of each `lora_E` tensor, it states which
//! of the `init_r` components were kept. The weights file holds only those. Must not know about
//! tensors.

use std::collections::HashMap;

use super::{keys::Keys, ranks::fits_f32};
use crate::{Error, adapter::strict_json::StrictJson};

/// Defaults of `init_r` and `lora_alpha`.
const DEFAULT_INIT_R: usize = 12;
const DEFAULT_ALPHA: f64 = 8.0;

/// `SVDLinear` adds this to the rank before it divides by it.
const EPSILON: f64 = 1e-5;

/// Suffix of the keys of `rank_pattern`.
const KEY_SUFFIX: &str = ".lora_E";

/// Rank and scaling by module.
#[derive(Debug)]
pub(in crate::adapter::peft) struct Allocation {
    init_r: usize,
    scaling: f64,
    kept: HashMap<String, usize>,
}

impl Allocation {
    pub(super) fn read(keys: &Keys) -> Result<Allocation, Error> {
        let init_r =
            keys.get("init_r").map_or(Ok(DEFAULT_INIT_R), |value| keys.rank("init_r", value))?;
        let alpha = keys
            .get("lora_alpha")
            .map_or(Ok(DEFAULT_ALPHA), |value| keys.alpha("lora_alpha", value))?;
        // `peft` keeps `ranknum` at the initial rank, so pruning does not change the scaling.
        let scaling = alpha / (init_r as f64 + EPSILON);
        if alpha <= 0.0 || !fits_f32(scaling) {
            return Err(
                keys.error("lora_alpha", "must be positive and give a scaling that fits an f32")
            );
        }
        let kept = match keys.get("rank_pattern") {
            None | Some(StrictJson::Null) => HashMap::new(),
            Some(StrictJson::Object(entries)) => entries
                .iter()
                .map(|(key, mask)| {
                    let module = key.strip_suffix(KEY_SUFFIX).ok_or_else(|| bad_mask(keys, key))?;
                    Ok((module.to_owned(), count(mask, init_r).ok_or_else(|| bad_mask(keys, key))?))
                })
                .collect::<Result<_, Error>>()?,
            Some(_) => {
                return Err(keys.error("rank_pattern", "must be an object of lists for AdaLoRA"));
            }
        };
        Ok(Allocation { init_r, scaling, kept })
    }

    /// Rank of a module; zero if AdaLoRA pruned all of it.
    pub(in crate::adapter::peft) fn rank(&self, module: &str) -> usize {
        self.kept.get(module).copied().unwrap_or(self.init_r)
    }

    /// `lora_alpha / (init_r + 10⁻⁵)`, of every module.
    pub(in crate::adapter::peft) fn scaling(&self) -> f64 {
        self.scaling
    }
}

/// The number of components that a mask keeps; none if it is not a mask of `init_r` components.
fn count(mask: &StrictJson, init_r: usize) -> Option<usize> {
    let StrictJson::List(mask) = mask else { return None };
    let kept = mask.iter().try_fold(0, |kept, component| match component {
        StrictJson::Bool(keep) => Some(kept + usize::from(*keep)),
        _ => None,
    })?;
    (mask.len() == init_r).then_some(kept)
}

fn bad_mask(keys: &Keys, key: &str) -> Error {
    let reason = "must be the name of a lora_E tensor, with a list of init_r values true or false";
    Error::Config {
        path: keys.path.to_owned(),
        key: "rank_pattern".into(),
        value: format!("a table with the key {}", crate::error::quoted(key)),
        reason: reason.into(),
    }
}
