//! A session's rows, as either party keeps them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use numpy::PyArray2;
use pyo3::prelude::*;
use zklora_circuit::manifest::Pinned;
use zklora_runtime::{record, session_log, trace_file::TraceFile};

use crate::{adapters::Manifest, arrays, error::Failure, worker};

/// The rows of a session: activations that went out and deltas that came back, as integers with a scale a row.
#[pyclass(frozen, module = "zklora._native")]
pub struct Trace {
    pub file: Arc<TraceFile>,
    pub pinned: Arc<Pinned>,
}

#[pymethods]
impl Trace {
    /// Reads a trace of the adapter of this manifest.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, manifest: &Manifest) -> Result<Trace, Failure> {
        let pinned = Arc::clone(&manifest.0);
        worker::run(py, None, move |_| {
            let file = Arc::new(TraceFile::read(&path, &pinned)?);
            Ok(Trace { file, pinned })
        })
    }

    /// What a trace file says of itself, whatever its manifest, as [`log_info`] does.
    #[staticmethod]
    fn info_of(py: Python<'_>, path: PathBuf) -> Result<(String, u64, String, Vec<u64>), Failure> {
        worker::run(py, None, move |_| {
            let info = TraceFile::info(&path)?;
            let rows = info.rows.values().fold(0u64, |all, rows| all.saturating_add(*rows as u64));
            let counts = counts(info.rows.values().map(|rows| *rows as u64));
            Ok((info.adapter_id, rows, info.session_id, counts))
        })
    }

    /// Writes the trace, readable by its owner only: it holds activations.
    fn save(&self, py: Python<'_>, path: PathBuf) -> Result<(), Failure> {
        let (file, pinned) = (Arc::clone(&self.file), Arc::clone(&self.pinned));
        worker::run(py, None, move |_| Ok(file.write(&path, &pinned)?))
    }

    /// The adapter id, 64 hex digits.
    #[getter]
    fn adapter_id(&self) -> String {
        self.file.adapter.to_string()
    }

    /// The session id, 64 hex digits.
    #[getter]
    fn session_id(&self) -> String {
        hex::encode(self.file.session)
    }

    /// Rows of every module that was called.
    #[getter]
    fn rows(&self) -> BTreeMap<String, usize> {
        let each = self.pinned.modules().iter().zip(&self.file.modules);
        each.filter(|(_, rows)| !rows.scales.is_empty()).map(|(m, rows)| (m.name.clone(), rows.scales.len())).collect()
    }

    /// The deltas of a module, float32 `[rows, d_out]`.
    fn deltas<'py>(&self, py: Python<'py>, module: &str) -> Result<Bound<'py, PyArray2<f32>>, Failure> {
        let at = index(&self.pinned, module)?;
        let (module, rows) = (&self.pinned.modules()[at], &self.file.modules[at]);
        let values = py.detach(|| record::dequantized(module, &rows.scales, &rows.delta));
        Ok(arrays::to_python(py, values, module.d_out)?)
    }

    fn __repr__(&self) -> String {
        format!("Trace(adapter {}, session {}, {} rows)", self.adapter_id(), self.session_id(), self.file.rows())
    }
}

/// What the log of a user's session says: the adapter id, the rows that were sent and not taken back, the session id, and the rows of
/// each module in order of size (a log knows no names). None and 0 if its writer died before the session began.
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn log_info(py: Python<'_>, path: PathBuf) -> Result<(Option<String>, u64, Option<String>, Vec<u64>), Failure> {
    worker::run(py, None, move |_| {
        let Some(sent) = session_log::sent(&path)? else { return Ok((None, 0, None, Vec::new())) };
        Ok((Some(sent.adapter_id), sent.rows, Some(sent.session_id), counts(sent.per_module.into_values())))
    })
}

/// The rows of each module that has any, in order of size.
fn counts(rows: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut counts: Vec<u64> = rows.filter(|rows| *rows > 0).collect();
    counts.sort_unstable();
    counts
}

/// The place of a module in the manifest.
///
/// # Errors
/// [`Failure::Input`]: there is no such module.
pub fn index(pinned: &Pinned, name: &str) -> Result<usize, Failure> {
    let found = pinned.modules().iter().position(|module| module.name == name);
    found.ok_or_else(|| {
        let known = pinned.modules().first().map_or("", |module| module.name.as_str());
        Failure::Input(format!(
            "the adapter has no module `{name}`: it has {}, such as `{known}`",
            pinned.modules().len()
        ))
    })
}
