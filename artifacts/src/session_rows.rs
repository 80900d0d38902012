//! All rows of a session in memory, and how they are written as a trace file.

use std::path::Path;

use zklora_proof::{
    checked_manifest::CheckedManifest,
    manifest::{AdapterId, Module},
    rows::RowSlices,
    trace::Trace,
};

use crate::{Error, module_rows::ModuleRows, trace_writer::TraceWriter};

/// A session's rows.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRows {
    /// The adapter that it was recorded with.
    pub adapter: AdapterId,
    /// The session's 32 fresh bytes, drawn by the user.
    pub session: [u8; 32],
    /// One entry per module of the manifest.
    pub modules: Vec<ModuleRows>,
}

impl SessionRows {
    /// Calls `f` with the rows as a [`Trace`]: checked against the manifest and digested.
    ///
    /// # Errors
    /// Those of [`Trace::new`], or of `f`.
    pub fn with_trace<T, E: From<Error>>(
        &self,
        manifest: &CheckedManifest,
        f: impl FnOnce(&Trace<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let inputs: Vec<Vec<&[i32]>> =
            self.modules.iter().map(|m| m.inputs.iter().map(Vec::as_slice).collect()).collect();
        let rows = self.modules.iter().zip(&inputs);
        let rows = rows
            .map(|(m, inputs)| RowSlices {
                inputs,
                ones: &m.ones,
                scales: &m.scales,
                delta: &m.delta,
            })
            .collect();
        f(&Trace::new(manifest, self.session, rows).map_err(Error::from)?)
    }

    /// Rows of all modules together.
    pub fn rows(&self) -> usize {
        self.modules.iter().map(|m| m.scales.len()).sum()
    }

    /// Writes the rows as a trace file.
    pub fn write(&self, path: &Path, manifest: &CheckedManifest) -> Result<(), Error> {
        self.write_shapes(path, manifest.modules())
    }

    /// Writes the rows as a trace file, for modules of these names and shapes. The backend does not
    /// matter.
    pub fn write_shapes(&self, path: &Path, modules: &[Module]) -> Result<(), Error> {
        let counts: Vec<usize> = self.modules.iter().map(|rows| rows.scales.len()).collect();
        let mut writer = TraceWriter::create(path, self.adapter, self.session, modules, &counts)?;
        for (m, rows) in self.modules.iter().enumerate() {
            writer.push(m, rows, &rows.delta)?;
        }
        writer.finish()
    }
}
