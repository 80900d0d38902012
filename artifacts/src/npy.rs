//! Reads arrays of floats in NumPy's `.npy` format (versions 1 to 3, little-endian f4 or f8, C
//! order).
//!
//! Not the crate `npyz` (0.9.1): it allocates as many bytes as a header claims to have (4 GiB for a
//! file of 12 bytes), multiplies the dimensions without a check for overflow, and brings eleven
//! crates, C code among them.

use std::path::Path;

use crate::Error;

/// Reads the shape and the values of a file. Allocates no more than the file has.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<(Vec<usize>, Vec<f32>), Error> {
    let refuse = |why: String| Error::file(path, format!("not a usable .npy file: {why}"));
    let rest = bytes
        .strip_prefix(b"\x93NUMPY")
        .ok_or_else(|| refuse("it does not begin with \\x93NUMPY".into()))?;
    let short = || refuse("its header ends early".into());
    let (version, rest) = rest.split_at_checked(2).ok_or_else(short)?;
    let (length, rest) = match version[0] {
        1 => rest
            .split_at_checked(2)
            .map(|(l, rest)| (usize::from(u16::from_le_bytes([l[0], l[1]])), rest)),
        2 | 3 => rest
            .split_at_checked(4)
            .map(|(l, rest)| (u32::from_le_bytes([l[0], l[1], l[2], l[3]]) as usize, rest)),
        other => return Err(refuse(format!("format version {other}"))),
    }
    .ok_or_else(short)?;
    let (header, data) = rest.split_at_checked(length).ok_or_else(short)?;
    let header =
        std::str::from_utf8(header).map_err(|_| refuse("its header is not text".into()))?;
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
    let count = shape
        .iter()
        .try_fold(1usize, |n, d| n.checked_mul(*d))
        .ok_or_else(|| refuse("its shape overflows".into()))?;
    let descr = value_of(header, "descr").unwrap_or_default();
    let (width, read): (usize, fn(&[u8]) -> f32) =
        match descr.trim_start_matches(['\'', '"']).get(..3) {
            Some("<f4") => (4, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            Some("<f8") => {
                (8, |b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
            }
            _ => {
                return Err(refuse(
                    "only little-endian f4 and f8 are read: save x.astype(numpy.float32)".into(),
                ));
            }
        };
    if count.checked_mul(width) != Some(data.len()) {
        return Err(refuse(format!("{} bytes of data for shape {shape:?}", data.len())));
    }
    Ok((shape, data.chunks_exact(width).map(read).collect()))
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
        assert_eq!(parse(Path::new("x"), &good).unwrap(), (vec![2, 1], vec![1.0, 2.0]));
        for length in 0..good.len() {
            assert!(parse(Path::new("x"), &good[..length]).is_err());
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
            assert!(parse(Path::new("x"), &npy(header, &[0; 8])).is_err(), "{header}");
        }
        // A header of 4 GiB that is not there.
        let mut long = b"\x93NUMPY\x02\x00".to_vec();
        long.extend(u32::MAX.to_le_bytes());
        assert!(parse(Path::new("x"), &long).is_err());
    }
}
