//! A session's rows as a `.safetensors` file (`docs/formats.md`): what both parties keep.
//!
//! Per module: `<module>.<input>` (i32 `[N, dim]`), `<module>.one` (i32 `[N]`, only with a bias), `<module>.scale` (f32 `[N]`),
//! `<module>.delta` (i64 `[N, d_out]`). Metadata: format, version, adapter id, session id.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo, TensorView},
};
use zklora_circuit::{
    manifest::{AdapterId, Module, Pinned},
    trace::{Rows, Trace},
};

use crate::{
    Error,
    files::{self, Access, MAX_FILE},
};

const FORMAT: &str = "zklora-trace";
const VERSION: &str = "1";

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
        self.inputs.iter_mut().zip(&rows.inputs).for_each(|(own, more)| own.extend_from_slice(more));
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
    /// Calls `f` with the rows as the proof system takes them: checked against the manifest and digested.
    pub fn with_trace<T>(&self, pinned: &Pinned, f: impl FnOnce(&Trace<'_>) -> T) -> Result<T, Error> {
        let inputs: Vec<Vec<&[i32]>> =
            self.modules.iter().map(|m| m.inputs.iter().map(Vec::as_slice).collect()).collect();
        let rows = self.modules.iter().zip(&inputs);
        let rows = rows.map(|(m, inputs)| Rows { inputs, ones: &m.ones, scales: &m.scales, delta: &m.delta }).collect();
        Ok(f(&Trace::new(pinned, self.session, rows)?))
    }

    /// Rows of all modules together.
    pub fn rows(&self) -> usize {
        self.modules.iter().map(|m| m.scales.len()).sum()
    }

    /// Writes the file.
    pub fn write(&self, path: &Path, pinned: &Pinned) -> Result<(), Error> {
        self.write_shapes(path, pinned.modules())
    }

    /// Writes the file, for modules of these names and shapes, whatever the backend.
    pub(crate) fn write_shapes(&self, path: &Path, modules: &[Module]) -> Result<(), Error> {
        let mut tensors: Vec<(String, Dtype, Vec<usize>, &[u8])> = Vec::new();
        for (module, rows) in modules.iter().zip(&self.modules) {
            let n = rows.scales.len();
            if n == 0 {
                continue;
            }
            let name = |suffix: &str| format!("{}.{suffix}", module.name);
            for (input, values) in module.inputs.iter().zip(&rows.inputs) {
                tensors.push((name(&input.name), Dtype::I32, vec![n, input.dim], bytemuck::cast_slice(values)));
            }
            if module.has_bias() {
                tensors.push((name("one"), Dtype::I32, vec![n], bytemuck::cast_slice(&rows.ones)));
            }
            tensors.push((name("scale"), Dtype::F32, vec![n], bytemuck::cast_slice(&rows.scales)));
            tensors.push((name("delta"), Dtype::I64, vec![n, module.d_out], bytemuck::cast_slice(&rows.delta)));
        }
        let failed = |e: safetensors::SafeTensorError| Error::file(path, e);
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, data)| Ok((name, TensorView::new(*dtype, shape.clone(), data)?)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        let metadata = HashMap::from([
            ("format".to_string(), FORMAT.to_string()),
            ("version".to_string(), VERSION.to_string()),
            ("adapter_id".to_string(), self.adapter.to_string()),
            ("session_id".to_string(), hex::encode(self.session)),
        ]);
        let out = safetensors::serialize(views, Some(metadata)).map_err(failed)?;
        // The rows are the user's activations, and what the contributor's weights answered.
        files::write(path, &out, Access::Private)
    }

    /// Reads a file as rows of this adapter.
    pub fn read(path: &Path, pinned: &Pinned) -> Result<TraceFile, Error> {
        TraceFile::read_shapes(path, pinned.id(), pinned.modules())
    }

    /// Reads a file as rows of the adapter `id`, whose modules have these names and shapes.
    pub(crate) fn read_shapes(path: &Path, id: AdapterId, modules: &[Module]) -> Result<TraceFile, Error> {
        let refuse = |why: String| Error::file(path, why);
        let mut opened = Opened::open(path)?;
        let (adapter, session) = (opened.adapter, opened.session);
        if adapter != id {
            return Err(refuse(format!("recorded with adapter {adapter}, this manifest is {id}")));
        }
        let mut unused: BTreeSet<String> = opened.header.offset_keys().into_iter().collect();
        let mut rows = Vec::new();
        for module in modules {
            rows.push(
                module_rows(module, &mut opened, &mut unused)
                    .map_err(|why| refuse(format!("module `{}`: {why}", module.name)))?,
            );
        }
        if let Some(name) = unused.first() {
            return Err(refuse(format!("tensor `{name}` belongs to no module of the adapter")));
        }
        Ok(TraceFile { adapter, session, modules: rows })
    }

    /// What the file says of itself.
    pub fn info(path: &Path) -> Result<Info, Error> {
        let Opened { adapter, session, header, bytes, .. } = Opened::open(path)?;
        let rows = header
            .tensors()
            .iter()
            .filter_map(|(name, info)| Some((name.strip_suffix(".scale")?.to_string(), info.shape.first().copied()?)))
            .collect();
        Ok(Info { adapter_id: adapter.to_string(), session_id: hex::encode(session), rows, bytes })
    }
}

/// Longest header that is read, in bytes, as `safetensors` has it.
const MAX_HEADER: u64 = 100_000_000;

