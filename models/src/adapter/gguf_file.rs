//! Opens a GGUF file (llama.cpp), checks its header, and reads it one tensor at a time.
//!
//! Every length of a hostile header is bounded before it is used. The format, in its versions 2 and
//! 3 and little-endian, is that of
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Must not know which tensors belong
//! together.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use half::{bf16, f16};

use crate::Error;

/// Most entries of the header, and most tensors.
const MAX_ENTRIES: u64 = 1 << 17;
/// Longest text of the header, in bytes.
const MAX_TEXT: u64 = 1 << 20;
/// Longest header, in bytes.
const MAX_HEADER: u64 = 64 << 20;
/// Most dimensions of a tensor.
const MAX_DIMS: u32 = 4;
/// Tensors begin at multiples of this, unless the header says another number.
const ALIGNMENT: u64 = 32;
/// Numbers of a block of Q8_0, which has an f16 before them.
const BLOCK: usize = 32;

/// A GGUF file whose header is valid.
pub(crate) struct GgufFile {
    path: PathBuf,
    file: File,
    texts: HashMap<String, String>,
    numbers: HashMap<String, f64>,
    tensors: BTreeMap<String, Tensor>,
}

struct Tensor {
    /// Row-major: the file has it in the other order.
    shape: Vec<usize>,
    kind: Kind,
    start: u64,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    F32,
    F16,
    Bf16,
    Q8,
    /// Another one, by its number.
    Other(u32),
}

/// Reads the header, and counts its bytes.
struct Header<'a> {
    path: &'a Path,
    file: BufReader<&'a File>,
    left: u64,
    read: u64,
}

impl Header<'_> {
    fn malformed(&self, reason: impl Into<String>) -> Error {
        Error::Format {
            path: self.path.to_owned(),
            what: format!("this is not a well-formed GGUF file: {}", reason.into()),
            hint: "download or convert it again".into(),
        }
    }

    fn take(&mut self, bytes: u64) -> Result<(), Error> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            self.malformed("its header is cut short, or longer than any that is read")
        })?;
        self.read += bytes;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.take(N as u64)?;
        let mut bytes = [0; N];
        self.file
            .read_exact(&mut bytes)
            .map_err(|error| zklora_files::Error::new(self.path, error))?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of something, at most [`MAX_ENTRIES`].
    fn count(&mut self, what: &str) -> Result<u64, Error> {
        let count = self.u64()?;
        match count <= MAX_ENTRIES {
            true => Ok(count),
            false => Err(self.malformed(format!("it claims {count} {what}"))),
        }
    }

    fn text(&mut self) -> Result<String, Error> {
        let length = self.u64()?;
        if length > MAX_TEXT {
            return Err(self.malformed(format!("a text of {length} bytes")));
        }
        self.take(length)?;
        let mut bytes = vec![0; length as usize];
        self.file
            .read_exact(&mut bytes)
            .map_err(|error| zklora_files::Error::new(self.path, error))?;
        String::from_utf8(bytes).map_err(|_| self.malformed("a text is not UTF-8"))
    }

    fn skip(&mut self, bytes: u64) -> Result<(), Error> {
        self.take(bytes)?;
        let skipped = std::io::copy(&mut (&mut self.file).take(bytes), &mut std::io::sink());
        match skipped.map_err(|error| zklora_files::Error::new(self.path, error))? == bytes {
            true => Ok(()),
            false => Err(self.malformed("it is cut short")),
        }
    }

    /// A value of a type: a text or a number, if it is one.
    fn value(&mut self, kind: u32) -> Result<(Option<String>, Option<f64>), Error> {
        let number = match kind {
            0 | 7 => f64::from(self.array::<1>()?[0]),
            1 => f64::from(i8::from_le_bytes(self.array()?)),
            2 => f64::from(u16::from_le_bytes(self.array()?)),
            3 => f64::from(i16::from_le_bytes(self.array()?)),
            4 => f64::from(self.u32()?),
            5 => f64::from(i32::from_le_bytes(self.array()?)),
            6 => f64::from(f32::from_le_bytes(self.array()?)),
            8 => return Ok((Some(self.text()?), None)),
            9 => {
                let (of, count) = (self.u32()?, self.u64()?);
                let size = match of {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    10..=12 => 8,
                    8 => {
                        // Each text has a length, so the header ends before the count does.
                        for _ in 0..count {
                            self.text()?;
                        }
                        return Ok((None, None));
                    }
                    _ => return Err(self.malformed(format!("an array of type {of}"))),
                };
                let bytes = count.checked_mul(size);
                self.skip(bytes.ok_or_else(|| self.malformed("an array is too long"))?)?;
                return Ok((None, None));
            }
            10 => self.u64()? as f64,
            11 => i64::from_le_bytes(self.array()?) as f64,
            12 => f64::from_le_bytes(self.array()?),
            _ => return Err(self.malformed(format!("a value of type {kind}"))),
        };
        Ok((None, Some(number)))
    }
}

