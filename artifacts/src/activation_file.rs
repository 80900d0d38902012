//! A file of activations, read in pieces.
//!
//! It reads safetensors with one tensor `<module>.<input>` each (f32, f16, bf16; any leading
//! dimensions are rows). For a single module it also reads `.npy`, and JSON `{"input_data": [[…]]}`
//! as EZKL and the original ZKLoRA write it. Numbers in JSON have no fixed width, so they are
//! copied as floats to a temporary file without a name first.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    fmt,
    io::{BufReader, BufWriter, Cursor, Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use safetensors::{Dtype, tensor::TensorInfo};
use zklora_files::MAX_FILE;
use zklora_proof::manifest::Module;

use crate::{
    Error,
    activation_source::{ActivationSource, whole_rows},
    float_type::FloatType,
    json_floats, npy, tensor_header,
};

/// Where the values of an input are.
#[derive(Debug, Clone, Copy)]
struct FloatArray {
    at: u64,
    values: usize,
    float: FloatType,
}

/// A file, or bytes in memory.
trait Bytes: Read + Seek + Send {}
impl<T: Read + Seek + Send> Bytes for T {}

/// An open file of activations, with the shapes that the modules ask for.
pub struct ActivationFile<'a> {
    path: PathBuf,
    bytes: Mutex<Box<dyn Bytes + 'a>>,
    /// The inputs of each module that was called, by its name.
    modules: BTreeMap<String, Vec<FloatArray>>,
    /// Tensors of the file that belong to no input of the adapter.
    pub ignored: Vec<String>,
}

impl fmt::Debug for ActivationFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActivationFile({}, {} modules)", self.path.display(), self.modules.len())
    }
}

impl ActivationFile<'static> {
    /// Opens a file for these modules. For `.npy` and JSON, `module` names the module unless the
    /// adapter has only one.
    ///
    /// # Errors
    /// [`Error::File`] says what is wrong with the file, [`Error::Input`] that the adapter has no
    /// such module.
    pub fn open(
        path: &Path,
        modules: &[Module],
        module: Option<&str>,
    ) -> Result<ActivationFile<'static>, Error> {
        let (file, length) = zklora_files::open(path, MAX_FILE)?;
        match Format::of(path)? {
            Format::Json => {
                let copy = tempfile::tempfile().map_err(|e| Error::file(path, e))?;
                let mut writer = BufWriter::new(copy);
                let lengths = json_floats::copy(BufReader::new(file), &mut writer)
                    .map_err(|why| Error::file(path, why))?;
                let copy = writer.into_inner().map_err(|e| Error::file(path, e.into_error()))?;
                ActivationFile::of_lists(path, Box::new(copy), &lengths, modules, module)
            }
            format => ActivationFile::seekable(path, file, length, format, modules, module),
        }
    }
}

