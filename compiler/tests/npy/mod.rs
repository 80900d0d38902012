//! Reads the `.npy` files of the fixtures: little-endian f32, f16, and bf16 stored as u16 bit
//! patterns.

use std::path::Path;

/// All values of the file, in C order.
pub fn read_npy(path: &Path) -> Vec<f64> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(&bytes[..6], b"\x93NUMPY");
    let (start, length) = match bytes[6] {
        1 => (10, usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))),
        _ => (12, u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize),
    };
    let header = String::from_utf8_lossy(&bytes[start..start + length]).into_owned();
    assert!(header.contains("'fortran_order': False"), "{header}");
    let data = &bytes[start + length..];
    let half = |f: fn(u16) -> f64| {
        data.chunks_exact(2).map(|b| f(u16::from_le_bytes([b[0], b[1]]))).collect()
    };
    if header.contains("<f4") {
        data.chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
            .collect()
    } else if header.contains("<f2") {
        half(|bits| half::f16::from_bits(bits).to_f64())
    } else if header.contains("<u2") {
        half(|bits| half::bf16::from_bits(bits).to_f64())
    } else {
        panic!("{}: {header}", path.display())
    }
}
