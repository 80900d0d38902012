//! A session's rows, as either party keeps them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use numpy::PyArray2;
use pyo3::prelude::*;
use zklora_artifacts::{session_rows::SessionRows, trace_reader::TraceReader};
use zklora_proof::{
    checked_manifest::CheckedManifest, row_source::RowSource, trace::Trace as Checked,
};
use zklora_runtime::Error;
use zklora_session::session_log;

use crate::{adapters::Manifest, arrays, error::Failure, worker};

/// Where the rows are.
pub enum Held {
    Memory(SessionRows),
    /// In a file that may be larger than the memory, or say so: it is read in pieces, and only when
    /// that is asked for.
    File(Arc<TraceReader>),
}

impl Held {
    fn adapter(&self) -> String {
        match self {
            Held::Memory(file) => file.adapter.to_string(),
            Held::File(reader) => reader.adapter.to_string(),
        }
    }

    pub fn session(&self) -> &[u8; 32] {
        match self {
            Held::Memory(file) => &file.session,
            Held::File(reader) => &reader.session,
        }
    }

    /// Rows of the module at this place.
    fn count(&self, at: usize) -> usize {
        match self {
            Held::Memory(file) => file.modules.get(at).map_or(0, |rows| rows.scales.len()),
            Held::File(reader) => reader.count(at),
        }
    }

    /// Calls `f` with the rows as the proof system takes them: checked against the manifest and
    /// digested.
    pub fn with_trace<T>(
        &self,
        manifest: &CheckedManifest,
        f: impl FnOnce(&Checked<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self {
            Held::Memory(file) => file.with_trace(manifest, f),
            Held::File(reader) => f(&Checked::read(
                manifest,
                reader.session,
                Arc::clone(reader) as Arc<dyn RowSource>,
            )?),
        }
    }
}

/// The rows of a session: activations that went out and deltas that came back, as integers with a
/// scale a row.
#[pyclass(frozen, module = "zklora._native")]
pub struct Trace {
    pub held: Arc<Held>,
    pub manifest: Arc<CheckedManifest>,
}

impl Trace {
    pub fn in_memory(file: SessionRows, manifest: Arc<CheckedManifest>) -> Trace {
        Trace { held: Arc::new(Held::Memory(file)), manifest }
    }
}

#[pymethods]
impl Trace {
    /// Opens a trace of the adapter of this manifest. Its rows stay in the file.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, manifest: &Manifest) -> Result<Trace, Failure> {
        let manifest = Arc::clone(&manifest.0);
        worker::run(py, None, move |_| {
            let reader = TraceReader::open(&path, manifest.id(), manifest.modules())?;
            Ok(Trace { held: Arc::new(Held::File(Arc::new(reader))), manifest })
        })
    }

    /// What a trace file says of itself, whatever its manifest, as [`log_info`] does.
    #[staticmethod]
    fn info_of(py: Python<'_>, path: PathBuf) -> Result<(String, u64, String, Vec<u64>), Failure> {
        worker::run(py, None, move |_| {
            let info = SessionRows::info(&path)?;
            let rows = info.rows.values().fold(0u64, |all, rows| all.saturating_add(*rows as u64));
            let counts = counts(info.rows.values().map(|rows| *rows as u64));
            Ok((info.adapter_id, rows, info.session_id, counts))
        })
    }

    /// Writes the trace, readable by its owner only: it holds activations.
    fn save(&self, py: Python<'_>, path: PathBuf) -> Result<(), Failure> {
        let (held, manifest) = (Arc::clone(&self.held), Arc::clone(&self.manifest));
        worker::run(py, None, move |_| match &*held {
            Held::Memory(file) => Ok(file.write(&path, &manifest)?),
            Held::File(reader) => Ok(reader.copy(&path, manifest.modules())?),
        })
    }

    /// The adapter id, 64 hex digits.
    #[getter]
    fn adapter_id(&self) -> String {
        self.held.adapter()
    }

    /// The session id, 64 hex digits.
    #[getter]
    fn session_id(&self) -> String {
        hex::encode(self.held.session())
    }

    /// Rows of every module that was called.
    #[getter]
    fn rows(&self) -> BTreeMap<String, usize> {
        let each = self
            .manifest
            .modules()
            .iter()
            .enumerate()
            .map(|(at, m)| (m.name.clone(), self.held.count(at)));
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
        let values = match &*self.held {
            Held::Memory(file) => {
                let rows = &file.modules[at];
                py.detach(|| {
                    zklora_artifacts::quantized_rows::dequantized(module, &rows.scales, &rows.delta)
                })
            }
            Held::File(reader) => {
                let (reader, manifest) = (Arc::clone(reader), Arc::clone(&self.manifest));
                // Not in a forked child: it would share the place in the file with its parent.
                worker::run(py, None, move |_| {
                    let (module, rows) = (&manifest.modules()[at], reader.count(at));
                    let unreadable =
                        |why: String| Failure::Input(format!("module `{}`: {why}", module.name));
                    let scales = reader.scales(at, 0..rows).map_err(unreadable)?;
                    let delta = reader.delta(at, 0..rows * module.d_out).map_err(unreadable)?;
                    Ok(zklora_artifacts::quantized_rows::dequantized(module, &scales, &delta))
                })?
            }
        };
        Ok(arrays::to_python(py, values, module.d_out)?)
    }

    fn __repr__(&self) -> String {
        let rows = (0..self.manifest.modules().len()).map(|at| self.held.count(at)).sum::<usize>();
        format!("Trace(adapter {}, session {}, {rows} rows)", self.adapter_id(), self.session_id())
    }
}

/// What the log of a user's session says: the adapter id, the rows that were sent and not taken
/// back, the session id, and the rows of each module in order of size (a log knows no names). None
/// and 0 if its writer died before the session began.
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
