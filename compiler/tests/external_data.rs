//! Tensors in other files are read completely, from the model's folder, or refused.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use tract_onnx::pb;
use zklora_compiler::{ingest, ingest_file, ingest_in};

mod models;
use models::{bytes, plain};

/// The plain model with its weight as external data.
fn with_external_weight(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut model = plain();
    let weight = &mut model.graph.as_mut().unwrap().initializer[0];
    weight.float_data.clear();
    weight.data_location = Some(1);
    let entry = |(key, value): &(&str, &str)| pb::StringStringEntryProto {
        key: (*key).into(),
        value: (*value).into(),
    };
    weight.external_data = entries.iter().map(entry).collect();
    bytes(&model)
}

/// A folder with a file of the weight's 48 bytes after 16 others.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let weight: Vec<u8> = (0..16).map(|i| i as f32).flat_map(f32::to_le_bytes).collect();
    fs::write(folder.path().join("weights.bin"), weight).unwrap();
    folder
}

fn refusal(entries: &[(&str, &str)], folder: &Path) -> String {
    let error =
        ingest_in(&with_external_weight(entries), "m", Some(folder)).unwrap_err().to_string();
    assert!(error.contains("external data of tensor `w`"), "{error}");
    error
}

#[test]
fn a_model_can_be_written_as_one_file() {
    let folder = folder();
    let model =
        with_external_weight(&[("location", "weights.bin"), ("offset", "16"), ("length", "48")]);
    let whole = ingest::embedded(&model, "m", Some(folder.path())).unwrap();
    assert_eq!(
        ingest_in(&whole, "m", None).unwrap().map,
        ingest_in(&model, "m", Some(folder.path())).unwrap().map
    );
    assert_eq!(ingest::embedded(&whole, "m", None).unwrap(), whole);
    assert!(
        ingest::embedded(&model, "m", None)
            .unwrap_err()
            .to_string()
            .contains("external data of tensor `w`")
    );
}

#[test]
fn the_named_part_of_a_file_is_the_weight() {
    let folder = folder();
    let model =
        with_external_weight(&[("location", "weights.bin"), ("offset", "16"), ("length", "48")]);
    let map = ingest_in(&model, "m", Some(folder.path())).unwrap().map;
    assert_eq!(map.apply(&[&[1.0, 0.0, 0.0, 0.0]]).unwrap(), [4.0, 5.0, 6.0]);
    // The length may be left out where the rest of the file is the tensor, and a file may be named
    // with its folder.
    fs::write(
        folder.path().join("m.onnx"),
        with_external_weight(&[("location", "./weights.bin"), ("offset", "16")]),
    )
    .unwrap();
    assert_eq!(ingest_file(&folder.path().join("m.onnx")).unwrap().map, map);
}

#[test]
fn bytes_alone_have_no_files_beside_them() {
    let error =
        ingest(&with_external_weight(&[("location", "weights.bin")]), "m").unwrap_err().to_string();
    assert!(
        error.contains("`w`") && error.contains("only the bytes of the model were given"),
        "{error}"
    );
}

#[test]
fn paths_out_of_the_folder_are_refused() {
    let outer = folder();
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let absolute = outer.path().join("weights.bin").display().to_string();
    for location in [
        "../weights.bin",
        "a/../../weights.bin",
        &absolute,
        "",
        "..\\weights.bin",
        "C:\\weights.bin",
    ] {
        assert!(
            refusal(&[("location", location)], &inner).contains("not a relative path"),
            "{location}"
        );
    }
    assert!(refusal(&[], &inner).contains("names no file"));
    assert!(refusal(&[("location", "none.bin")], &inner).contains("cannot be found"));
    assert!(refusal(&[("location", ".")], &inner).contains("not a file"));
}

#[cfg(unix)]
#[test]
fn links_out_of_the_folder_and_special_files_are_refused() {
    let outer = folder();
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).unwrap();
    std::os::unix::fs::symlink(outer.path().join("weights.bin"), inner.join("link.bin")).unwrap();
    std::os::unix::fs::symlink(outer.path(), inner.join("up")).unwrap();
    for location in ["link.bin", "up/weights.bin"] {
        assert!(refusal(&[("location", location)], &inner).contains("link out of"), "{location}");
    }
    std::os::unix::fs::symlink("/dev/zero", inner.join("zero")).unwrap();
    assert!(refusal(&[("location", "zero")], &inner).contains("link out of"));
    let _listener = std::os::unix::net::UnixListener::bind(inner.join("socket")).unwrap();
    assert!(refusal(&[("location", "socket")], &inner).contains("not a file"));
}

#[test]
fn ranges_that_do_not_fit_are_refused() {
    let folder = folder();
    let at = |offset: &str, length: &str| {
        refusal(
            &[("location", "weights.bin"), ("offset", offset), ("length", length)],
            folder.path(),
        )
    };
    assert!(at("0", "64").contains("needs 48 bytes, but 64"));
    assert!(at("17", "48").contains("beyond the end"));
    assert!(at("65", "48").contains("only 64 bytes"));
    assert!(at("18446744073709551615", "48").contains("only 64 bytes"));
    assert!(at("-1", "48").contains("not a number"));
    assert!(at("0", "99999999999999999999").contains("not a number"));
    assert!(refusal(&[("location", "weights.bin")], folder.path()).contains("but 64 are stored"));
    let twice = [("location", "weights.bin"), ("location", "weights.bin")];
    assert!(refusal(&twice, folder.path()).contains("location twice"));
}
