//! Rank and scaling of each module: `r` and `alpha`, their patterns, rsLoRA; or, in formats that
//! say them for each module, these.
//!
//! The keys are those of LoRA, LoHa and LoKr, which differ only in the name of the alpha key. Must
//! not know about tensors.

use std::{collections::BTreeMap, path::PathBuf};

use super::keys::Keys;
use crate::{Error, adapter::peft::pattern::PatternTable};

/// Defaults of `r` and alpha.
const DEFAULT_R: usize = 8;
const DEFAULT_ALPHA: f64 = 8.0;

/// Rank and scaling by module.
#[derive(Debug)]
pub(in crate::adapter::peft) enum Ranks {
    /// By the keys of a config.
    Keys(RankKeys),
    /// As the tensors of each module say.
    Modules(BTreeMap<String, Ranked>),
}

/// Rank and scaling of one module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::adapter::peft) struct Ranked {
    pub rank: usize,
    /// Finite in f32.
    pub scaling: f64,
}

/// The keys of a config.
#[derive(Debug)]
pub(in crate::adapter::peft) struct RankKeys {
    path: PathBuf,
    alpha_key: &'static str,
    rank: usize,
    alpha: f64,
    ranks: PatternTable<usize>,
    alphas: PatternTable<f64>,
    rank_stabilised: bool,
    /// What names of modules begin with that patterns do not.
    prefix: String,
}

impl Ranked {
    /// Rank and scaling, or why the scaling is none: it does not fit an f32, or is so small that it
    /// would be zero there.
    pub(in crate::adapter::peft) fn new(rank: usize, scaling: f64) -> Result<Ranked, String> {
        match fits_f32(scaling) || scaling == 0.0 {
            true => Ok(Ranked { rank, scaling }),
            false => Err(format!("gives the scaling {scaling:e}, which does not fit an f32")),
        }
    }
}

impl Ranks {
    /// `alpha_key` is `lora_alpha` or `alpha`; rsLoRA is off where `peft` does not have it.
    pub(super) fn read(
        keys: &Keys,
        alpha_key: &'static str,
        rank_stabilised: bool,
    ) -> Result<Ranks, Error> {
        Ok(Ranks::Keys(RankKeys {
            path: keys.path.to_owned(),
            alpha_key,
            rank: keys.get("r").map_or(Ok(DEFAULT_R), |value| keys.rank("r", value))?,
            alpha: keys
                .get(alpha_key)
                .map_or(Ok(DEFAULT_ALPHA), |value| keys.alpha(alpha_key, value))?,
            ranks: keys.table("rank_pattern", Keys::rank)?,
            alphas: keys.table("alpha_pattern", Keys::alpha)?,
            rank_stabilised,
            prefix: String::new(),
        }))
    }

    /// For modules whose names begin with a prefix that the config's patterns leave out.
    pub(super) fn below(self, prefix: &str) -> Ranks {
        match self {
            Ranks::Keys(keys) => Ranks::Keys(RankKeys { prefix: prefix.to_owned(), ..keys }),
            modules => modules,
        }
    }

    /// Rank of a module.
    ///
    /// # Errors
    /// A pattern takes too many steps.
    pub(in crate::adapter::peft) fn rank(&self, module: &str) -> Result<usize, Error> {
        match self {
            Ranks::Keys(keys) => keys.rank(module),
            // A module without tensors that say it has none to be read.
            Ranks::Modules(modules) => Ok(modules.get(module).map_or(0, |of| of.rank)),
        }
    }

    /// Scaling of a module: `alpha / r`, with rsLoRA `alpha / √r`. It is finite in f32, and zero
    /// only if alpha is.
    pub(in crate::adapter::peft) fn scaling(&self, module: &str) -> Result<f64, Error> {
        match self {
            Ranks::Keys(keys) => keys.scaling(module),
            Ranks::Modules(modules) => Ok(modules.get(module).map_or(0.0, |of| of.scaling)),
        }
    }
}

impl RankKeys {
    fn pattern_name<'m>(&self, module: &'m str) -> &'m str {
        module.strip_prefix(self.prefix.as_str()).unwrap_or(module)
    }

    fn rank(&self, module: &str) -> Result<usize, Error> {
        let found = self.ranks.get(self.pattern_name(module));
        Ok(found.map_err(|_| self.too_long("rank_pattern"))?.copied().unwrap_or(self.rank))
    }

    fn too_long(&self, key: &str) -> Error {
        Error::Config {
            path: self.path.clone(),
            key: key.into(),
            value: "a table with look-ahead".into(),
            reason: "a pattern takes too many steps on a module's name; write it in a simpler way"
                .into(),
        }
    }

    fn scaling(&self, module: &str) -> Result<f64, Error> {
        let found = self.alphas.get(self.pattern_name(module));
        let alpha =
            found.map_err(|_| self.too_long("alpha_pattern"))?.copied().unwrap_or(self.alpha);
        let rank = self.rank(module)? as f64;
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
