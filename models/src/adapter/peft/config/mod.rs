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
    /// `task_type`: the head of the model.
    pub(super) task: Option<String>,
    modules_to_save: Vec<String>,
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
            task: match keys.get("task_type") {
                Some(StrictJson::Text(task)) => Some(task.clone()),
                _ => None,
            },
            modules_to_save: match keys.get("modules_to_save") {
                Some(list @ StrictJson::List(_)) => keys.texts("modules_to_save", list)?,
                // A text, or switched off.
                Some(StrictJson::Text(name)) => vec![name.clone()],
                _ => Vec::new(),
            },
            target_parameters: target_parameters(tuner, &keys)?,
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
            task: None,
            modules_to_save: Vec::new(),
            target_parameters: Vec::new(),
            token_indices: TokenIndices::default(),
            settings,
        })
    }

    /// The rows of a token table that the adapter replaces, in the order of its tensor.
    pub(super) fn token_indices(&self, module: &str) -> Option<&[usize]> {
        self.token_indices.of(module)
    }

    /// Whether `peft` keeps a copy of a module (`modules_to_save`), beside the base model's own.
    pub(super) fn is_saved_whole(&self, module: &str) -> bool {
        let ends = module.match_indices('.').map(|(at, _)| at).chain([module.len()]);
        let mut above = ends.map(|end| &module[..end]);
        above.any(|name| self.modules_to_save.iter().any(|end| name.ends_with(end.as_str())))
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

/// The parameters that LoRA is on, `<end of a module's name>.<parameter>` each.
fn target_parameters(tuner: Tuner, keys: &Keys) -> Result<Vec<String>, Error> {
    const KEY: &str = "target_parameters";
    let targets = match keys.get(KEY) {
        Some(list @ StrictJson::List(_)) if tuner == Tuner::Lora => keys.texts(KEY, list)?,
        None | Some(StrictJson::Null) => Vec::new(),
        Some(_) => return Err(keys.error(KEY, "must be a list of texts")),
    };
    for target in &targets {
        let named = target.rsplit_once('.').filter(|(module, of)| {
            !of.is_empty() && module.split('.').all(|part| !part.is_empty())
        });
        let Some((_, parameter)) = named else {
            let reason = "name the module, too, as in mlp.experts.gate_up_proj: peft takes any module \
                          with such a parameter, and the adapter's tensors do not name parameters";
            return Err(keys.error(KEY, reason));
        };
        if parameter == "weight" || parameter.ends_with("bias") {
            let reason = "only parameters of fused experts are supported: name layers with a weight in \
                          target_modules";
            return Err(keys.error(KEY, reason));
        }
    }
    let odd = |key: &str| keys.flag(key).unwrap_or(true);
    match ["use_dora", "lora_bias", "fan_in_fan_out"].into_iter().find(|key| odd(key)) {
        Some(key) if !targets.is_empty() => {
            Err(keys.error(key, "peft does not support it with target_parameters"))
        }
        _ => Ok(targets),
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
