//! Reads a trace file in pieces, so that the file need not fit into memory.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use zklora_files::MAX_FILE;
use zklora_proof::{
    checked_manifest::CheckedManifest,
    manifest::{AdapterId, Module},
    row_source::RowSource,
    trace::Trace,
};

use crate::{
    Error,
    module_rows::ModuleRows,
    session_rows::SessionRows,
    tensor_header,
    trace_format::{FORMAT, VERSION},
    trace_writer::TraceWriter,
};

/// The header of a trace file, read without a manifest.
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

/// Bytes that are copied at a time.
const PIECE: usize = 4 << 20;

/// The header, and the open file.
pub(crate) struct Header {
    file: fs::File,
    pub adapter: AdapterId,
    pub session: [u8; 32],
    pub metadata: Metadata,
    /// Where the tensors begin.
    start: u64,
    /// Size of the file.
    pub bytes: u64,
}

impl Header {
    pub fn read(path: &Path) -> Result<Header, Error> {
        let refuse = |why: String| Error::file(path, format!("not a trace: {why}"));
        let (mut file, bytes) = zklora_files::open(path, MAX_FILE)?;
        let (metadata, start) = tensor_header::read(&mut file, bytes).map_err(refuse)?;
        let fields = metadata.metadata().as_ref();
        let field =
            |name: &str| fields.and_then(|m| m.get(name)).map(String::as_str).unwrap_or_default();
        if field("format") != FORMAT || field("version") != VERSION {
            return Err(refuse(format!(
                "format `{}` version `{}`, this build reads `{FORMAT}` version {VERSION}",
                field("format"),
                field("version")
            )));
        }
        let mut session = [0u8; 32];
        hex::decode_to_slice(field("session_id"), &mut session)
            .map_err(|_| refuse("its session id is not 64 hex digits".into()))?;
        let adapter =
            field("adapter_id").parse().map_err(|e: zklora_proof::Error| refuse(e.to_string()))?;
        Ok(Header { file, adapter, session, metadata, start, bytes })
    }
}

impl SessionRows {
    /// Reads a file as rows of this adapter.
    pub fn read(path: &Path, manifest: &CheckedManifest) -> Result<SessionRows, Error> {
        SessionRows::read_shapes(path, manifest.id(), manifest.modules())
    }

    /// Reads a file as rows of the adapter `id`, whose modules have these names and shapes.
    pub fn read_shapes(
        path: &Path,
        id: AdapterId,
        modules: &[Module],
    ) -> Result<SessionRows, Error> {
        TraceReader::open(path, id, modules)?.read_all()
    }

    /// Reads the header alone.
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

/// Where the tensors of one module begin, in bytes from the beginning of the file. A module without
/// rows has no tensors.
#[derive(Debug, Clone, Default)]
struct TensorOffsets {
    rows: usize,
    inputs: Vec<u64>,
    ones: u64,
    scales: u64,
    delta: u64,
}

/// An open trace file, whose tensors have the shapes that the modules ask for.
#[derive(Debug)]
pub struct TraceReader {
    /// The adapter that it was recorded with.
    pub adapter: AdapterId,
    /// The session's 32 fresh bytes, drawn by the user.
    pub session: [u8; 32],
    path: PathBuf,
    file: Mutex<fs::File>,
    modules: Vec<TensorOffsets>,
    widths: Vec<RowWidths>,
}

/// Number of values of one row in each tensor.
#[derive(Debug, Clone, PartialEq)]
struct RowWidths {
    inputs: Vec<usize>,
    one: usize,
    delta: usize,
}

impl RowWidths {
    fn of(module: &Module) -> RowWidths {
        RowWidths {
            inputs: module.inputs.iter().map(|input| input.dim).collect(),
            one: usize::from(module.has_bias()),
            delta: module.d_out,
        }
    }
}

impl TraceReader {
    /// Opens a file as rows of the adapter `id`, whose modules have these names and shapes.
    ///
    /// # Errors
    /// [`Error::File`] names the tensor that is missing, unknown or of another shape.
    pub fn open(path: &Path, id: AdapterId, modules: &[Module]) -> Result<TraceReader, Error> {
        let refuse = |why: String| Error::file(path, why);
        let header = Header::read(path)?;
        let adapter = header.adapter;
        if adapter != id {
            return Err(refuse(format!("recorded with adapter {adapter}, this manifest is {id}")));
        }
        let mut unused: BTreeSet<String> = header.metadata.offset_keys().into_iter().collect();
        let mut offsets = Vec::new();
        for module in modules {
            offsets.push(
                module_offsets(module, &header, &mut unused)
                    .map_err(|why| refuse(format!("module `{}`: {why}", module.name)))?,
            );
        }
        if let Some(name) = unused.first() {
            return Err(refuse(format!("tensor `{name}` belongs to no module of the adapter")));
        }
        Ok(TraceReader {
            adapter,
            session: header.session,
            path: path.to_path_buf(),
            file: Mutex::new(header.file),
            modules: offsets,
            widths: modules.iter().map(RowWidths::of).collect(),
        })
    }

