//! Traces: a session's rows, as either party keeps them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use numpy::PyArray2;
use pyo3::prelude::*;
use zklora_artifacts::{session_rows::SessionRows, trace_reader::TraceReader};
use zklora_proof::{
    checked_manifest::CheckedManifest, row_source::RowSource, trace::Trace as Checked,
};
use zklora_runtime::Error;
use zklora_session::session_log;

use crate::{adapters::Manifest, arrays, error::Failure, worker};

/// The rows of a trace, in memory or in a file.
pub enum TraceStorage {
    Memory(SessionRows),
    /// In a file that may be larger than the memory, or claims to be: it is read on demand, in
    /// pieces.
    File(Arc<TraceReader>),
}

impl TraceStorage {
    fn adapter(&self) -> String {
        match self {
            TraceStorage::Memory(file) => file.adapter.to_string(),
            TraceStorage::File(reader) => reader.adapter.to_string(),
        }
    }

    pub fn session(&self) -> &[u8; 32] {
        match self {
            TraceStorage::Memory(file) => &file.session,
            TraceStorage::File(reader) => &reader.session,
        }
    }

    /// Number of rows of the module at this index.
    fn count(&self, at: usize) -> usize {
        match self {
            TraceStorage::Memory(file) => file.modules.get(at).map_or(0, |rows| rows.scales.len()),
            TraceStorage::File(reader) => reader.count(at),
        }
    }

    /// Calls `f` with the rows in the proof system's form: checked against the manifest and
    /// digested.
    pub fn with_trace<T>(
        &self,
        manifest: &CheckedManifest,
        f: impl FnOnce(&Checked<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self {
            TraceStorage::Memory(file) => file.with_trace(manifest, f),
            TraceStorage::File(reader) => f(&Checked::read(
                manifest,
                reader.session,
                Arc::clone(reader) as Arc<dyn RowSource>,
            )?),
        }
    }
}

/// The rows of a session: activations sent and deltas received, as integers with one scale per
/// row.
#[pyclass(frozen, module = "zklora._native")]
pub struct Trace {
    pub storage: Arc<TraceStorage>,
    pub manifest: Arc<CheckedManifest>,
}

impl Trace {
    pub fn in_memory(file: SessionRows, manifest: Arc<CheckedManifest>) -> Trace {
        Trace { storage: Arc::new(TraceStorage::Memory(file)), manifest }
    }

    /// A trace file. Its rows stay in the file.
    pub fn in_file(path: &Path, manifest: Arc<CheckedManifest>) -> Result<Trace, Failure> {
        let reader = TraceReader::open(path, manifest.id(), manifest.modules())?;
        Ok(Trace::read_by(reader, manifest))
    }

    pub fn read_by(reader: TraceReader, manifest: Arc<CheckedManifest>) -> Trace {
        Trace { storage: Arc::new(TraceStorage::File(Arc::new(reader))), manifest }
    }
}

#[pymethods]
impl Trace {
    /// Opens a trace of the adapter of this manifest. Its rows stay in the file.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, manifest: &Manifest) -> Result<Trace, Failure> {
        let manifest = Arc::clone(&manifest.manifest);
        worker::run(py, None, move |_| Trace::in_file(&path, manifest))
    }

    /// Reads a trace file without its manifest: see [`log_info`].
    #[staticmethod]
    fn info_of(py: Python<'_>, path: PathBuf) -> Result<(String, u64, String, Vec<u64>), Failure> {
        worker::run(py, None, move |_| {
            let info = SessionRows::info(&path)?;
            let rows = info.rows.values().fold(0u64, |all, rows| all.saturating_add(*rows as u64));
            let counts = counts(info.rows.values().map(|rows| *rows as u64));
            Ok((info.adapter_id, rows, info.session_id, counts))
        })
    }

