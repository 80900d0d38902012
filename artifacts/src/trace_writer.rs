//! Writes a trace file in pieces, so that the rows need not fit into memory.
//!
//! The number of rows of each module is known before the first row is written, and so is the
//! position of every byte. The file has the bytes that the `safetensors` crate writes for the same
//! tensors, with sorted metadata: equal rows give equal files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use safetensors::{Dtype, tensor::TensorInfo};
use serde::{Serialize, Serializer, ser::SerializeMap};
use tempfile::NamedTempFile;
use zklora_proof::manifest::{AdapterId, Module};

use crate::{
    Error,
    module_rows::ModuleRows,
    tensor_header::MAX_HEADER,
    trace_format::{FORMAT, VERSION},
};

/// Most bytes that are buffered, of all tensors together.
const MAX_BUFFERED: usize = 16 << 20;
/// Most bytes that are buffered of one tensor: so many are worth a system call.
const PIECE: usize = 256 << 10;

/// One tensor of the file: where its next bytes go, and the bytes that are not written yet.
#[derive(Debug)]
struct TensorWriter {
    at: u64,
    buffer: Vec<u8>,
}

/// The tensors of one module, in the order inputs, constant, scales, deltas.
#[derive(Debug)]
struct ModuleWriter {
    name: String,
    /// Values of a row of each input.
    dims: Vec<usize>,
    has_bias: bool,
    d_out: usize,
    /// Rows that were announced.
    count: usize,
    /// Rows that were pushed.
    rows: usize,
    /// Its tensors. Empty if it will have no rows.
    tensors: Vec<TensorWriter>,
}

/// A trace that is being written to a temporary file beside `path`. Dropping it before
/// [`TraceWriter::finish`] removes the temporary file.
#[derive(Debug)]
pub struct TraceWriter {
    path: PathBuf,
    file: NamedTempFile,
    writers: Vec<ModuleWriter>,
    /// Most bytes that are buffered of one tensor.
    piece: usize,
    /// Whether some rows were written only in part.
    broken: bool,
}

impl TraceWriter {
    /// Starts the file of a session. `counts` are the rows that each module will have.
    ///
    /// # Errors
    /// [`Error::File`]: the file cannot be created, or would be larger than the largest file that
    /// is read.
    pub fn create(
        path: &Path,
        adapter: AdapterId,
        session: [u8; 32],
        modules: &[Module],
        counts: &[usize],
    ) -> Result<TraceWriter, Error> {
        let failed = |e: std::io::Error| Error::file(path, e);
        let (header, mut writers) =
            layout(adapter, session, modules, counts).map_err(|why| Error::file(path, why))?;
        zklora_files::require_folder_of(path)?;
        // Mode 0600: the rows are the user's activations and the deltas of the contributor's
        // weights.
        let mut file = zklora_files::temporary_in(zklora_files::folder_of(path)).map_err(failed)?;
        file.write_all(&(header.len() as u64).to_le_bytes())
            .and_then(|()| file.write_all(&header))
            .map_err(failed)?;
        let start = 8 + header.len() as u64;
        writers
            .iter_mut()
            .flat_map(|writer| &mut writer.tensors)
            .for_each(|tensor| tensor.at += start);
        let tensors = writers.iter().map(|writer| writer.tensors.len()).sum::<usize>();
        Ok(TraceWriter {
            path: path.to_path_buf(),
            file,
            writers,
            piece: (MAX_BUFFERED / tensors.max(1)).min(PIECE),
            broken: false,
        })
    }