    /// Reads a file as a [`Trace`]: once, in pieces, checked against the manifest and digested.
    /// Later passes over the rows read the file again.
    ///
    /// # Errors
    /// Those of [`TraceReader::open`] and [`Trace::read`].
    pub fn trace(path: &Path, manifest: &CheckedManifest) -> Result<Trace<'static>, Error> {
        let reader = TraceReader::open(path, manifest.id(), manifest.modules())?;
        Ok(Trace::read(manifest, reader.session, Arc::new(reader))?)
    }

    /// Reads all rows into memory.
    pub fn read_all(&self) -> Result<SessionRows, Error> {
        let modules =
            self.modules.iter().enumerate().map(|(m, offsets)| self.rows(m, 0..offsets.rows));
        Ok(SessionRows {
            adapter: self.adapter,
            session: self.session,
            modules: modules.collect::<Result<_, Error>>()?,
        })
    }

    /// Writes the session to another file, in pieces. `modules` must be those that this file was
    /// opened for.
    ///
    /// # Errors
    /// [`Error::File`]: this file can no longer be read, or the other cannot be written.
    pub fn copy(&self, path: &Path, modules: &[Module]) -> Result<(), Error> {
        let counts: Vec<usize> = self.modules.iter().map(|offsets| offsets.rows).collect();
        let mut writer = TraceWriter::create(path, self.adapter, self.session, modules, &counts)?;
        for (m, (offsets, widths)) in self.modules.iter().zip(&self.widths).enumerate() {
            let values = widths.inputs.iter().sum::<usize>() + 2 * widths.delta + 2;
            let at_once = (PIECE / (4 * values)).max(1);
            for first in (0..offsets.rows).step_by(at_once) {
                let rows = self.rows(m, first..offsets.rows.min(first + at_once))?;
                writer.push(m, &rows, &rows.delta)?;
            }
        }
        writer.finish()
    }

    /// Reads some rows of module `m`, with their deltas. The range must be within its rows.
    ///
    /// # Errors
    /// [`Error::File`]: the file can no longer be read.
    pub fn rows(&self, m: usize, rows: Range<usize>) -> Result<ModuleRows, Error> {
        let (offsets, widths) = (&self.modules[m], &self.widths[m]);
        let of = |width: usize| rows.start * width..rows.end * width;
        let read = || {
            let inputs = offsets.inputs.iter().zip(&widths.inputs);
            Ok(ModuleRows {
                inputs: inputs
                    .map(|(offset, dim)| self.words(*offset, of(*dim)))
                    .collect::<Result<_, String>>()?,
                ones: self.words(offsets.ones, of(widths.one))?,
                scales: self.words(offsets.scales, of(1))?,
                delta: self.words(offsets.delta, of(widths.delta))?,
            })
        };
        read().map_err(|why: String| Error::file(&self.path, why))
    }

    /// Reads the little-endian words `values` of the tensor at `offset`. (The curve library
    /// compiles on little-endian machines only.)
    fn words<T: bytemuck::Pod>(&self, offset: u64, values: Range<usize>) -> Result<Vec<T>, String> {
        let mut words = vec![T::zeroed(); values.len()];
        if words.is_empty() {
            return Ok(words);
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file.seek(SeekFrom::Start(offset + (values.start * size_of::<T>()) as u64));
        let read = read.and_then(|_| file.read_exact(bytemuck::cast_slice_mut(&mut words)));
        read.map_err(|e| format!("its rows cannot be read: {e}"))?;
        Ok(words)
    }
}

impl RowSource for TraceReader {
    fn count(&self, m: usize) -> usize {
        self.modules.get(m).map_or(0, |offsets| offsets.rows)
    }

