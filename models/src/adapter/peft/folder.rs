//! Finds the two files of an adapter: in the folder itself, or in the one subfolder that `peft`
//! made for a named adapter.
//!
//! Must not know the content of the files.

use std::path::{Path, PathBuf};

use crate::Error;

/// The settings file of an adapter folder.
const CONFIG_FILE: &str = "adapter_config.json";

/// The weights of an adapter folder.
const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// The weights as older versions of `peft` saved them; never read.
const PICKLE_FILE: &str = "adapter_model.bin";

/// Most entries of a folder that are read.
const MAX_ENTRIES: usize = 4096;

/// The files of an adapter.
pub(super) struct AdapterFiles {
    pub(super) config: PathBuf,
    pub(super) weights: PathBuf,
}

/// Finds the files of the adapter in `dir`, or in its only subfolder that holds one.
pub(super) fn find(dir: &Path) -> Result<AdapterFiles, Error> {
    let mut dir = dir.to_owned();
    if !dir.join(CONFIG_FILE).exists() {
        let mut named = named_adapters(&dir)?;
        match named.len() {
            0 => {
                return Err(Error::Missing {
                    path: dir.join(CONFIG_FILE),
                    hint: "pass the folder that peft's save_pretrained wrote",
                });
            }
            1 => dir.push(named.remove(0)),
            _ => return Err(Error::SeveralAdapters { path: dir, names: named }),
        }
    }
    let weights = dir.join(WEIGHTS_FILE);
    if !weights.exists() {
        let pickle = dir.join(PICKLE_FILE);
        return Err(if pickle.exists() {
            Error::Pickle { path: pickle }
        } else {
            Error::Missing {
                path: weights,
                hint: "save the adapter with save_pretrained of a current peft",
            }
        });
    }
    Ok(AdapterFiles { config: dir.join(CONFIG_FILE), weights })
}

/// Names of the subfolders that hold an adapter, sorted. Empty if the folder cannot be listed: the
/// caller then reports the missing file.
fn named_adapters(dir: &Path) -> Result<Vec<String>, Error> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries.take(MAX_ENTRIES) {
        let entry = entry.map_err(|e| zklora_files::Error::new(dir, e))?;
        if entry.path().join(CONFIG_FILE).is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
