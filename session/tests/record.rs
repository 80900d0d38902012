//! A session that is recorded in pieces is the one that is recorded at once, and one that is
//! refused leaves neither rows in the ledger nor a file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    borrow::Cow,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use zklora_artifacts::{
    Error as Artifact,
    activation_file::ActivationFile,
    activation_source::ActivationSource,
    activations::Activations,
    folder::Artifacts,
    own_session::OwnSession,
    synthetic::{self, Synthetic},
    trace_reader::TraceReader,
};
use zklora_proof::{keys::KeyStore, manifest::Module, srs::Srs};
use zklora_runtime::compile;
use zklora_session::record;

const SESSION: [u8; 32] = [7; 32];

fn onnx(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/onnx").join(name).join("model.onnx")
}

/// An adapter of a module with a bias, one of two inputs and one of neither.
fn artifacts() -> (tempfile::TempDir, Artifacts) {
    let folder = tempfile::tempdir().unwrap();
    let copy = |(name, fixture): (&str, &str)| {
        let path = folder.path().join(format!("{name}.onnx"));
        fs::copy(onnx(fixture), &path).unwrap();
        path
    };
    let fixtures = [
        ("bias", "peft_delta_lora_bias_3d_op17"),
        ("plain", "peft_delta_3d_op17"),
        ("two", "base_plus_delta_two_inputs_op17"),
    ];
    let options = compile::Options {
        paths: &fixtures.map(copy),
        out: folder.path(),
        seed_file: None,
        calibrate: None,
        k: None,
        registered: false,
    };
    let srs = Srs::insecure_dev(8).unwrap();
    let artifacts = compile::compile(&options, &srs, &KeyStore::default()).unwrap().artifacts;
    (folder, artifacts)
}

/// The ledger as it was before.
fn forget(artifacts: &Artifacts) {
    fs::remove_file(artifacts.ledger()).unwrap();
}

/// Activations of a source, but for one value.
#[derive(Debug)]
struct Changed<'a> {
    source: &'a dyn ActivationSource,
    module: &'a str,
    row: usize,
    value: f32,
}

impl ActivationSource for Changed<'_> {
    fn rows(&self, module: &Module) -> Result<usize, Artifact> {
        self.source.rows(module)
    }

    fn read(
        &self,
        module: &Module,
        input: usize,
        rows: Range<usize>,
    ) -> Result<Cow<'_, [f32]>, Artifact> {
        let mut values = self.source.read(module, input, rows.clone())?.into_owned();
        if module.name == self.module && rows.contains(&self.row) {
            values[(self.row - rows.start) * module.inputs[input].dim] = self.value;
        }
        Ok(Cow::Owned(values))
    }
}

#[test]
fn a_session_in_pieces_has_the_bytes_of_one_in_memory() {
    let (folder, artifacts) = artifacts();
    let modules = artifacts.manifest.modules();
    assert!(modules.iter().any(Module::has_bias), "{modules:?}");
    let (whole, pieces) = (folder.path().join("whole"), folder.path().join("pieces"));
    // The last is several pieces of each module, and not a whole number of them.
    for rows in [1, 40, 30_011] {
        let all = synthetic::activations(modules, rows);
        let (trace, served) = record::record(&artifacts, &all, Some(SESSION), None).unwrap();
        trace.write(&whole, &artifacts.manifest).unwrap();
        let ledger = fs::read(artifacts.ledger()).unwrap();
        let (synthetic, all): (&dyn ActivationSource, &dyn ActivationSource) =
            (&Synthetic { rows }, &all);
        for source in [synthetic, all] {
            forget(&artifacts);
            let recorded =
                record::record_to(&artifacts, source, Some(SESSION), None, &pieces).unwrap();
            assert!(fs::read(&whole).unwrap() == fs::read(&pieces).unwrap(), "{rows} rows");
            assert_eq!(fs::read(artifacts.ledger()).unwrap(), ledger);
            assert_eq!((recorded.served, recorded.session), (served.clone(), SESSION));
            assert_eq!(recorded.counts, vec![rows; modules.len()]);
        }
        forget(&artifacts);
    }
}

