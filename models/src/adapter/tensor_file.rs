//! Opens a safetensors file, checks its header, and reads it one tensor at a time.
//!
//! The `safetensors` crate checks that shapes, types and offsets agree. This file adds a limit on
//! the header before it is read, a check of the file's length, and a check for duplicate names, of
//! which the crate silently takes one. Must not know which tensors belong together.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};

use crate::{Error, adapter::strict_json::StrictJson};

/// Longest header that is read, in bytes: about 200,000 tensors.
const MAX_HEADER: u64 = 32 << 20;

/// Bytes before the header, which hold its length, little-endian.
const LENGTH_PREFIX: u64 = 8;

/// Bytes held in memory at a time by [`TensorFile::stream`].
const CHUNK: usize = 1 << 20;

/// A safetensors file whose header is valid and whose length agrees with the header.
pub(crate) struct TensorFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Offset of the first tensor in the file, in bytes.
    data_start: u64,
}

impl TensorFile {
    /// Opens a file of at most `limit` bytes and checks its header.
    pub(crate) fn open(path: &Path, limit: u64) -> Result<TensorFile, Error> {
        let malformed = |reason: String| Error::Safetensors { path: path.to_owned(), reason };
        let (mut file, bytes) = zklora_files::open(path, limit)?;
        let mut prefix = [0; LENGTH_PREFIX as usize];
        if bytes < LENGTH_PREFIX {
            return Err(malformed(format!("its {bytes} bytes are too short for a header")));
        }
        read_exact(&mut file, &mut prefix, path)?;
        let header_bytes = u64::from_le_bytes(prefix);
        if header_bytes > bytes - LENGTH_PREFIX {
            return Err(malformed(format!(
                "its header claims {header_bytes} bytes in a file of {bytes}: the file is cut short, or of another format"
            )));
        }
        if header_bytes > MAX_HEADER {
            return Err(malformed(format!(
                "its header has {header_bytes} bytes, over the limit of {MAX_HEADER}"
            )));
        }
        let mut header = vec![0; in_memory(header_bytes, path)?];
        read_exact(&mut file, &mut header, path)?;
        // Parsed twice: once to find duplicate keys, once as metadata.
        StrictJson::parse(&header).map_err(&malformed)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| malformed(error.to_string()))?;
        let data_start = LENGTH_PREFIX + header_bytes;
        let expected = (metadata.data_len() as u64).checked_add(data_start);
        if expected != Some(bytes) {
            return Err(malformed(format!(
                "its tensors take {} bytes where the file has {}",
                metadata.data_len(),
                bytes - data_start
            )));
        }
        Ok(TensorFile { path: path.to_owned(), file, metadata, data_start })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors, sorted bytewise.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = self.metadata.offset_keys();
        names.sort_unstable();
        names
    }

    /// The text that the header has for a key, beside the tensors.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// Type and shape of a tensor.
    pub(crate) fn info(&self, tensor: &str) -> Result<&TensorInfo, Error> {
        self.metadata
            .info(tensor)
            .ok_or_else(|| self.tensor_error(tensor, "is not in the file".into()))
    }

    /// An error about one tensor of this file.
    pub(crate) fn tensor_error(&self, tensor: &str, reason: String) -> Error {
        Error::Tensor { path: self.path.clone(), tensor: tensor.to_owned(), reason }
    }

    /// Reads a tensor of f32, f16, bf16, f8 or f64 as f32, row-major, without rounding: an f64
    /// tensor is read only if every value is exact in f32. NaN and infinities are accepted.
    pub(crate) fn read_f32(&mut self, tensor: &str) -> Result<Vec<f32>, Error> {
        let info = self.info(tensor)?;
        let dtype = info.dtype;
        let widen: fn(&[u8]) -> Option<f32> = match dtype {
            Dtype::F32 => |b| Some(f32::from_le_bytes(b.try_into().ok()?)),
            Dtype::F16 => |b| Some(f16::from_le_bytes(b.try_into().ok()?).to_f32()),
            Dtype::BF16 => |b| Some(bf16::from_le_bytes(b.try_into().ok()?).to_f32()),
            Dtype::F8_E4M3 => |b| Some(e4m3(*b.first()?)),
            // The upper half of an f16.
            Dtype::F8_E5M2 => |b| Some(f16::from_bits(u16::from(*b.first()?) << 8).to_f32()),
            Dtype::F64 => |b| narrow_exactly(f64::from_le_bytes(b.try_into().ok()?)),
            other => {
                return Err(self.tensor_error(
                    tensor,
                    format!("is of type {other}; only F32, F16, BF16, F64, F8_E4M3 and F8_E5M2 weights are supported, convert it to F32"),
                ));
            }
        };
        let mut values = Vec::with_capacity(info.shape.iter().product());
        let mut rounded = None;
        let width = dtype.bitsize() / 8;
        // CHUNK is a multiple of every width above, so no value is split between two chunks.
        self.stream(tensor, |chunk| {
            for bytes in chunk.chunks_exact(width) {
                match widen(bytes) {
                    Some(value) => values.push(value),
                    None => {
                        rounded.get_or_insert(values.len());
                        values.push(0.0);
                    }
                }
            }
        })?;
        match rounded {
            None => Ok(values),
            Some(position) => Err(self.tensor_error(
                tensor,
                format!(
                    "holds an F64 value at position {position} that is not exact in F32; convert the adapter to F32 first, \
                     and measure the converted one"
                ),
            )),
        }
    }

    /// BLAKE3 of type, shape and content of a tensor.
    pub(crate) fn digest(&mut self, tensor: &str) -> Result<blake3::Hash, Error> {
        let info = self.info(tensor)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{} {:?}\n", info.dtype, info.shape).as_bytes());
        self.stream(tensor, |bytes| {
            hasher.update(bytes);
        })?;
        Ok(hasher.finalize())
    }

    /// Passes the bytes of a tensor to `sink` in order, in pieces of bounded size.
    pub(crate) fn stream(
        &mut self,
        tensor: &str,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let (start, end) = self.info(tensor)?.data_offsets;
        let read_error = |e| zklora_files::Error::new(&self.path, e);
        self.file.seek(SeekFrom::Start(self.data_start + start as u64)).map_err(read_error)?;
        let mut left = end - start;
        let mut chunk = vec![0; left.min(CHUNK)];
        while left > 0 {
            let taken = left.min(CHUNK);
            read_exact(&mut self.file, &mut chunk[..taken], &self.path)?;
            sink(&chunk[..taken]);
            left -= taken;
        }
        Ok(())
    }
}

