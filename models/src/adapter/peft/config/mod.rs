//! Reads the settings in `adapter_config.json` that a delta depends on, and refuses every setting
//! that is not understood.
//!
//! Meanings and defaults are those of the config classes of `peft` 0.21.2. Must not know about
//! tensors.

mod adalora;
mod keys;
mod ranks;
mod roles;
mod tuner;

use std::path::{Path, PathBuf};

pub(super) use adalora::Allocation;
use keys::Keys;
pub(super) use ranks::Ranks;
use roles::Role;
use tuner::Tuner;

use super::base_model::BaseModel;
use crate::{Error, adapter::strict_json::StrictJson};

/// Longest name of a base model, in bytes, as in a manifest.
const MAX_NAME: usize = 512;

/// Longest `adapter_config.json`, in bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// The settings that a delta depends on besides the weights.
#[derive(Debug)]
pub(super) struct Config {
    path: PathBuf,
    pub(super) base_model: BaseModel,
    /// Whether base weights are stored as `[d_in, d_out]`, as for GPT-2's Conv1D.
    pub(super) fan_in_fan_out: bool,
    pub(super) settings: Settings,
}

/// The settings of one type of adapter.
#[derive(Debug)]
pub(super) enum Settings {
    /// LoRA and DoRA, of linear layers and embeddings.
    Lora {
        ranks: Ranks,
        /// Whether every linear module has a `lora_B.bias`.
        bias: bool,
        /// Whether every module has a `lora_magnitude_vector`.
        dora: bool,
    },
    AdaLora(Allocation),
    Vera,
    Ia3,
    LoHa(Ranks),
    LoKr(Ranks),
}

impl Config {
    /// Reads and checks an `adapter_config.json`.
    pub(super) fn read(path: &Path) -> Result<Config, Error> {
        let bytes = zklora_files::read(path, MAX_CONFIG)?;
        let json_error = |reason| Error::Json { path: path.to_owned(), reason };
        let StrictJson::Object(entries) = StrictJson::parse(&bytes).map_err(json_error)? else {
            return Err(json_error("it is not an object".into()));
        };
        let keys = Keys { path, entries };
        let tuner = tuner::tuner(&keys)?;
        for (key, value) in &keys.entries {
            if let Role::Refused(reason) = roles::role(tuner, key, value) {
                return Err(keys.error(key, reason));
            }
        }
        let base_model = keys.text("base_model_name_or_path")?.unwrap_or_default();
        // The rule of the manifest, which must stay as it is for existing files. It is weaker than
        // `text::is_plain`; the name is escaped wherever it is shown.
        if base_model.len() > MAX_NAME || base_model.chars().any(char::is_control) {
            let reason = format!(
                "must be the name of a model: at most {MAX_NAME} bytes, without control characters"
            );
            return Err(keys.error("base_model_name_or_path", reason));
        }
        Ok(Config {
            base_model: BaseModel {
                fingerprint: None,
                name: base_model,
                revision: keys.text("revision")?,
            },
            fan_in_fan_out: keys.flag("fan_in_fan_out")?,
            settings: Settings::read(tuner, &keys)?,
            path: path.to_owned(),
        })
    }

    /// An error about a key.
    pub(super) fn error(&self, key: &str, value: &str, reason: &str) -> Error {
        Error::Config {
            path: self.path.clone(),
            key: key.into(),
            value: value.into(),
            reason: reason.into(),
        }
    }
}

impl Settings {
    fn read(tuner: Tuner, keys: &Keys) -> Result<Settings, Error> {
        Ok(match tuner {
            Tuner::Lora => {
                let (bias, dora) = (keys.flag("lora_bias")?, keys.flag("use_dora")?);
                if bias && dora {
                    return Err(keys.error(
                        "lora_bias",
                        "DoRA has no lora_bias in peft; one of the two must be false",
                    ));
                }
                Settings::Lora {
                    ranks: Ranks::read(keys, "lora_alpha", keys.flag("use_rslora")?)?,
                    bias,
                    dora,
                }
            }
            Tuner::AdaLora => Settings::AdaLora(Allocation::read(keys)?),
            Tuner::Vera
                if keys.get("save_projection").is_some() && !keys.flag("save_projection")? =>
            {
                return Err(keys.error(
                    "save_projection",
                    "the random projections are not in the adapter and cannot be made again reliably; change this VeraConfig to \
                     save_projection = True, call get_peft_model with it, load_state_dict with these weights \
                     (strict=False, \".default\" appended to each name), and save_pretrained",
                ));
            }
            Tuner::Vera => Settings::Vera,
            Tuner::Ia3 => Settings::Ia3,
            Tuner::LoHa => Settings::LoHa(Ranks::read(keys, "alpha", false)?),
            Tuner::LoKr => Settings::LoKr(Ranks::read(keys, "alpha", false)?),
        })
    }
}