    /// Appends rows of a module (index in the manifest), with their deltas. Deltas within `rows`
    /// are not read.
    ///
    /// # Errors
    /// [`Error::File`]: rows of another shape, or more than announced: nothing is written. Or a
    /// write fails: then the file cannot be finished.
    pub fn push(&mut self, module: usize, rows: &ModuleRows, delta: &[i64]) -> Result<(), Error> {
        let TraceWriter { path, file, writers, piece, broken } = self;
        let modules = writers.len();
        let Some(writer) = writers.get_mut(module) else {
            return Err(Error::file(
                path,
                format!("rows of module {module}, and it has {modules} modules"),
            ));
        };
        if *broken {
            return Err(Error::file(path, "rows before these could not be written"));
        }
        writer
            .check(rows, delta)
            .map_err(|why| Error::file(path, format!("module `{}`: {why}", writer.name)))?;
        let inputs = rows.inputs.iter().map(|input| bytemuck::cast_slice::<i32, u8>(input));
        let ones = writer.has_bias.then(|| bytemuck::cast_slice(&rows.ones));
        let numbers = inputs
            .chain(ones)
            .chain([bytemuck::cast_slice(&rows.scales), bytemuck::cast_slice(delta)]);
        *broken = true;
        for (tensor, bytes) in writer.tensors.iter_mut().zip(numbers) {
            tensor.write(file.as_file(), bytes, *piece).map_err(|e| Error::file(path, e))?;
        }
        writer.rows += rows.scales.len();
        *broken = false;
        Ok(())
    }

    /// Syncs the file to disk and moves it to its path.
    ///
    /// # Errors
    /// [`Error::File`]: rows are missing, or a write fails.
    pub fn finish(self) -> Result<(), Error> {
        self.complete()?.publish()
    }

    /// Syncs the file to disk, and leaves it beside its path.
    ///
    /// # Errors
    /// [`Error::File`]: rows are missing, or a write fails.
    pub fn complete(mut self) -> Result<CompleteTrace, Error> {
        let failed = |e: std::io::Error| Error::file(&self.path, e);
        if self.broken {
            return Err(Error::file(&self.path, "not all of its rows could be written"));
        }
        if let Some(writer) = self.writers.iter().find(|writer| writer.rows != writer.count) {
            let ModuleWriter { name, count, rows, .. } = writer;
            return Err(Error::file(
                &self.path,
                format!("module `{name}`: {rows} rows were written of {count}"),
            ));
        }
        for tensor in self.writers.iter_mut().flat_map(|writer| &mut writer.tensors) {
            tensor.flush(self.file.as_file()).map_err(failed)?;
        }
        self.file.as_file().sync_all().map_err(failed)?;
        Ok(CompleteTrace { path: self.path, file: self.file })
    }
}

/// A whole trace in a temporary file beside its path. Dropping it removes the file.
#[derive(Debug)]
pub struct CompleteTrace {
    path: PathBuf,
    file: NamedTempFile,
}

impl CompleteTrace {
    /// The temporary file.
    pub fn temporary(&self) -> &Path {
        self.file.path()
    }

    /// Moves the file to its path.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn publish(self) -> Result<(), Error> {
        self.file.persist(&self.path).map_err(|e| Error::file(&self.path, e.error))?;
        Ok(())
    }
}

