//! A session's rows as a `.safetensors` file (`docs/formats.md`): what both parties keep.
//!
//! Per module: `<module>.<input>` (i32 `[N, dim]`), `<module>.one` (i32 `[N]`, only with a bias),
//! `<module>.scale` (f32 `[N]`), `<module>.delta` (i64 `[N, d_out]`). Metadata: format, version,
//! adapter id, session id.

use std::{collections::BTreeMap, path::Path};

use zklora_proof::{
    checked_manifest::CheckedManifest,
    manifest::{AdapterId, Module},
    rows::Rows,
    trace::Trace,
};

use crate::{
    Error,
    trace_reader::{Header, TraceReader},
    trace_writer::TraceWriter,
};

pub(crate) const FORMAT: &str = "zklora-trace";
pub(crate) const VERSION: &str = "1";

/// The rows of one module, owned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModuleRows {
    /// One per input of the module: `[N, dim]`.
    pub inputs: Vec<Vec<i32>>,
    /// The integer that stands for 1, one a row; empty without a bias.
    pub ones: Vec<i32>,
    /// N scales.
    pub scales: Vec<f32>,
    /// `[N, d_out]`.
    pub delta: Vec<i64>,
}

impl ModuleRows {
    /// The rows of a module that was not called.
    pub fn none(module: &Module) -> ModuleRows {
        ModuleRows { inputs: vec![Vec::new(); module.inputs.len()], ..ModuleRows::default() }
    }

    /// Appends rows of the same module, and their deltas.
    pub fn extend(&mut self, rows: &ModuleRows, delta: &[i64]) {
        self.inputs
            .iter_mut()
            .zip(&rows.inputs)
            .for_each(|(own, more)| own.extend_from_slice(more));
        self.ones.extend_from_slice(&rows.ones);
        self.scales.extend_from_slice(&rows.scales);
        self.delta.extend_from_slice(delta);
    }
}

/// A session's rows.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceFile {
    /// The adapter that it was recorded with.
    pub adapter: AdapterId,
    /// The session's 32 fresh bytes, drawn by the user.
    pub session: [u8; 32],
    /// One entry a module of the manifest.
    pub modules: Vec<ModuleRows>,
}

/// What a trace file says of itself, without a manifest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Info {
    /// Adapter id, hex.
    pub adapter_id: String,
    /// Session id, hex.
    pub session_id: String,
    /// Rows per module.
    pub rows: BTreeMap<String, usize>,
    /// Size of the file, in bytes.
    pub bytes: usize,
}

impl TraceFile {
    /// Calls `f` with the rows as the proof system takes them: checked against the manifest and
    /// digested.
    ///
    /// # Errors
    /// Those of [`Trace::new`], or of `f`.
    pub fn with_trace<T>(
        &self,
        pinned: &CheckedManifest,
        f: impl FnOnce(&Trace<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let inputs: Vec<Vec<&[i32]>> =
            self.modules.iter().map(|m| m.inputs.iter().map(Vec::as_slice).collect()).collect();
        let rows = self.modules.iter().zip(&inputs);
        let rows = rows
            .map(|(m, inputs)| Rows { inputs, ones: &m.ones, scales: &m.scales, delta: &m.delta })
            .collect();
        f(&Trace::new(pinned, self.session, rows)?)
    }

    /// Rows of all modules together.
    pub fn rows(&self) -> usize {
        self.modules.iter().map(|m| m.scales.len()).sum()
    }

    /// Writes the file.
    pub fn write(&self, path: &Path, pinned: &CheckedManifest) -> Result<(), Error> {
        self.write_shapes(path, pinned.modules())
    }

    /// Writes the file, for modules of these names and shapes, whatever the backend.
    pub(crate) fn write_shapes(&self, path: &Path, modules: &[Module]) -> Result<(), Error> {
        let counts: Vec<usize> = self.modules.iter().map(|rows| rows.scales.len()).collect();
        let mut writer = TraceWriter::create(path, self.adapter, self.session, modules, &counts)?;
        for (m, rows) in self.modules.iter().enumerate() {
            writer.push(m, rows, &rows.delta)?;
        }
        writer.finish()
    }

    /// Reads a file as rows of this adapter.
    pub fn read(path: &Path, pinned: &CheckedManifest) -> Result<TraceFile, Error> {
        TraceFile::read_shapes(path, pinned.id(), pinned.modules())
    }

    /// Reads a file as rows of the adapter `id`, whose modules have these names and shapes.
    pub(crate) fn read_shapes(
        path: &Path,
        id: AdapterId,
        modules: &[Module],
    ) -> Result<TraceFile, Error> {
        TraceReader::open(path, id, modules)?.read_all()
    }

    /// What the file says of itself.
    pub fn info(path: &Path) -> Result<Info, Error> {
        let header = Header::read(path)?;
        let rows = header.metadata.tensors();
        let rows = rows
            .iter()
            .filter_map(|(name, info)| {
                Some((name.strip_suffix(".scale")?.to_string(), info.shape.first().copied()?))
            })
            .collect();
        let (adapter_id, session_id) = (header.adapter.to_string(), hex::encode(header.session));
        Ok(Info { adapter_id, session_id, rows, bytes: header.bytes as usize })
    }
}

/// Little-endian words, at any alignment. (The curve library compiles on little-endian machines
/// only.)
pub(crate) fn words<T: bytemuck::Pod>(data: &[u8]) -> Vec<T> {
    let mut words = vec![T::zeroed(); data.len() / size_of::<T>()];
    // Of equal length: callers see to it that there are whole words.
    bytemuck::cast_slice_mut(&mut words).copy_from_slice(data);
    words
}