    /// The shapes were checked when the file was opened, so these must be the same.
    fn check_shape(&self, m: usize, module: &Module) -> Result<(), String> {
        match self.widths.get(m) {
            Some(widths) if *widths == RowWidths::of(module) => Ok(()),
            _ => Err("the file was opened for modules of other shapes".into()),
        }
    }

    fn input(
        &self,
        m: usize,
        input: usize,
        values: Range<usize>,
    ) -> Result<Cow<'_, [i32]>, String> {
        self.words(self.modules[m].inputs[input], values).map(Cow::Owned)
    }

    fn ones(&self, m: usize, values: Range<usize>) -> Result<Cow<'_, [i32]>, String> {
        self.words(self.modules[m].ones, values).map(Cow::Owned)
    }

    fn scales(&self, m: usize, values: Range<usize>) -> Result<Cow<'_, [f32]>, String> {
        self.words(self.modules[m].scales, values).map(Cow::Owned)
    }

    fn delta(&self, m: usize, values: Range<usize>) -> Result<Cow<'_, [i64]>, String> {
        self.words(self.modules[m].delta, values).map(Cow::Owned)
    }

    /// Another process may write to the file.
    fn is_constant(&self) -> bool {
        false
    }
}

fn present<T>(tensor: Option<T>, what: &str) -> Result<T, String> {
    tensor.ok_or_else(|| format!("tensor `{what}` is missing"))
}

fn module_offsets(
    module: &Module,
    header: &Header,
    unused: &mut BTreeSet<String>,
) -> Result<TensorOffsets, String> {
    // Removes a tensor from `unused`, and returns its rows and its offset.
    let mut take =
        |suffix: &str, dtype: Dtype, dim: Option<usize>| -> Result<Option<(usize, u64)>, String> {
            let name = format!("{}.{suffix}", module.name);
            let Some(TensorInfo { dtype: found, shape, data_offsets }) =
                header.metadata.info(&name)
            else {
                return Ok(None);
            };
            unused.remove(name.as_str());
            let rows = match (&shape[..], dim) {
                ([rows], None) => *rows,
                ([rows, columns], Some(dim)) if *columns == dim => *rows,
                (shape, _) => {
                    return Err(format!(
                        "tensor `{suffix}` has shape {shape:?}, expected rows{}",
                        dim.map_or(String::new(), |d| format!(" of {d}"))
                    ));
                }
            };
            if *found != dtype {
                return Err(format!("tensor `{suffix}` is {found:?}, expected {dtype:?}"));
            }
            Ok(Some((rows, header.start + data_offsets.0 as u64)))
        };
    let mut found = Vec::new();
    for input in &module.inputs {
        found.push(take(&input.name, Dtype::I32, Some(input.dim))?);
    }
    let one = if module.has_bias() { take("one", Dtype::I32, None)? } else { None };
    let scale = take("scale", Dtype::F32, None)?;
    let delta = take("delta", Dtype::I64, Some(module.d_out))?;
    if found.iter().all(Option::is_none) && one.is_none() && scale.is_none() && delta.is_none() {
        return Ok(TensorOffsets {
            inputs: vec![0; module.inputs.len()],
            ..TensorOffsets::default()
        });
    }
    let (rows, scales) = present(scale, "scale")?;
    let (delta_rows, delta) = present(delta, "delta")?;
    let (one_rows, ones) = if module.has_bias() { present(one, "one")? } else { (rows, 0) };
    if delta_rows != rows || one_rows != rows {
        return Err(format!("`delta` or `one` has another number of rows than `scale` ({rows})"));
    }
    let mut inputs = Vec::new();
    for (input, found) in module.inputs.iter().zip(found) {
        let (input_rows, offset) = present(found, &input.name)?;
        if input_rows != rows {
            return Err(format!("input `{}` has {input_rows} rows, `scale` {rows}", input.name));
        }
        inputs.push(offset);
    }
    Ok(TensorOffsets { rows, inputs, ones, scales, delta })
}
