//! The files of sessions, and the names of an adapter's modules.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use zklora_artifacts::folder as artifacts;
use zklora_proof::manifest;

use crate::Error;

pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The file names in the folders of sessions. Each folder is listed once, however many sessions it
/// has.
pub(super) struct Files(HashMap<PathBuf, HashSet<OsString>>);

impl Files {
    pub(super) fn list<'a>(
        folders: impl Iterator<Item = &'a Path>,
        data: &'a Path,
    ) -> Result<Files, Error> {
        let folders: HashSet<&Path> = folders.chain([data]).collect();
        let mut files = HashMap::new();
        for folder in folders {
            let mut names = HashSet::new();
            match fs::read_dir(folder) {
                Ok(entries) => {
                    for entry in entries {
                        names.insert(entry.map_err(|e| Error::file(folder, e))?.file_name());
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::file(folder, e)),
            }
            files.insert(folder.to_path_buf(), names);
        }
        Ok(Files(files))
    }

    pub(super) fn has(&self, path: &Path) -> bool {
        let names = path.parent().and_then(|folder| self.0.get(folder));
        names.zip(path.file_name()).is_some_and(|(names, name)| names.contains(name))
    }

    pub(super) fn metadata(&self, path: &Path) -> Option<fs::Metadata> {
        if self.has(path) { fs::metadata(path).ok() } else { None }
    }

    /// The logs in a folder that are named after a session.
    pub(super) fn logs_in(&self, folder: &Path) -> impl Iterator<Item = PathBuf> {
        let names = self.0.get(folder).into_iter().flatten();
        let logs = names.filter(|name| {
            name.to_str().and_then(|name| name.strip_suffix(".rows")).is_some_and(is_id)
        });
        logs.map(|name| folder.join(name))
    }
}

/// The parts of a manifest that reading logs needs. Its commitments are not checked, which would
/// take seconds.
pub(super) struct ModuleNames {
    pub adapter: String,
    pub names: Vec<String>,
}

impl ModuleNames {
    pub(super) fn read(artifacts: &Path) -> Result<ModuleNames, Error> {
        #[derive(Deserialize)]
        struct Module {
            name: String,
        }
        #[derive(Deserialize)]
        struct Modules {
            modules: Vec<Module>,
        }
        let path = artifacts::public_folder(artifacts)?.join(artifacts::MANIFEST);
        let bytes = zklora_files::read(&path, manifest::MAX_BYTES as u64)?;
        let parsed: Modules = serde_json::from_slice(&bytes).map_err(|e| Error::file(&path, e))?;
        let adapter = manifest::AdapterId::of(&bytes).to_string();
        Ok(ModuleNames {
            adapter,
            names: parsed.modules.into_iter().map(|module| module.name).collect(),
        })
    }
}