impl<'a> ActivationFile<'a> {
    /// [`ActivationFile::open`] of bytes in memory. The extension of `path` gives the format.
    pub fn parse(
        path: &Path,
        bytes: &'a [u8],
        modules: &[Module],
        module: Option<&str>,
    ) -> Result<ActivationFile<'a>, Error> {
        match Format::of(path)? {
            Format::Json => {
                let mut copy = Vec::new();
                let lengths =
                    json_floats::copy(bytes, &mut copy).map_err(|why| Error::file(path, why))?;
                let copy = Box::new(Cursor::new(copy));
                ActivationFile::of_lists(path, copy, &lengths, modules, module)
            }
            format => {
                let length = bytes.len() as u64;
                ActivationFile::seekable(path, Cursor::new(bytes), length, format, modules, module)
            }
        }
    }

    fn seekable(
        path: &Path,
        mut bytes: impl Bytes + 'a,
        length: u64,
        format: Format,
        modules: &[Module],
        module: Option<&str>,
    ) -> Result<ActivationFile<'a>, Error> {
        if let Format::Npy = format {
            let array = npy::read_header(path, &mut bytes, length)?;
            let values = array.values;
            let array = FloatArray { at: array.at, values, float: array.float };
            return ActivationFile::single(path, Box::new(bytes), vec![array], modules, module);
        }
        let (tensors, start) = tensor_header::read(&mut bytes, length)
            .map_err(|e| Error::file(path, format!("not a safetensors file: {e}")))?;
        let (mut found, mut used) = (BTreeMap::new(), HashSet::new());
        for module in modules {
            let mut inputs = Vec::new();
            for input in &module.inputs {
                let name = format!("{}.{}", module.name, input.name);
                let Some(tensor) = tensors.info(&name) else { continue };
                inputs.push(array_of(path, &name, tensor, start, input.dim)?);
                used.insert(name);
            }
            if inputs.len() == module.inputs.len() && !inputs.is_empty() {
                found.insert(module.name.clone(), inputs);
            } else if !inputs.is_empty() {
                return Err(Error::file(
                    path,
                    format!(
                        "module `{}` has {} of its {} inputs",
                        module.name,
                        inputs.len(),
                        module.inputs.len()
                    ),
                ));
            }
        }
        if found.is_empty() {
            let first = modules.first().map_or("module", |module| module.name.as_str());
            return Err(Error::file(
                path,
                format!(
                    "no tensor here is an input of the adapter: expected names such as `{first}.x`"
                ),
            ));
        }
        let mut ignored = tensors.offset_keys();
        ignored.retain(|name| !used.contains(name));
        ignored.sort();
        Ok(ActivationFile {
            path: path.to_path_buf(),
            bytes: Mutex::new(Box::new(bytes)),
            modules: found,
            ignored,
        })
    }

    /// Lists of f32, one after the other.
    fn of_lists(
        path: &Path,
        bytes: Box<dyn Bytes + 'a>,
        lengths: &[usize],
        modules: &[Module],
        module: Option<&str>,
    ) -> Result<ActivationFile<'a>, Error> {
        let mut at = 0;
        let arrays = lengths.iter().map(|values| {
            let array = FloatArray { at, values: *values, float: FloatType::F32 };
            at += *values as u64 * 4;
            array
        });
        ActivationFile::single(path, bytes, arrays.collect(), modules, module)
    }

    /// Inputs of one module.
    fn single(
        path: &Path,
        bytes: Box<dyn Bytes + 'a>,
        inputs: Vec<FloatArray>,
        modules: &[Module],
        name: Option<&str>,
    ) -> Result<ActivationFile<'a>, Error> {
        let module = match (name, modules) {
            (Some(name), _) => modules.iter().find(|m| m.name == name),
            (None, [only]) => Some(only),
            (None, _) => {
                return Err(Error::file(
                    path,
                    format!(
                        "the adapter has {} modules: name one with --module, or use a safetensors \
                         file",
                        modules.len()
                    ),
                ));
            }
        }
        .ok_or_else(|| {
            Error::Input(format!("the adapter has no module `{}`", name.unwrap_or_default()))
        })?;
        if inputs.len() != module.inputs.len() {
            return Err(Error::file(
                path,
                format!(
                    "{} inputs, module `{}` takes {}",
                    inputs.len(),
                    module.name,
                    module.inputs.len()
                ),
            ));
        }
        for (array, input) in inputs.iter().zip(&module.inputs) {
            if array.values == 0 || array.values % input.dim != 0 {
                return Err(Error::file(
                    path,
                    format!("{} values are not whole rows of {}", array.values, input.dim),
                ));
            }
        }
        Ok(ActivationFile {
            path: path.to_path_buf(),
            bytes: Mutex::new(bytes),
            modules: [(module.name.clone(), inputs)].into(),
            ignored: Vec::new(),
        })
    }

    /// Number of modules that were called.
    pub fn called(&self) -> usize {
        self.modules.len()
    }
}

impl ActivationSource for ActivationFile<'_> {
    fn rows(&self, module: &Module) -> Result<usize, Error> {
        match self.modules.get(&module.name) {
            None => Ok(0),
            Some(inputs) => whole_rows(module, inputs.iter().map(|array| array.values)),
        }
    }

    fn read(
        &self,
        module: &Module,
        input: usize,
        rows: Range<usize>,
    ) -> Result<Cow<'_, [f32]>, Error> {
        let array = self.modules.get(&module.name).and_then(|inputs| inputs.get(input));
        let dim = module.inputs.get(input).map_or(0, |input| input.dim);
        let (Some(array), true) = (array, dim > 0) else {
            return Err(Error::Input(format!("module `{}` was not called", module.name)));
        };
        // The range is within the array, whose bytes were counted when the file was opened.
        let width = array.float.width();
        let mut values = vec![0u8; rows.len() * dim * width];
        let from = array.at + (rows.start * dim * width) as u64;
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes
            .seek(SeekFrom::Start(from))
            .and_then(|_| bytes.read_exact(&mut values))
            .map_err(|e| Error::file(&self.path, format!("its rows cannot be read: {e}")))?;
        drop(bytes);
        Ok(Cow::Owned(array.float.to_floats(&values)))
    }
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Safetensors,
    Npy,
    Json,
}

impl Format {
    fn of(path: &Path) -> Result<Format, Error> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => Ok(Format::Safetensors),
            Some("npy") => Ok(Format::Npy),
            Some("json") => Ok(Format::Json),
            _ => Err(Error::file(path, "activations are read from .safetensors, .npy or .json")),
        }
    }
}

/// A tensor of rows of `dim` values, in a file whose tensors begin at `start`.
fn array_of(
    path: &Path,
    name: &str,
    TensorInfo { dtype, shape, data_offsets }: &TensorInfo,
    start: u64,
    dim: usize,
) -> Result<FloatArray, Error> {
    let float = match dtype {
        Dtype::F32 => FloatType::F32,
        Dtype::F16 => FloatType::F16,
        Dtype::BF16 => FloatType::Bf16,
        other => {
            return Err(Error::file(
                path,
                format!("tensor `{name}` is {other:?}: activations are F32, F16 or BF16"),
            ));
        }
    };
    if shape.last() != Some(&dim) {
        return Err(Error::file(
            path,
            format!("tensor `{name}` has shape {shape:?}: its last dimension must be {dim}"),
        ));
    }
    let values = (data_offsets.1 - data_offsets.0) / float.width();
    Ok(FloatArray { at: start + data_offsets.0 as u64, values, float })
}