#[test]
fn a_refused_session_leaves_neither_rows_nor_a_file() {
    let (folder, artifacts) = artifacts();
    let (rows, row) = (30_011, 29_990);
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    let trace = out.join("trace.safetensors");
    let (source, name) = (Synthetic { rows }, &artifacts.manifest.modules()[1].name);
    let bad = Changed { source: &source, module: name, row, value: f32::NAN };
    let error = record::record_to(&artifacts, &bad, None, None, &trace).unwrap_err().to_string();
    assert!(error.contains(name) && error.contains("row 29990 "), "{error}");
    let error = record::record_to(&artifacts, &source, None, Some(30_010), &trace).unwrap_err();
    assert!(error.to_string().contains("the limit is 30010"), "{error}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    assert!(fs::read(artifacts.ledger()).unwrap_or_default().is_empty());
    record::record_to(&artifacts, &source, None, Some(30_011), &trace).unwrap();
}

#[test]
fn a_trace_of_other_activations_is_refused_by_row() {
    let (folder, artifacts) = artifacts();
    let out = folder.path().join("trace");
    let source = Synthetic { rows: 70_001 };
    record::record_to(&artifacts, &source, Some(SESSION), None, &out).unwrap();
    let trace = TraceReader::trace(&out, &artifacts.manifest).unwrap();
    let check = |inputs: &dyn ActivationSource| {
        let own = OwnSession { id: Some(SESSION), inputs: Some(inputs) };
        own.check(&artifacts.manifest, &trace)
    };
    check(&source).unwrap();
    for module in artifacts.manifest.modules() {
        // The second value is larger than any other of its row: the scale differs, too.
        for (row, value) in [(0, 0.123), (69_999, 1e3), (70_000, 0.123)] {
            let other = Changed { source: &source, module: &module.name, row, value };
            let error = check(&other).unwrap_err();
            let expected = format!("module `{}`, row {row},", module.name);
            assert!(error.to_string().contains(&expected) && error.is_refusal(), "{error}");
        }
    }
    let error = check(&Synthetic { rows: 70_000 }).unwrap_err();
    assert!(error.to_string().contains("has 70001 rows, yours 70000"), "{error}");
}

#[test]
fn every_format_gives_the_same_rows_in_pieces_and_at_once() {
    let (folder, artifacts) = artifacts();
    let modules = artifacts.manifest.modules();
    let module = modules.iter().find(|module| module.inputs.len() == 1).unwrap();
    let (rows, dim) = (50, module.inputs[0].dim);
    // Halves, which every format has exactly.
    let values: Vec<f32> = (0..rows * dim).map(|at| (at % 257) as f32 / 2.0 - 60.0).collect();
    let path = |name: &str| folder.path().join(name);
    let le = |bytes: &dyn Fn(f32) -> Vec<u8>| values.iter().flat_map(|v| bytes(*v)).collect();
    let f32s: Vec<u8> = le(&|v| v.to_le_bytes().to_vec());
    let f64s: Vec<u8> = le(&|v| f64::from(v).to_le_bytes().to_vec());
    let npy = |descr: &str, data: &[u8]| {
        let header =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (5, 10, {dim}), }}\n");
        let start = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..]].concat();
        [&start[..], header.as_bytes(), data].concat()
    };
    fs::write(path("f4.npy"), npy("<f4", &f32s)).unwrap();
    fs::write(path("f8.npy"), npy("<f8", &f64s)).unwrap();
    let json = serde_json::json!({ "output": [[1]], "input_data": [values] });
    fs::write(path("x.json"), json.to_string()).unwrap();
    let name = format!("{}.{}", module.name, module.inputs[0].name);
    let tensor = |dtype, data| {
        let view = safetensors::tensor::TensorView::new(dtype, vec![rows, dim], data).unwrap();
        let other =
            safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![3], &[1, 2, 3])
                .unwrap();
        safetensors::serialize([(name.as_str(), view), ("other", other)], None).unwrap()
    };
    fs::write(path("f32.safetensors"), tensor(safetensors::Dtype::F32, &f32s)).unwrap();
    // The upper half of a float is the same number in bf16, if it fits.
    let bf16s: Vec<u8> = le(&|v| v.to_le_bytes()[2..].to_vec());
    fs::write(path("bf16.safetensors"), tensor(safetensors::Dtype::BF16, &bf16s)).unwrap();
    for file in ["f4.npy", "f8.npy", "x.json", "f32.safetensors", "bf16.safetensors"] {
        let path = path(file);
        let opened = ActivationFile::open(&path, modules, Some(&module.name)).unwrap();
        assert_eq!((opened.rows(module).unwrap(), opened.called()), (rows, 1), "{file}");
        let expected = |range: Range<usize>| values[range.start * dim..range.end * dim].to_vec();
        for range in [0..1, 0..rows, 7..31, rows - 1..rows] {
            let read = opened.read(module, 0, range.clone()).unwrap();
            if file != "bf16.safetensors" {
                assert_eq!(*read, expected(range), "{file}");
            } else {
                let near = read.iter().zip(expected(range)).all(|(a, b)| (a - b).abs() <= 0.5);
                assert!(near, "{file}");
            }
        }
        let at_once = Activations::read(&path, modules, Some(&module.name)).unwrap();
        let parsed = fs::read(&path).unwrap();
        let parsed = Activations::parse(&path, &parsed, modules, Some(&module.name)).unwrap();
        assert_eq!(at_once, parsed, "{file}");
        assert_eq!(at_once.modules[&module.name][0], *opened.read(module, 0, 0..rows).unwrap());
        let ignored: &[&str] = if file.ends_with("safetensors") { &["other"] } else { &[] };
        assert_eq!(at_once.ignored, ignored);
    }
    // A file that shrinks after it was opened.
    let opened = ActivationFile::open(&path("f4.npy"), modules, Some(&module.name)).unwrap();
    fs::write(path("f4.npy"), b"short").unwrap();
    let error = opened.read(module, 0, 0..rows).unwrap_err().to_string();
    assert!(error.contains("f4.npy") && error.contains("cannot be read"), "{error}");
}
