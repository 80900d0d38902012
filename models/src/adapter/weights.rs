//! The tensors of an adapter, under the names that its reader gives them, whatever file they are in
//! and whatever the file calls them.
//!
//! Must not know the meaning of a name.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    Error,
    adapter::{gguf_file::GgufFile, tensor_file::TensorFile},
    error::quoted,
};

/// Longest file of an adapter that is read, in bytes.
const MAX_FILE: u64 = 16 << 30;

/// How a tensor is read, where that is not as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// A matrix, with rows and columns exchanged.
    Transposed,
    /// A matrix whose rows are heads with their two halves interleaved (llama.cpp): the first half
    /// of each head first.
    Interleaved { heads: usize },
}

/// A tensor of a file.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    file: usize,
    name: String,
    view: Option<View>,
}

/// A file of tensors.
enum File {
    Safetensors(TensorFile),
    Gguf(GgufFile),
}

impl File {
    fn open(path: &Path) -> Result<File, Error> {
        match zklora_files::read_start(path, 4)? == b"GGUF" {
            true => Ok(File::Gguf(GgufFile::open(path, MAX_FILE)?)),
            false => Ok(File::Safetensors(TensorFile::open(path, MAX_FILE)?)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            File::Safetensors(file) => file.path(),
            File::Gguf(file) => file.path(),
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            File::Safetensors(file) => file.names(),
            File::Gguf(file) => file.names(),
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self {
            File::Safetensors(file) => file.text(key),
            File::Gguf(file) => file.text(key),
        }
    }

    fn shape(&self, tensor: &str) -> Result<&[usize], Error> {
        match self {
            File::Safetensors(file) => Ok(&file.info(tensor)?.shape),
            File::Gguf(file) => file.shape(tensor),
        }
    }

    fn read_f32(&mut self, tensor: &str) -> Result<Vec<f32>, Error> {
        match self {
            File::Safetensors(file) => file.read_f32(tensor),
            File::Gguf(file) => file.read_f32(tensor),
        }
    }

    fn digest(&mut self, tensor: &str) -> Result<blake3::Hash, Error> {
        match self {
            File::Safetensors(file) => file.digest(tensor),
            File::Gguf(file) => file.digest(tensor),
        }
    }

    fn tensor_error(&self, tensor: &str, reason: String) -> Error {
        match self {
            File::Safetensors(file) => file.tensor_error(tensor, reason),
            File::Gguf(file) => file.tensor_error(tensor, reason),
        }
    }
}

/// The tensors of some files.
pub(crate) struct Weights {
    files: Vec<File>,
    tensors: BTreeMap<String, Stored>,
}

impl Weights {
    /// Opens files; every tensor has its own name.
    ///
    /// # Errors
    /// A file is malformed, or a tensor is in two of them.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Weights, Error> {
        let open = |path: &PathBuf| File::open(path);
        let files: Vec<File> = paths.iter().map(open).collect::<Result<_, _>>()?;
        let mut tensors = BTreeMap::new();
        for (at, file) in files.iter().enumerate() {
            for name in file.names() {
                let stored = Stored { file: at, name: name.clone(), view: None };
                if tensors.insert(name.clone(), stored).is_some() {
                    let reason = "is also in another file of the adapter; save it again".into();
                    return Err(file.tensor_error(&name, reason));
                }
            }
        }
        Ok(Weights { files, tensors })
    }

    /// The same tensors under other names: those for which `rename` gives none are left out.
    ///
    /// # Errors
    /// Two tensors get one name.
    pub(crate) fn renamed(
        self,
        rename: impl Fn(&str) -> Option<(String, Option<View>)>,
    ) -> Result<Weights, Error> {
        let Weights { files, tensors } = self;
        let mut renamed: BTreeMap<String, Stored> = BTreeMap::new();
        for (name, stored) in tensors {
            let Some((new, view)) = rename(&name) else { continue };
            let stored = Stored { view: view.or(stored.view), ..stored };
            if let Some(other) = renamed.insert(new.clone(), stored.clone()) {
                let reason =
                    format!("would be {}, and so would {}", quoted(&new), quoted(&other.name));
                return Err(files[stored.file].tensor_error(&stored.name, reason));
            }
        }
        Ok(Weights { files, tensors: renamed })
    }

    /// Whether the first file is one of llama.cpp.
    pub(crate) fn is_gguf(&self) -> bool {
        matches!(self.files.first(), Some(File::Gguf(_)))
    }

    /// The names, sorted bytewise.
    pub(crate) fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// Whether there is such a tensor.
    pub(crate) fn has(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
    }

    /// The first file, which stands for all.
    pub(crate) fn path(&self) -> &Path {
        self.files.first().map_or(Path::new(""), File::path)
    }

    /// The text that a file's header has for a key.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.files.iter().find_map(|file| file.text(key))
    }

    /// The number that a GGUF file's header has for a key.
    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        self.files.iter().find_map(|file| match file {
            File::Gguf(file) => file.number(key),
            File::Safetensors(_) => None,
        })
    }

    /// An error about one tensor, which the message calls by its name in the file.
    pub(crate) fn error(&self, tensor: &str, reason: impl Into<String>) -> Error {
        match self.tensors.get(tensor) {
            Some(stored) => self.files[stored.file].tensor_error(&stored.name, reason.into()),
            None => Error::Tensor {
                path: self.path().to_owned(),
                tensor: tensor.into(),
                reason: reason.into(),
            },
        }
    }

    fn stored(&self, tensor: &str) -> Result<&Stored, Error> {
        self.tensors.get(tensor).ok_or_else(|| self.error(tensor, "is not in the file"))
    }

    /// The shape of a tensor, as it is read. A shape that the view does not fit is that of the
    /// file.
    pub(crate) fn shape(&self, tensor: &str) -> Result<Vec<usize>, Error> {
        let stored = self.stored(tensor)?;
        let shape = self.files[stored.file].shape(&stored.name)?;
        Ok(match (stored.view, shape) {
            (Some(View::Transposed), &[rows, columns]) => vec![columns, rows],
            _ => shape.to_vec(),
        })
    }

    /// The values of a tensor, row-major in the shape of [`Weights::shape`], widened to f32.
    pub(crate) fn read_f32(&mut self, tensor: &str) -> Result<Vec<f32>, Error> {
        let Stored { file, name, view } = self.stored(tensor)?.clone();
        let values = self.files[file].read_f32(&name)?;
        let shape = self.files[file].shape(&name)?;
        match (view, shape) {
            (Some(View::Transposed), &[rows, columns]) => {
                let mut turned = Vec::with_capacity(values.len());
                for column in 0..columns {
                    turned.extend((0..rows).map(|row| values[row * columns + column]));
                }
                Ok(turned)
            }
            (Some(View::Interleaved { heads }), &[rows, columns]) => {
                let half = rows / heads.max(1) / 2;
                let mut ordered = Vec::with_capacity(values.len());
                for head in 0..heads {
                    for (part, at) in (0..2).flat_map(|part| (0..half).map(move |at| (part, at))) {
                        let row = (head * half + at) * 2 + part;
                        ordered.extend_from_slice(&values[row * columns..][..columns]);
                    }
                }
                Ok(ordered)
            }
            _ => Ok(values),
        }
    }

    /// BLAKE3 of type, shape and content of a tensor, as it is in its file.
    pub(crate) fn digest(&mut self, tensor: &str) -> Result<blake3::Hash, Error> {
        let Stored { file, name, .. } = self.stored(tensor)?.clone();
        self.files[file].digest(&name)
    }
}