impl TensorWriter {
    fn write(&mut self, file: &fs::File, bytes: &[u8], piece: usize) -> std::io::Result<()> {
        if self.buffer.len() + bytes.len() > piece {
            self.flush(file)?;
        }
        if bytes.len() > piece {
            return self.put(file, bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self, file: &fs::File) -> std::io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.put(file, &buffer)?;
        buffer.clear();
        self.buffer = buffer;
        Ok(())
    }

    fn put(&mut self, mut file: &fs::File, bytes: &[u8]) -> std::io::Result<()> {
        file.seek(SeekFrom::Start(self.at))?;
        file.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

impl ModuleWriter {
    fn check(&self, rows: &ModuleRows, delta: &[i64]) -> Result<(), String> {
        let n = rows.scales.len();
        let expect = |what: &str, found: usize, width: usize| match n.checked_mul(width) {
            Some(expected) if expected == found => Ok(()),
            _ => Err(format!("{found} values of {what} for {n} rows of {width}")),
        };
        if rows.inputs.len() != self.dims.len() {
            return Err(format!("{} inputs, expected {}", rows.inputs.len(), self.dims.len()));
        }
        for (input, dim) in rows.inputs.iter().zip(&self.dims) {
            expect("an input", input.len(), *dim)?;
        }
        expect("the constant 1", rows.ones.len(), usize::from(self.has_bias))?;
        expect("deltas", delta.len(), self.d_out)?;
        if n > self.count - self.rows {
            return Err(format!("{n} rows after {} of {}", self.rows, self.count));
        }
        Ok(())
    }
}

/// Lays out the file: the header without its length, and the writers with the offsets of their
/// tensors after it.
fn layout(
    adapter: AdapterId,
    session: [u8; 32],
    modules: &[Module],
    counts: &[usize],
) -> Result<(Vec<u8>, Vec<ModuleWriter>), String> {
    if counts.len() != modules.len() {
        return Err(format!("{} numbers of rows for {} modules", counts.len(), modules.len()));
    }
    // Each tensor with its module, and its index among that module's tensors.
    let mut tensors: Vec<(String, Dtype, Vec<usize>, usize, usize)> = Vec::new();
    let mut writers = Vec::with_capacity(modules.len());
    for (m, (module, n)) in modules.iter().zip(counts).enumerate() {
        let first = tensors.len();
        if *n > 0 {
            let mut add = |suffix: &str, dtype, shape| {
                let index = tensors.len() - first;
                tensors.push((format!("{}.{suffix}", module.name), dtype, shape, m, index));
            };
            module
                .inputs
                .iter()
                .for_each(|input| add(&input.name, Dtype::I32, vec![*n, input.dim]));
            if module.has_bias() {
                add("one", Dtype::I32, vec![*n]);
            }
            add("scale", Dtype::F32, vec![*n]);
            add("delta", Dtype::I64, vec![*n, module.d_out]);
        }
        writers.push(ModuleWriter {
            name: module.name.clone(),
            dims: module.inputs.iter().map(|input| input.dim).collect(),
            has_bias: module.has_bias(),
            d_out: module.d_out,
            count: *n,
            rows: 0,
            tensors: (first..tensors.len())
                .map(|_| TensorWriter { at: 0, buffer: Vec::new() })
                .collect(),
        });
    }
    // In the order of `safetensors`: the widest type first, then by name.
    tensors.sort_by(|(left_name, left, ..), (right_name, right, ..)| {
        right.cmp(left).then(left_name.cmp(right_name))
    });
    let (mut names, mut header, mut end) =
        (BTreeSet::new(), Header { adapter, session, tensors: Vec::new() }, 0usize);
    for (name, dtype, shape, module, index) in tensors {
        let bytes =
            shape.iter().try_fold(dtype.bitsize() / 8, |bytes, dim| bytes.checked_mul(*dim));
        let next = bytes
            .and_then(|bytes| end.checked_add(bytes))
            .filter(|next| *next as u64 <= zklora_files::MAX_FILE);
        let next = next.ok_or_else(|| {
            format!(
                "its rows would take more than {} bytes: no trace so large is read",
                zklora_files::MAX_FILE
            )
        })?;
        if !names.insert(name.clone()) {
            return Err(format!("two of its tensors have the name `{name}`"));
        }
        writers[module].tensors[index].at = end as u64;
        header.tensors.push((name, TensorInfo { dtype, shape, data_offsets: (end, next) }));
        end = next;
    }
    let mut bytes = serde_json::to_vec(&header).map_err(|e| e.to_string())?;
    // The first tensor begins at a multiple of 8 bytes.
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    if bytes.len() as u64 > MAX_HEADER {
        return Err(format!("its header has {} bytes, at most {MAX_HEADER} are read", bytes.len()));
    }
    Ok((bytes, writers))
}

/// The header of the file.
struct Header {
    adapter: AdapterId,
    session: [u8; 32],
    tensors: Vec<(String, TensorInfo)>,
}

impl Serialize for Header {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let metadata = BTreeMap::from([
            ("adapter_id", self.adapter.to_string()),
            ("format", FORMAT.to_string()),
            ("session_id", hex::encode(self.session)),
            ("version", VERSION.to_string()),
        ]);
        let mut map = serializer.serialize_map(Some(1 + self.tensors.len()))?;
        map.serialize_entry("__metadata__", &metadata)?;
        for (name, info) in &self.tensors {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}
