//! Computes the settings of an adapter's circuit from its shapes and k. They are never read from a
//! proof (docs/protocol.md, "Circuit").

use serde::{Deserialize, Serialize};

use crate::{
    Error, PROTOCOL_VERSION,
    error::manifest as refuse,
    layout::{BLINDING_FACTORS, Layout, columns_for},
    pairs::Pairs,
};

/// The proving library and its version: the verifying key depends on both.
pub const LIBRARY: &str = "midnight-proofs 0.8.3";

/// The values that fix the circuit, as in `settings.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Blinding rows of a column.
    pub blinding_factors: usize,
    /// `zklora-settings`.
    pub format: String,
    /// k and the columns of each kind.
    pub layout: Layout,
    /// [`LIBRARY`].
    pub library: String,
    /// [`PROTOCOL_VERSION`].
    pub version: u32,
}

impl Settings {
    /// The settings for these pairs at this k.
    pub fn of(pairs: &Pairs, k: u32) -> Result<Settings, Error> {
        if !(crate::srs::MIN_K..=crate::srs::MAX_K).contains(&k) {
            return Err(refuse(format!(
                "k = {k} is outside {}..={}",
                crate::srs::MIN_K,
                crate::srs::MAX_K
            )));
        }
        let groups = pairs.groups().len();
        let layout = Layout {
            a_columns: columns_for(pairs.longest_a(), k),
            b_columns: columns_for(pairs.longest_b(), k),
            k,
            pair_columns: columns_for(pairs.len(), k),
            rounds: if groups < 2 { 0 } else { groups.next_power_of_two().ilog2() as usize },
        };
        layout.check()?;
        Ok(Settings {
            blinding_factors: BLINDING_FACTORS,
            format: "zklora-settings".into(),
            layout,
            library: LIBRARY.into(),
            version: PROTOCOL_VERSION,
        })
    }

    /// Canonical JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self)
            .map_err(|e| Error::Internal(format!("settings cannot be serialised: {e}")))
    }

    /// BLAKE3 of [`Settings::to_bytes`], hex.
    pub fn digest_hex(&self) -> Result<String, Error> {
        Ok(blake3::hash(&self.to_bytes()?).to_hex().to_string())
    }
}
