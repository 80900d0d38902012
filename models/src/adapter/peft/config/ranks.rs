//! Rank and scaling of each module: `r` and `alpha`, their patterns, rsLoRA.
//!
//! These are the settings of LoRA, LoHa and LoKr, which differ only in the name of the alpha key.
//! Must not know about tensors.

use std::path::PathBuf;

use super::keys::Keys;
use crate::{Error, adapter::peft::pattern::PatternTable};

/// Defaults of `r` and alpha.
const DEFAULT_R: usize = 8;
const DEFAULT_ALPHA: f64 = 8.0;

/// Rank and scaling by module.
#[derive(Debug)]
pub(in crate::adapter::peft) struct Ranks {
    path: PathBuf,
    alpha_key: &'static str,
    rank: usize,
    alpha: f64,
    ranks: PatternTable<usize>,
    alphas: PatternTable<f64>,
    rank_stabilised: bool,
}

impl Ranks {
    /// `alpha_key` is `lora_alpha` or `alpha`; rsLoRA is off where `peft` does not have it.
    pub(super) fn read(
        keys: &Keys,
        alpha_key: &'static str,
        rank_stabilised: bool,
    ) -> Result<Ranks, Error> {
        Ok(Ranks {
            path: keys.path.to_owned(),
            alpha_key,
            rank: keys.get("r").map_or(Ok(DEFAULT_R), |value| keys.rank("r", value))?,
            alpha: keys
                .get(alpha_key)
                .map_or(Ok(DEFAULT_ALPHA), |value| keys.alpha(alpha_key, value))?,
            ranks: keys.table("rank_pattern", Keys::rank)?,
            alphas: keys.table("alpha_pattern", Keys::alpha)?,
            rank_stabilised,
        })
    }

    /// Rank of a module.
    pub(in crate::adapter::peft) fn rank(&self, module: &str) -> usize {
        self.ranks.get(module).copied().unwrap_or(self.rank)
    }

    /// Scaling of a module: `alpha / r`, with rsLoRA `alpha / √r`. It is finite in f32, and zero
    /// only if alpha is.
    pub(in crate::adapter::peft) fn scaling(&self, module: &str) -> Result<f64, Error> {
        let alpha = self.alphas.get(module).copied().unwrap_or(self.alpha);
        let rank = self.rank(module) as f64;
        let scaling = alpha / if self.rank_stabilised { rank.sqrt() } else { rank };
        if fits_f32(scaling) || alpha == 0.0 {
            return Ok(scaling);
        }
        let reason = format!(
            "the scaling {scaling:e} of module {module} does not fit an f32; train with another alpha"
        );
        let key = self.alpha_key.to_owned();
        Err(Error::Config { path: self.path.clone(), key, value: alpha.to_string(), reason })
    }
}

/// Whether a scaling is finite and not zero after rounding to f32.
pub(super) fn fits_f32(scaling: f64) -> bool {
    (scaling as f32).is_finite() && scaling as f32 != 0.0
}