    /// Writes the trace, readable only by its owner because it contains activations.
    fn save(&self, py: Python<'_>, path: PathBuf) -> Result<(), Failure> {
        let (storage, manifest) = (Arc::clone(&self.storage), Arc::clone(&self.manifest));
        worker::run(py, None, move |_| match &*storage {
            TraceStorage::Memory(file) => Ok(file.write(&path, &manifest)?),
            TraceStorage::File(reader) => Ok(reader.copy(&path, manifest.modules())?),
        })
    }

    /// The adapter id, 64 hex digits.
    #[getter]
    fn adapter_id(&self) -> String {
        self.storage.adapter()
    }

    /// The session id, 64 hex digits.
    #[getter]
    fn session_id(&self) -> String {
        hex::encode(self.storage.session())
    }

    /// Number of rows of every module that was called.
    #[getter]
    fn rows(&self) -> BTreeMap<String, usize> {
        let each = self
            .manifest
            .modules()
            .iter()
            .enumerate()
            .map(|(at, m)| (m.name.clone(), self.storage.count(at)));
        each.filter(|(_, rows)| *rows > 0).collect()
    }

    /// The deltas of a module, float32 `[rows, d_out]`.
    fn deltas<'py>(
        &self,
        py: Python<'py>,
        module: &str,
    ) -> Result<Bound<'py, PyArray2<f32>>, Failure> {
        let at = index(&self.manifest, module)?;
        let module = &self.manifest.modules()[at];
        let values = match &*self.storage {
            TraceStorage::Memory(file) => {
                let rows = &file.modules[at];
                py.detach(|| {
                    zklora_artifacts::module_quantizer::dequantized(
                        module,
                        &rows.scales,
                        &rows.delta,
                    )
                })
            }
            TraceStorage::File(reader) => {
                let (reader, manifest) = (Arc::clone(reader), Arc::clone(&self.manifest));
                // Not in a forked child, which shares the file position with its parent.
                worker::run(py, None, move |_| {
                    let (module, rows) = (&manifest.modules()[at], reader.count(at));
                    let unreadable =
                        |why: String| Failure::Input(format!("module `{}`: {why}", module.name));
                    let scales = reader.scales(at, 0..rows).map_err(unreadable)?;
                    let delta = reader.delta(at, 0..rows * module.d_out).map_err(unreadable)?;
                    Ok(zklora_artifacts::module_quantizer::dequantized(module, &scales, &delta))
                })?
            }
        };
        Ok(arrays::to_python(py, values, module.d_out)?)
    }

    fn __repr__(&self) -> String {
        let rows =
            (0..self.manifest.modules().len()).map(|at| self.storage.count(at)).sum::<usize>();
        format!("Trace(adapter {}, session {}, {rows} rows)", self.adapter_id(), self.session_id())
    }
}

/// Reads the log of a user's session: the adapter id, the number of rows that were sent and not
/// taken back, the session id, and the sorted numbers of rows of the modules (a log has no names).
/// `None` and 0 if its writer died before the session began.
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn log_info(
    py: Python<'_>,
    path: PathBuf,
) -> Result<(Option<String>, u64, Option<String>, Vec<u64>), Failure> {
    worker::run(py, None, move |_| {
        let Some(sent) = session_log::sent(&path)? else { return Ok((None, 0, None, Vec::new())) };
        Ok((
            Some(sent.adapter_id),
            sent.rows,
            Some(sent.session_id),
            counts(sent.per_module.into_values()),
        ))
    })
}

/// The sorted numbers of rows of the modules that have rows.
fn counts(rows: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut counts: Vec<u64> = rows.filter(|rows| *rows > 0).collect();
    counts.sort_unstable();
    counts
}

/// The index of a module in the manifest.
///
/// # Errors
/// [`Failure::Input`]: there is no such module.
pub fn index(manifest: &CheckedManifest, name: &str) -> Result<usize, Failure> {
    let found = manifest.modules().iter().position(|module| module.name == name);
    found.ok_or_else(|| {
        let known = manifest.modules().first().map_or("", |module| module.name.as_str());
        Failure::Input(format!(
            "the adapter has no module `{name}`: it has {}, such as `{known}`",
            manifest.modules().len()
        ))
    })
}