/// A number of 8 bits with 4 of the exponent (bias 7) and 3 of the mantissa, without infinities
/// (torch's float8_e4m3fn).
fn e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let size = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    if bits & 0x80 == 0 { size } else { -size }
}

/// `value` as f32, if that is exact. NaN and infinities count as exact; they are refused later, by
/// name.
fn narrow_exactly(value: f64) -> Option<f32> {
    let narrow = value as f32;
    (value.is_nan() || f64::from(narrow) == value).then_some(narrow)
}

fn read_exact(file: &mut File, buffer: &mut [u8], path: &Path) -> Result<(), Error> {
    Ok(file.read_exact(buffer).map_err(|e| zklora_files::Error::new(path, e))?)
}

fn in_memory(bytes: u64, path: &Path) -> Result<usize, Error> {
    usize::try_from(bytes).map_err(|_| {
        let why = format!("{bytes} bytes are more than this machine can address");
        zklora_files::Error::new(path, why).into()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn write(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        std::fs::write(&path, content).unwrap();
        (dir, path)
    }

    fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(data);
        file
    }

    #[test]
    fn a_tensor_that_comes_twice_is_refused_even_with_the_same_bytes() {
        let header = r#"{"t":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},
                         "t":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}"#;
        let (_dir, path) = write(&with_header(header, &[0; 8]));
        let error = TensorFile::open(&path, u64::MAX).err().unwrap().to_string();
        assert!(error.contains("`t` comes twice"), "{error}");
    }

    #[test]
    fn a_header_that_claims_more_than_the_file_has_allocates_nothing() {
        for claimed in [9, MAX_HEADER + 1, u64::MAX / 2, u64::MAX] {
            let (_dir, path) = write(&claimed.to_le_bytes());
            let error = TensorFile::open(&path, u64::MAX).err().unwrap();
            assert!(matches!(error, Error::Safetensors { .. }), "{error}");
        }
    }

    #[test]
    fn f64_is_read_only_if_f32_holds_it() {
        let header = r#"{"t":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}}"#;
        let file = |second: f64| {
            with_header(header, &[0.5f64.to_le_bytes(), second.to_le_bytes()].concat())
        };
        let (_dir, path) = write(&file(-3.25));
        assert_eq!(TensorFile::open(&path, 1000).unwrap().read_f32("t").unwrap(), [0.5, -3.25]);
        for lossy in [0.1, 1e300, 1e-300] {
            let (_dir, path) = write(&file(lossy));
            let error =
                TensorFile::open(&path, 1000).unwrap().read_f32("t").unwrap_err().to_string();
            assert!(error.contains("`t`") && error.contains("position 1"), "{error}");
        }
    }

    /// Checked against the tables of the OCP specification of 8-bit floats.
    #[test]
    fn numbers_of_8_bits_are_widened() {
        let (e4m3, e5m2) = ("F8_E4M3", "F8_E5M2");
        for (dtype, bits, expected) in [
            (e4m3, 0x00, 0.0),
            (e4m3, 0x01, 2f32.powi(-9)),
            (e4m3, 0x07, 7.0 * 2f32.powi(-9)),
            (e4m3, 0x08, 2f32.powi(-6)),
            (e4m3, 0x38, 1.0),
            (e4m3, 0xb9, -1.125),
            (e4m3, 0x7e, 448.0),
            (e5m2, 0x01, 2f32.powi(-16)),
            (e5m2, 0x3c, 1.0),
            (e5m2, 0xfb, -57344.0),
            (e5m2, 0x7c, f32::INFINITY),
            (e4m3, 0x7f, f32::NAN),
            (e5m2, 0x7f, f32::NAN),
        ] {
            let header =
                format!(r#"{{"t":{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,1]}}}}"#);
            let (_dir, path) = write(&with_header(&header, &[bits]));
            let values = TensorFile::open(&path, 1000).unwrap().read_f32("t").unwrap();
            let found = values[0];
            assert!(
                found == expected || found.is_nan() && expected.is_nan(),
                "{dtype} {bits:02x}: {found}"
            );
        }
    }

    #[test]
    fn every_f16_and_bf16_is_widened_to_the_same_number() {
        let bits: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for (name, widened) in [
            ("F16", (|b| f16::from_bits(b).to_f64()) as fn(u16) -> f64),
            ("BF16", |b| bf16::from_bits(b).to_f64()),
        ] {
            let header = format!(
                r#"{{"t":{{"dtype":"{name}","shape":[65536],"data_offsets":[0,131072]}}}}"#
            );
            let (_dir, path) = write(&with_header(&header, &bits));
            let values = TensorFile::open(&path, u64::MAX).unwrap().read_f32("t").unwrap();
            for (b, value) in (0..=u16::MAX).zip(values) {
                let expected = widened(b);
                assert!(
                    f64::from(value) == expected || (value.is_nan() && expected.is_nan()),
                    "{name} {b:04x}"
                );
            }
        }
    }
}
