//! Writes an ONNX file with a named dimension and external weights, field by field, because no
//! exporter is available here.

use std::path::{Path, PathBuf};

/// A length-delimited field of a protobuf message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 127 {
        out.push(length as u8 | 128);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(bytes);
    out
}

/// A field that is a small number.
fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

/// The weight `name`, with its shape and its offset in `part/weights.bin`.
fn weight(name: &str, rows: u8, columns: u8, offset: u8) -> Vec<u8> {
    let length = 4 * u32::from(rows) * u32::from(columns);
    let entry = |key: &str, value: String| {
        field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat())
    };
    [
        [number(1, rows), number(1, columns), number(2, 1), field(8, name.as_bytes())].concat(),
        [entry("location", "part/weights.bin".into()), entry("offset", offset.to_string())]
            .concat(),
        [entry("length", length.to_string()), number(14, 1)].concat(),
    ]
    .concat()
}

/// Floats of a named number of rows and of 16 columns.
fn value(name: &str) -> Vec<u8> {
    let shape = [field(1, &field(2, b"tokens")), field(1, &number(1, 16))].concat();
    let tensor = field(1, &[number(1, 1), field(2, &shape)].concat());
    [field(1, name.as_bytes()), field(2, &tensor)].concat()
}

fn product(left: &str, right: &str, output: &str) -> Vec<u8> {
    let names =
        [field(1, left.as_bytes()), field(1, right.as_bytes()), field(2, output.as_bytes())]
            .concat();
    [names, field(4, b"MatMul")].concat()
}

/// Writes `x · A · B` with A of 16×2 and B of 2×16 into a folder; returns the file.
pub fn external(folder: &Path) -> PathBuf {
    std::fs::create_dir_all(folder.join("part")).unwrap();
    let weights: Vec<u8> =
        (0..64).flat_map(|i| ((i * 29 % 31) as f32 / 31.0 - 0.5).to_le_bytes()).collect();
    std::fs::write(folder.join("part/weights.bin"), weights).unwrap();
    let graph = [
        [
            field(1, &product("x", "a", "h")),
            field(1, &product("h", "b", "delta")),
            field(2, b"lora"),
        ]
        .concat(),
        [field(5, &weight("a", 16, 2, 0)), field(5, &weight("b", 2, 16, 128))].concat(),
        [field(11, &value("x")), field(12, &value("delta"))].concat(),
    ]
    .concat();
    let path = folder.join("external.onnx");
    std::fs::write(&path, [number(1, 8), field(7, &graph), field(8, &number(2, 17))].concat())
        .unwrap();
    path
}
