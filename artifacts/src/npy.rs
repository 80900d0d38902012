//! Reads arrays of floats in NumPy's `.npy` format (versions 1 to 3, little-endian f4 or f8, C
//! order).
//!
//! Not the crate `npyz` (0.9.1): it allocates as many bytes as a header claims to have (4 GiB for a
//! file of 12 bytes), multiplies the dimensions without a check for overflow, and brings eleven
//! crates, C code among them.

use std::{io::Read, path::Path};

use crate::{Error, float_type::FloatType};

/// Longest header that is read, in bytes. NumPy writes some hundred.
const MAX_HEADER: usize = 1 << 20;

/// What a header says of the values, which follow it.
#[derive(Debug, PartialEq)]
pub(crate) struct Array {
    /// Where they begin.
    pub at: u64,
    pub values: usize,
    pub float: FloatType,
}

/// Reads the header of a file of `length` bytes, and checks that the values are all that follows.
pub(crate) fn read_header(path: &Path, file: &mut impl Read, length: u64) -> Result<Array, Error> {
    let refuse = |why: String| Error::file(path, format!("not a usable .npy file: {why}"));
    let short = |_| refuse("its header ends early".into());
    let mut start = [0u8; 8];
    file.read_exact(&mut start).map_err(short)?;
    if start[..6] != *b"\x93NUMPY" {
        return Err(refuse("it does not begin with \\x93NUMPY".into()));
    }
    let (mut two, mut four) = ([0u8; 2], [0u8; 4]);
    let (header_length, before) = match start[6] {
        1 => {
            file.read_exact(&mut two).map_err(short)?;
            (usize::from(u16::from_le_bytes(two)), 10)
        }
        2 | 3 => {
            file.read_exact(&mut four).map_err(short)?;
            (u32::from_le_bytes(four) as usize, 12)
        }
        other => return Err(refuse(format!("format version {other}"))),
    };
    if header_length > MAX_HEADER {
        return Err(refuse(format!(
            "its header has {header_length} bytes, at most {MAX_HEADER} are read"
        )));
    }
    let mut header = vec![0u8; header_length];
    file.read_exact(&mut header).map_err(short)?;
    let header =
        std::str::from_utf8(&header).map_err(|_| refuse("its header is not text".into()))?;
    if value_of(header, "fortran_order").is_none_or(|v| !v.starts_with("False")) {
        return Err(refuse("only C order is read: save numpy.ascontiguousarray(x)".into()));
    }
    let shape_text = value_of(header, "shape")
        .and_then(|v| v.strip_prefix('(')?.split_once(')'))
        .map(|(s, _)| s);
    let shape = shape_text
        .ok_or_else(|| refuse("it has no shape".into()))?
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| {
            item.parse::<usize>().map_err(|_| refuse(format!("`{item}` is not a dimension")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let values = shape
        .iter()
        .try_fold(1usize, |n, d| n.checked_mul(*d))
        .ok_or_else(|| refuse("its shape overflows".into()))?;
    let descr = value_of(header, "descr").unwrap_or_default();
    let float = match descr.trim_start_matches(['\'', '"']).get(..3) {
        Some("<f4") => FloatType::F32,
        Some("<f8") => FloatType::F64,
        _ => {
            return Err(refuse(
                "only little-endian f4 and f8 are read: save x.astype(numpy.float32)".into(),
            ));
        }
    };
    let at = (before + header_length) as u64;
    let data = length.saturating_sub(at);
    if values.checked_mul(float.width()).map(|bytes| bytes as u64) != Some(data) {
        return Err(refuse(format!("{data} bytes of data for shape {shape:?}")));
    }
    Ok(Array { at, values, float })
}

/// What follows `'key':` in the header's Python dictionary.
fn value_of<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(&format!("'{key}'"))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(mut file: &[u8]) -> Result<Array, Error> {
        let length = file.len() as u64;
        read_header(Path::new("x"), &mut file, length)
    }

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((header.len() as u16).to_le_bytes());
        out.extend(header.as_bytes());
        out.extend(data);
        out
    }

    #[test]
    fn an_array_is_read_and_hostile_files_are_refused_without_a_panic() {
        let good = npy(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }\n",
            &[0, 0, 128, 63, 0, 0, 0, 64],
        );
        let at = good.len() as u64 - 8;
        assert_eq!(parse(&good).unwrap(), Array { at, values: 2, float: FloatType::F32 });
        for length in 0..good.len() {
            assert!(parse(&good[..length]).is_err());
        }
        for header in [
            "{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }",
            "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551615, 4), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808, 2), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }",
            "{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }",
            "{'descr': '>f8', 'fortran_order': False, 'shape': (1,), }",
            "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
            "{'descr': '<f4', 'fortran_order': False, }",
        ] {
            assert!(parse(&npy(header, &[0; 8])).is_err(), "{header}");
        }
        // A header of 4 GiB that is not there.
        let mut long = b"\x93NUMPY\x02\x00".to_vec();
        long.extend(u32::MAX.to_le_bytes());
        assert!(parse(&long).is_err());
    }
}