/// A file whose header was read. Tensors are read one by one, so that the file is never in memory beside its numbers.
struct Opened {
    file: fs::File,
    adapter: AdapterId,
    session: [u8; 32],
    header: Metadata,
    /// Where the tensors begin.
    start: u64,
    /// Size of the file.
    bytes: usize,
}

impl Opened {
    fn open(path: &Path) -> Result<Opened, Error> {
        let refuse = |why: String| Error::file(path, format!("not a trace: {why}"));
        let mut file = files::open(path, MAX_FILE)?;
        let bytes = file.metadata().map_err(|e| Error::file(path, e))?.len();
        let mut length = [0u8; 8];
        file.read_exact(&mut length).map_err(|_| refuse(format!("it has {bytes} bytes")))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length + 8 > bytes {
            return Err(refuse(format!("its header would have {length} bytes, the file has {bytes}")));
        }
        let mut header = vec![0u8; length as usize];
        file.read_exact(&mut header).map_err(|e| Error::file(path, e))?;
        // Offsets, shapes and types are checked against each other.
        let header: Metadata = serde_json::from_slice(&header).map_err(|e| refuse(format!("its header: {e}")))?;
        let start = length + 8;
        if start + header.data_len() as u64 != bytes {
            return Err(refuse(format!("its header describes {} bytes of {}", header.data_len(), bytes - start)));
        }
        let metadata = header.metadata().as_ref();
        let field = |name: &str| metadata.and_then(|m| m.get(name)).map(String::as_str).unwrap_or_default();
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
        let adapter = field("adapter_id").parse().map_err(|e: zklora_circuit::Error| refuse(e.to_string()))?;
        Ok(Opened { file, adapter, session, header, start, bytes: bytes as usize })
    }

    /// The little-endian words of a tensor, whose type has this size. (The curve library compiles on little-endian machines only.)
    fn words<T: bytemuck::Pod>(&mut self, info: &TensorInfo) -> Result<Vec<T>, String> {
        let (from, to) = info.data_offsets;
        let mut words = vec![T::zeroed(); (to - from) / size_of::<T>()];
        let read = self.file.seek(SeekFrom::Start(self.start + from as u64));
        let read = read.and_then(|_| self.file.read_exact(bytemuck::cast_slice_mut(&mut words)));
        read.map_err(|e| format!("its rows cannot be read: {e}"))?;
        Ok(words)
    }
}

fn present<T>(part: Option<T>, what: &str) -> Result<T, String> {
    part.ok_or_else(|| format!("tensor `{what}` is missing"))
}

fn module_rows(module: &Module, opened: &mut Opened, unused: &mut BTreeSet<String>) -> Result<ModuleRows, String> {
    // Rows of a tensor, and where it is.
    let mut take = |suffix: &str, dtype: Dtype, dim: Option<usize>| -> Result<Option<(usize, TensorInfo)>, String> {
        let name = format!("{}.{suffix}", module.name);
        let Some(info) = opened.header.info(&name) else { return Ok(None) };
        unused.remove(name.as_str());
        let rows = match (&info.shape[..], dim) {
            ([rows], None) => *rows,
            ([rows, columns], Some(dim)) if *columns == dim => *rows,
            (shape, _) => {
                return Err(format!(
                    "tensor `{suffix}` has shape {shape:?}, expected rows{}",
                    dim.map_or(String::new(), |d| format!(" of {d}"))
                ));
            }
        };
        if info.dtype != dtype {
            return Err(format!("tensor `{suffix}` is {:?}, expected {dtype:?}", info.dtype));
        }
        Ok(Some((rows, info.clone())))
    };
    let mut found = Vec::new();
    for input in &module.inputs {
        found.push(take(&input.name, Dtype::I32, Some(input.dim))?);
    }
    let one = if module.has_bias() { take("one", Dtype::I32, None)? } else { None };
    let scale = take("scale", Dtype::F32, None)?;
    let delta = take("delta", Dtype::I64, Some(module.d_out))?;
    if found.iter().all(Option::is_none) && one.is_none() && scale.is_none() && delta.is_none() {
        return Ok(ModuleRows::none(module));
    }
    let (rows, scale) = present(scale, "scale")?;
    let (delta_rows, delta) = present(delta, "delta")?;
    let one = if module.has_bias() { Some(present(one, "one")?) } else { None };
    if delta_rows != rows || one.as_ref().is_some_and(|(ones, _)| *ones != rows) {
        return Err(format!("`delta` or `one` has another number of rows than `scale` ({rows})"));
    }
    let mut inputs = Vec::new();
    for (input, found) in module.inputs.iter().zip(found) {
        let (input_rows, info) = present(found, &input.name)?;
        if input_rows != rows {
            return Err(format!("input `{}` has {input_rows} rows, `scale` {rows}", input.name));
        }
        inputs.push(opened.words(&info)?);
    }
    let ones = one.map_or(Ok(Vec::new()), |(_, info)| opened.words(&info))?;
    Ok(ModuleRows { inputs, ones, scales: opened.words(&scale)?, delta: opened.words(&delta)? })
}

/// Little-endian words, at any alignment. (The curve library compiles on little-endian machines only.)
pub(crate) fn words<T: bytemuck::Pod>(data: &[u8]) -> Vec<T> {
    let mut words = vec![T::zeroed(); data.len() / size_of::<T>()];
    // Of equal length: callers see to it that there are whole words.
    bytemuck::cast_slice_mut(&mut words).copy_from_slice(data);
    words
}
