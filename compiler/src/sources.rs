//! Reads the ONNX files of a compilation, by path or from a folder that `export` wrote.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use zklora_files::MAX_FILE;
use zklora_proof::manifest::BaseModel;

use crate::{IngestError, compile::OnnxModel, ingest};

/// Why the files to compile cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A file or folder cannot be read.
    #[error(transparent)]
    File(#[from] zklora_files::Error),
    /// A folder was not written by `export`.
    #[error(transparent)]
    Export(#[from] zklora_models::Error),
    /// A file is not an ONNX file, or names external data that cannot be used.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// No path was given.
    #[error("nothing to compile: pass ONNX files, or a folder that export wrote")]
    Nothing,
}

impl SourceError {
    fn file(path: &Path, why: &'static str) -> SourceError {
        SourceError::File(zklora_files::Error::new(path, why))
    }
}

/// The modules to compile.
pub struct Sources {
    /// The modules.
    pub modules: Vec<OnnxModel>,
    /// The base model, if an export folder names one.
    pub base_model: BaseModel,
    /// Tensors of layers that were trained whole, which the export folders leave out, sorted.
    pub left_out: BTreeSet<String>,
    /// BLAKE3 of the files of each module (with its external data) and of each export index. These
    /// digests must not be published.
    pub digests: BTreeMap<String, blake3::Hash>,
}

/// Reads the ONNX files and export folders at these paths.
///
/// # Errors
/// [`SourceError`]: a file cannot be read, or two export folders have different base models.
pub fn sources(paths: &[PathBuf]) -> Result<Sources, SourceError> {
    let mut sources = Sources {
        modules: Vec::new(),
        base_model: BaseModel::default(),
        left_out: BTreeSet::new(),
        digests: Default::default(),
    };
    for path in paths {
        if path.is_dir() {
            let index = zklora_models::read_index(path)?;
            let base = BaseModel {
                fingerprint: index.base_model.fingerprint,
                name: index.base_model.name,
            };
            if sources.base_model != BaseModel::default() && sources.base_model != base {
                return Err(SourceError::file(
                    path,
                    "this export has another base model than the one before it; compile them separately",
                ));
            }
            sources.base_model = base;
            sources.left_out.extend(index.left_out);
            let bytes =
                zklora_files::read(&path.join(zklora_models::export::INDEX_FILE), MAX_FILE)?;
            sources
                .digests
                .insert(format!("(export index {})", sources.digests.len()), blake3::hash(&bytes));
            for module in index.modules {
                sources.add(module.name, &path.join(&module.file), Some(module.scaling))?;
            }
        } else {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let name = stem
                .ok_or_else(|| SourceError::file(path, "its name is not UTF-8; rename the file"))?;
            sources.add(name.to_string(), path, None)?;
        }
    }
    if sources.modules.is_empty() {
        return Err(SourceError::Nothing);
    }
    Ok(sources)
}

impl Sources {
    fn add(&mut self, name: String, path: &Path, scaling: Option<f64>) -> Result<(), SourceError> {
        let onnx = zklora_files::read(path, MAX_FILE)?;
        let folder = path.parent().map(PathBuf::from);
        let mut digest = blake3::Hasher::new();
        digest.update(blake3::hash(&onnx).as_bytes());
        let beside = folder
            .as_deref()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let external = ingest::external_files(&onnx, &name, beside);
        for file in external? {
            digest.update(blake3::hash(&zklora_files::read(&file, MAX_FILE)?).as_bytes());
        }
        self.digests.insert(name.clone(), digest.finalize());
        self.modules.push(OnnxModel { name, onnx, folder, scaling });
        Ok(())
    }
}