impl GgufFile {
    /// Opens a file of at most `limit` bytes and checks its header.
    pub(crate) fn open(path: &Path, limit: u64) -> Result<GgufFile, Error> {
        let (file, bytes) = zklora_files::open(path, limit)?;
        let left = bytes.min(MAX_HEADER);
        let mut header = Header { path, file: BufReader::new(&file), left, read: 0 };
        if &header.array::<4>()? != b"GGUF" {
            return Err(header.malformed("it does not begin with GGUF"));
        }
        let version = header.u32()?;
        if !(2..=3).contains(&version) {
            return Err(header.malformed(format!("it has version {version}, and 2 and 3 are read")));
        }
        let (tensors, entries) = (header.count("tensors")?, header.count("entries")?);
        let (mut texts, mut numbers) = (HashMap::new(), HashMap::new());
        for _ in 0..entries {
            let (key, kind) = (header.text()?, header.u32()?);
            let (text, number) = header.value(kind)?;
            texts.extend(text.map(|text| (key.clone(), text)));
            numbers.extend(number.map(|number| (key, number)));
        }
        let mut found = BTreeMap::new();
        for _ in 0..tensors {
            let name = header.text()?;
            let tensor = tensor(&mut header, &name)?;
            if found.insert(name.clone(), tensor).is_some() {
                return Err(header.malformed(format!("the tensor {name} comes twice")));
            }
        }
        let alignment = match numbers.get("general.alignment") {
            None => ALIGNMENT,
            Some(number) if (1.0..=65536.0).contains(number) => *number as u64,
            Some(number) => return Err(header.malformed(format!("its alignment is {number}"))),
        };
        let data = header.read.div_ceil(alignment) * alignment;
        for (name, tensor) in &mut found {
            tensor.start = tensor.start.saturating_add(data);
            let end = tensor.start.checked_add(tensor.bytes as u64);
            if end.is_none_or(|end| end > bytes) {
                return Err(header.malformed(format!("the tensor {name} lies beyond its end")));
            }
        }
        drop(header);
        Ok(GgufFile { path: path.to_owned(), file, texts, numbers, tensors: found })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors, sorted bytewise.
    pub(crate) fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// The text that the header has for a key.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.texts.get(key).map(String::as_str)
    }

    /// The number that the header has for a key.
    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        self.numbers.get(key).copied()
    }

    /// An error about one tensor of this file.
    pub(crate) fn tensor_error(&self, tensor: &str, reason: String) -> Error {
        Error::Tensor { path: self.path.clone(), tensor: tensor.to_owned(), reason }
    }

    fn tensor(&self, name: &str) -> Result<&Tensor, Error> {
        self.tensors.get(name).ok_or_else(|| self.tensor_error(name, "is not in the file".into()))
    }

    /// The shape of a tensor, row-major.
    pub(crate) fn shape(&self, tensor: &str) -> Result<&[usize], Error> {
        Ok(&self.tensor(tensor)?.shape)
    }

    fn bytes(&mut self, name: &str) -> Result<Vec<u8>, Error> {
        let &Tensor { start, bytes, .. } = self.tensor(name)?;
        let mut content = vec![0; bytes];
        let failed = |error: std::io::Error| zklora_files::Error::new(&self.path, error);
        self.file.seek(SeekFrom::Start(start)).map_err(failed)?;
        self.file.read_exact(&mut content).map_err(failed)?;
        Ok(content)
    }

    /// Reads a tensor as f32, row-major. Each number of F16, BF16 and Q8_0 is exact in f32.
    pub(crate) fn read_f32(&mut self, name: &str) -> Result<Vec<f32>, Error> {
        let kind = self.tensor(name)?.kind;
        if let Kind::Other(number) = kind {
            let reason = format!(
                "has the type {number} of ggml; only F32, F16, BF16 and Q8_0 are supported: convert it again with --outtype f16"
            );
            return Err(self.tensor_error(name, reason));
        }
        let bytes = self.bytes(name)?;
        let pairs = bytes.as_chunks::<2>().0.iter();
        Ok(match kind {
            Kind::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Kind::F16 => pairs.map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Kind::Bf16 => pairs.map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            _ => bytes
                .as_chunks::<{ BLOCK + 2 }>()
                .0
                .iter()
                .flat_map(|block| {
                    let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                    block[2..].iter().map(move |q| f32::from(q.cast_signed()) * scale)
                })
                .collect(),
        })
    }

    /// BLAKE3 of shape and content of a tensor.
    pub(crate) fn digest(&mut self, name: &str) -> Result<blake3::Hash, Error> {
        let mut hasher = blake3::Hasher::new();
        let Tensor { shape, kind, .. } = self.tensor(name)?;
        hasher.update(format!("{kind:?} {shape:?}\n").as_bytes());
        hasher.update(&self.bytes(name)?);
        Ok(hasher.finalize())
    }
}

/// The entry of a tensor.
fn tensor(header: &mut Header, name: &str) -> Result<Tensor, Error> {
    let count = header.u32()?;
    if count > MAX_DIMS {
        return Err(header.malformed(format!("the tensor {name} has {count} dimensions")));
    }
    let mut shape = Vec::new();
    for _ in 0..count {
        shape.push(header.u64()?);
    }
    shape.reverse();
    let (number, start) = (header.u32()?, header.u64()?);
    let (kind, block, size) = match number {
        0 => (Kind::F32, 1, 4),
        1 => (Kind::F16, 1, 2),
        30 => (Kind::Bf16, 1, 2),
        8 => (Kind::Q8, BLOCK as u64, BLOCK as u64 + 2),
        // Its size is not known; it is refused when it is read.
        other => (Kind::Other(other), 1, 0),
    };
    let elements = shape.iter().try_fold(1u64, |all, &dim| all.checked_mul(dim));
    let too_large = || header.malformed(format!("the tensor {name} is too large"));
    let elements = elements.ok_or_else(too_large)?;
    if !elements.is_multiple_of(block) {
        return Err(header.malformed(format!("the tensor {name} has no whole number of blocks")));
    }
    let bytes = (elements / block).checked_mul(size).and_then(|bytes| usize::try_from(bytes).ok());
    let bytes = bytes.ok_or_else(too_large)?;
    let shape: Result<Vec<usize>, _> = shape.into_iter().map(usize::try_from).collect();
    let shape = shape.map_err(|_| too_large())?;
    Ok(Tensor { shape, kind, start, bytes })
}
