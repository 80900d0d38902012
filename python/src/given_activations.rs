//! Activations as Python passes them: arrays by module, or the path of a file.

use std::{borrow::Cow, collections::BTreeMap, fmt, ops::Range, path::PathBuf};

use numpy::{PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;
use zklora_artifacts::{
    Error as Artifact, activation_file::ActivationFile, activation_source::ActivationSource,
    activations::Activations,
};
use zklora_proof::{checked_manifest::CheckedManifest, manifest::Module};

use crate::{
    arrays::{self, Rows},
    error::Failure,
    trace,
};

/// Activations from Python.
#[derive(FromPyObject)]
pub enum Given<'py> {
    File(PathBuf),
    Arrays(BTreeMap<String, Vec<Rows<'py>>>),
}

impl Given<'_> {
    /// The same, to be read on another thread. Arrays are not copied.
    ///
    /// # Errors
    /// [`Failure::Input`] names module, input and dimensions that do not fit.
    pub fn to_source(
        &self,
        manifest: &CheckedManifest,
    ) -> Result<Box<dyn ActivationSource>, Failure> {
        let arrays = match self {
            Given::File(path) => {
                return Ok(Box::new(ActivationFile::open(path, manifest.modules(), None)?));
            }
            Given::Arrays(arrays) => arrays,
        };
        let mut modules = BTreeMap::new();
        for (name, inputs) in arrays {
            arrays::check(&manifest.modules()[trace::index(manifest, name)?], inputs)?;
            let inputs = inputs.iter().map(|rows| {
                arrays::values(name, rows)?;
                let array: &Bound<'_, PyArray2<f32>> = rows;
                Ok(Array { rows: array.shape()[0], array: array.clone().unbind() })
            });
            modules.insert(name.clone(), inputs.collect::<Result<_, Failure>>()?);
        }
        Ok(Box::new(ArraySource { modules }))
    }

    /// The same, in memory.
    ///
    /// # Errors
    /// Those of [`Given::to_source`], and a file that cannot be read.
    pub fn to_memory(&self, manifest: &CheckedManifest) -> Result<Activations, Failure> {
        match self {
            Given::File(_) => Ok(Activations::of(&*self.to_source(manifest)?, manifest.modules())?),
            Given::Arrays(arrays) => {
                let mut activations = Activations::default();
                for (name, inputs) in arrays {
                    arrays::check(&manifest.modules()[trace::index(manifest, name)?], inputs)?;
                    let inputs = inputs
                        .iter()
                        .map(|rows| Ok(arrays::values(name, rows)?.to_vec()))
                        .collect::<Result<_, Failure>>()?;
                    activations.modules.insert(name.clone(), inputs);
                }
                Ok(activations)
            }
        }
    }
}

/// A contiguous array of floats, `[rows, features]`.
struct Array {
    rows: usize,
    array: Py<PyArray2<f32>>,
}

/// Arrays by module. Pieces are copied while Python's lock is held, which the waiting call has
/// released.
struct ArraySource {
    modules: BTreeMap<String, Vec<Array>>,
}

impl fmt::Debug for ArraySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArraySource({} modules)", self.modules.len())
    }
}

impl ActivationSource for ArraySource {
    fn rows(&self, module: &Module) -> Result<usize, Artifact> {
        let Some(arrays) = self.modules.get(&module.name) else { return Ok(0) };
        let mut rows = arrays.iter().map(|array| array.rows);
        let first = rows.next().unwrap_or(0);
        match rows.find(|rows| *rows != first) {
            None => Ok(first),
            Some(other) => Err(Artifact::Input(format!(
                "module `{}`: inputs do not fit: {first} rows and {other}",
                module.name
            ))),
        }
    }

    fn read(
        &self,
        module: &Module,
        input: usize,
        rows: Range<usize>,
    ) -> Result<Cow<'_, [f32]>, Artifact> {
        let changed = || {
            Artifact::Input(format!(
                "module `{}`: its array changed while it was read",
                module.name
            ))
        };
        let arrays = self.modules.get(&module.name).ok_or_else(changed)?;
        let array = arrays.get(input).ok_or_else(changed)?;
        let dim = module.inputs.get(input).map_or(0, |input| input.dim);
        let values = Python::attach(|py| {
            let readable = array.array.bind(py).try_readonly().ok()?;
            let values = readable.as_slice().ok()?;
            Some(values.get(rows.start * dim..rows.end * dim)?.to_vec())
        });
        Ok(Cow::Owned(values.ok_or_else(changed)?))
    }
}
