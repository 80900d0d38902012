//! Reads the settings in `adapter_config.json` that a delta depends on, and refuses every setting
//! that is not understood.
//!
//! Meanings and defaults are those of the config classes of `peft` 0.21.2. Must not know about
//! tensors.

mod adalora;
mod keys;
mod ranks;
mod roles;
mod supported;
mod token_indices;
mod tuner;

use std::path::{Path, PathBuf};

pub(super) use adalora::Allocation;
pub(super) use keys::Keys;
pub(super) use ranks::{Ranked, Ranks};
use roles::Role;
pub(super) use supported::tables;
use token_indices::TokenIndices;
use tuner::Tuner;

use super::base_model::BaseModel;
use crate::{Error, adapter::strict_json::StrictJson};

/// Longest name of a base model, in bytes, as in a manifest.
const MAX_NAME: usize = 512;

/// Values of `task_type` for models without a language model's output layer.
const WITHOUT_OUTPUT_LAYER: &[&str] =
    &["FEATURE_EXTRACTION", "QUESTION_ANS", "SEQ_CLS", "TOKEN_CLS"];

/// The settings that a delta depends on besides the weights.
#[derive(Debug)]
pub(super) struct Config {
    path: PathBuf,
    pub(super) base_model: BaseModel,
    /// Whether base weights are stored as `[d_in, d_out]`, as for GPT-2's Conv1D.
    pub(super) fan_in_fan_out: bool,
    pub(super) settings: Settings,
    /// Whether the tensors are `peft`'s own, not those of another library under its names.
    pub(super) of_peft: bool,
    /// Whether the task's model has the output layer of a language model.
    pub(super) has_output_layer: bool,
    /// Patterns of parameters that LoRA is on, which are no modules.
    pub(super) target_parameters: Vec<String>,
    token_indices: TokenIndices,
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
    /// With magnitude vectors in LyCORIS only.
    LoHa {
        ranks: Ranks,
        dora: bool,
    },
    /// The same.
    LoKr {
        ranks: Ranks,
        dora: bool,
    },
}

impl Config {
    /// Reads and checks an `adapter_config.json`.
    pub(super) fn read(path: &Path) -> Result<Config, Error> {
        let keys = Keys::read(path)?;
        let tuner = tuner::tuner(&keys)?;
        check_roles(tuner, &keys)?;
        let name = keys.text("base_model_name_or_path")?.unwrap_or_default();
        if let Err(reason) = check_name(&name) {
            return Err(keys.error("base_model_name_or_path", reason));
        }
        Ok(Config {
            base_model: BaseModel { fingerprint: None, name, revision: keys.text("revision")? },
            fan_in_fan_out: keys.flag("fan_in_fan_out")?,
            of_peft: true,
            has_output_layer: !keys
                .text("task_type")?
                .is_some_and(|task| WITHOUT_OUTPUT_LAYER.contains(&task.as_str())),
            target_parameters: match keys.get("target_parameters") {
                None | Some(StrictJson::Null) => Vec::new(),
                Some(list) => keys.texts("target_parameters", list)?,
            },
            token_indices: TokenIndices::read(&keys)?,
            settings: Settings::read(tuner, &keys)?,
            path: path.to_owned(),
        })
    }

    /// The settings of an adapter of another format, whose base model has this name.
    pub(super) fn of_other(path: &Path, name: String, settings: Settings) -> Result<Config, Error> {
        let path = path.to_owned();
        if let Err(reason) = check_name(&name) {
            return Err(Error::Config { path, key: "model".into(), value: name, reason });
        }
        let base_model = BaseModel { fingerprint: None, name, revision: None };
        Ok(Config {
            path,
            base_model,
            fan_in_fan_out: false,
            of_peft: false,
            has_output_layer: true,
            target_parameters: Vec::new(),
            token_indices: TokenIndices::default(),
            settings,
        })
    }

    /// The rows of a token table that the adapter replaces, in the order of its tensor.
    pub(super) fn token_indices(&self, module: &str) -> Option<&[usize]> {
        self.token_indices.of(module)
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

/// The rule of the manifest for the name of a base model, which must stay as it is for existing
/// files. It is weaker than `text::is_plain`; the name is escaped wherever it is shown.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    match name.len() > MAX_NAME || name.chars().any(char::is_control) {
        true => Err(format!(
            "must be the name of a model: at most {MAX_NAME} bytes, without control characters"
        )),
        false => Ok(()),
    }
}

fn check_roles(tuner: Tuner, keys: &Keys) -> Result<(), Error> {
    for (key, value) in &keys.entries {
        if let Role::Refused(reason) = roles::role(tuner, key, value) {
            return Err(keys.error(key, reason));
        }
    }
    Ok(())
}

/// Ranks and scalings by the keys of a `LoraConfig`, of modules whose names begin with `prefix`,
/// which its patterns leave out.
pub(super) fn ranks_of_lora(keys: &Keys, prefix: &str) -> Result<Ranks, Error> {
    if keys.text("peft_type")?.is_some_and(|name| name != "LORA") {
        return Err(keys.error("peft_type", "must be LORA"));
    }
    check_roles(Tuner::Lora, keys)?;
    Ok(Ranks::read(keys, "lora_alpha", keys.flag("use_rslora")?)?.below(prefix))
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
            Tuner::LoHa => {
                Settings::LoHa { ranks: Ranks::read(keys, "alpha", false)?, dora: false }
            }
            Tuner::LoKr => {
                Settings::LoKr { ranks: Ranks::read(keys, "alpha", false)?, dora: false }
            }
        })
    }
}
