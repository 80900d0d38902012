//! Changed files: refused with an error, never a panic, never an allocation by a
//! length in the file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use proptest::prelude::*;
use zklora_artifacts::{
    activations::Activations,
    folder::{Artifacts, Public},
    own_session::OwnSession,
    secret_files,
    session_rows::SessionRows,
    srs_file,
    trace_reader::TraceReader,
    verify, weights_file,
};
use zklora_proof::{
    keys::KeyStore, row_source::RowSource, srs::Srs, trace::Trace, verifier::SrsPolicy,
};
use zklora_runtime::compile;
use zklora_session::{Error, prove, record};

struct Contributor {
    folder: tempfile::TempDir,
    srs: Srs,
    keys: KeyStore,
    trace: SessionRows,
}

impl Contributor {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn onnx() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/onnx/peft_delta_lora_bias_3d_op17")
}

/// A compiled adapter with a bias, and one session of it.
fn contributor() -> &'static Contributor {
    static CONTRIBUTOR: OnceLock<Contributor> = OnceLock::new();
    CONTRIBUTOR.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (srs, keys) = (Srs::insecure_dev(8).unwrap(), KeyStore::default());
        let paths = [onnx().join("model.onnx")];
        let options = compile::Options {
            paths: &paths,
            out: folder.path(),
            seed_file: None,
            calibrate: None,
            k: None,
            registered: false,
        };
        let artifacts = compile::compile(&options, &srs, &keys).unwrap().artifacts;
        let inputs =
            Activations::read(&onnx().join("input.npy"), artifacts.manifest.modules(), None)
                .unwrap();
        let (trace, _) = record::record(&artifacts, &inputs, None, None).unwrap();
        trace.write(&folder.path().join("trace.safetensors"), &artifacts.manifest).unwrap();
        let prove = |rows: &Trace<'_>| prove::prove(&artifacts, rows, &srs, &keys);
        fs::write(
            folder.path().join("session.pf"),
            trace.with_trace(&artifacts.manifest, prove).unwrap(),
        )
        .unwrap();
        Contributor { folder, srs, keys, trace }
    })
}

fn load() -> Artifacts {
    let c = contributor();
    Artifacts::load(c.folder.path(), &c.srs, &c.keys).unwrap()
}

/// A file with `edit` applied, in a folder of its own.
fn edited(name: &str, edit: impl FnOnce(&mut Vec<u8>)) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(contributor().path(name)).unwrap();
    edit(&mut bytes);
    let path = folder.path().join(Path::new(name).file_name().unwrap());
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn what_was_written_reads_back_the_same() {
    let (c, artifacts) = (contributor(), load());
    assert_eq!(
        SessionRows::read(&c.path("trace.safetensors"), &artifacts.manifest).unwrap(),
        c.trace
    );
    let proof = fs::read(c.path("session.pf")).unwrap();
    let verify = |rows: &Trace<'_>| verify(&artifacts, rows, &proof);
    c.trace.with_trace(&artifacts.manifest, verify).unwrap();
    // Held in memory or read in pieces: it is the same session.
    let read = TraceReader::trace(&c.path("trace.safetensors"), &artifacts.manifest).unwrap();
    assert_eq!((read.rows(), *read.context()), (c.trace.rows(), c.trace.session));
    self::verify(&artifacts, &read, &proof).unwrap();
    let proof = prove::prove(&artifacts, &read, &c.srs, &c.keys).unwrap();
    c.trace.with_trace(&artifacts.manifest, |rows| self::verify(&artifacts, rows, &proof)).unwrap();
}

fn verify(artifacts: &Artifacts, rows: &Trace<'_>, proof: &[u8]) -> Result<(), Error> {
    let c = contributor();
    let (expected, policy) = (OwnSession::default(), SrsPolicy::AllowUntrusted);
    verify::verify(&artifacts.manifest, rows, &expected, proof, &c.srs, &c.keys, policy)?;
    Ok(())
}

/// Every size is one that fits, but the sum of the last one's end and the header's does not.
#[test]
fn tensors_that_end_beyond_what_can_be_counted_are_refused() {
    let mut header = serde_json::Map::new();
    let size = (1u64 << 61) - 1;
    for i in 0..8 {
        let place = [i * size, (i + 1) * size];
        header.insert(
            format!("t{i}"),
            serde_json::json!({ "dtype": "U8", "shape": [size], "data_offsets": place }),
        );
    }
    let header = serde_json::Value::Object(header).to_string();
    let (_folder, path) = edited("trace.safetensors", |bytes| {
        *bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    });
    for answer in [
        SessionRows::info(&path).map(|_| ()),
        TraceReader::trace(&path, &load().manifest).map(|_| ()),
    ] {
        assert!(
            matches!(&answer, Err(e) if e.to_string().contains("its header describes")),
            "{answer:?}"
        );
    }
}

#[test]
fn a_file_opened_for_modules_of_other_shapes_is_refused() {
    let (c, manifest) = (contributor(), load().manifest);
    let reader =
        TraceReader::open(&c.path("trace.safetensors"), manifest.id(), manifest.modules()).unwrap();
    let mut other = manifest.modules()[0].clone();
    assert!(reader.check_shape(0, &other).is_ok());
    other.d_out += 1;
    for (m, module) in [(0, &other), (1, &manifest.modules()[0])] {
        assert!(reader.check_shape(m, module).unwrap_err().contains("other shapes"));
    }
    assert_eq!(reader.count(1), 0);
}

#[test]
fn activations_with_another_number_of_inputs_are_not_those_of_the_trace() {
    let (c, manifest) = (contributor(), load().manifest);
    let trace = TraceReader::trace(&c.path("trace.safetensors"), &manifest).unwrap();
    let mut inputs =
        Activations::read(&onnx().join("input.npy"), manifest.modules(), None).unwrap();
    OwnSession { id: None, inputs: Some(&inputs) }.check(&manifest, &trace).unwrap();
    inputs.modules.values_mut().for_each(|parts| parts.push(Vec::new()));
    let answer = OwnSession { id: None, inputs: Some(&inputs) }.check(&manifest, &trace);
    assert!(
        matches!(&answer, Err(e) if e.to_string().contains("its inputs are not")),
        "{answer:?}"
    );
}

/// A file that is read in pieces, and that another process changes after the first reading.
#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let artifacts = load();
    let proof = fs::read(contributor().path("session.pf")).unwrap();
    let original = fs::read(contributor().path("trace.safetensors")).unwrap();
    let (last, short) = (original.len() - 1, original.len() - 8);
    for (change, why) in [(last, "changed while they were read"), (short, "cannot be read")] {
        let (_folder, path) = edited("trace.safetensors", |_| {});
        let trace = TraceReader::trace(&path, &artifacts.manifest).unwrap();
        let mut bytes = original.clone();
        bytes[last] ^= 1;
        bytes.truncate(change + 1);
        fs::write(&path, bytes).unwrap();
        let answer = verify(&artifacts, &trace, &proof);
        assert!(matches!(&answer, Err(e) if e.to_string().contains(why)), "{answer:?}");
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let artifacts = load();
    for name in
        ["trace.safetensors", "private/weights.bin", "private/opening", "public/manifest.json"]
    {
        let length = fs::read(contributor().path(name)).unwrap().len();
        for keep in (0..length).step_by(length / 97 + 1) {
            let (folder, path) = edited(name, |bytes| bytes.truncate(keep));
            assert!(!reads(name, &path, folder.path(), &artifacts), "{name} cut to {keep} bytes");
        }
    }
}

/// Whether the reader of this kind of file accepts it.
fn reads(name: &str, path: &Path, folder: &Path, artifacts: &Artifacts) -> bool {
    let c = contributor();
    match name {
        "trace.safetensors" => {
            let digest = |rows: &Trace<'_>| Ok(rows.digest());
            let in_memory = SessionRows::read(path, &artifacts.manifest)
                .and_then(|t| t.with_trace(&artifacts.manifest, digest));
            let in_pieces = TraceReader::trace(path, &artifacts.manifest).map(|rows| rows.digest());
            assert_eq!(
                in_memory.as_ref().ok(),
                in_pieces.as_ref().ok(),
                "{in_memory:?} {in_pieces:?}"
            );
            in_memory.is_ok()
        }
        "private/weights.bin" => {
            weights_file::parse(path, &fs::read(path).unwrap(), artifacts.manifest.contents())
                .is_ok()
        }
        "private/opening" => secret_files::read_opening(path).is_ok(),
        _ => Public::load(folder, None, &c.srs, &c.keys).is_ok(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A changed byte is refused, or it changed a value that the file alone cannot vouch for: then
    /// the proof does not verify, or the audit says so. In no case does a reader panic.
    #[test]
    fn a_changed_byte_never_panics_and_a_changed_manifest_is_never_accepted(at in any::<prop::sample::Index>(), mask in 1u8.., which in 0usize..4) {
        let artifacts = load();
        let name = ["trace.safetensors", "private/weights.bin", "private/opening", "public/manifest.json"][which];
        let (folder, path) = edited(name, |bytes| { let at = at.index(bytes.len()); bytes[at] ^= mask; });
        let accepted = reads(name, &path, folder.path(), &artifacts);
        if name == "public/manifest.json" && accepted {
            let c = contributor();
            let changed = Public::load(folder.path(), None, &c.srs, &c.keys).unwrap().manifest;
            prop_assert_ne!(changed.id(), artifacts.manifest.id());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = load();
        for name in ["trace.safetensors", "x.npy", "x.json", "x.safetensors", "manifest.json", "opening", "ledger"] {
            let path = folder.path().join(name);
            fs::write(&path, &bytes).unwrap();
            let _ = SessionRows::read(&path, &artifacts.manifest);
            let _ = SessionRows::info(&path);
            let _ = Activations::read(&path, artifacts.manifest.modules(), None);
            let _ = secret_files::read_opening(&path);
            let _ = secret_files::read_seed(&path);
            let _ = srs_file::load(Some(&path));
            let _ = zklora_session::ledger::read(&path);
            let _ = weights_file::parse(&path, &bytes, artifacts.manifest.contents());
            let _ = zklora_proof::checked_manifest::CheckedManifest::parse(&bytes);
        }
    }
}

#[test]
fn a_file_that_is_too_large_or_no_file_is_refused_before_it_is_read() {
    let path = contributor().path("session.pf");
    assert!(zklora_files::read(&path, 10).unwrap_err().to_string().contains("at most 10"));
    assert!(
        zklora_files::read(contributor().folder.path(), 10)
            .unwrap_err()
            .to_string()
            .contains("not a file")
    );
}

#[test]
fn private_and_public_parts_of_different_adapters_do_not_load_together() {
    let c = contributor();
    let other = tempfile::tempdir().unwrap();
    let paths = [onnx().join("model.onnx")];
    let options = compile::Options {
        paths: &paths,
        out: other.path(),
        seed_file: None,
        calibrate: None,
        k: None,
        registered: false,
    };
    compile::compile(&options, &c.srs, &c.keys).unwrap();
    fs::copy(c.path("private/opening"), other.path().join("private/opening")).unwrap();
    let error = Artifacts::load(other.path(), &c.srs, &c.keys).err().unwrap().to_string();
    assert!(error.contains("belongs to another adapter"), "{error}");
}

#[test]
fn activations_that_are_not_numbers_or_do_not_fit_are_refused_by_row() {
    let artifacts = load();
    let module = &artifacts.manifest.modules()[0];
    let row = |x: f32| {
        let mut inputs = vec![0.5; module.inputs[0].dim * 2];
        inputs[module.inputs[0].dim + 1] = x;
        Activations { modules: [(module.name.clone(), vec![inputs])].into(), ignored: vec![] }
    };
    for bad in [f32::NAN, f32::INFINITY] {
        let error = record::record(&artifacts, &row(bad), None, None).err().unwrap().to_string();
        assert!(error.contains(&module.name) && error.contains("row 1"), "{error}");
    }
    record::record(&artifacts, &row(3.0e7), None, None)
        .expect_err("with a bias, the constant 1 must keep an integer");
    record::record(&artifacts, &row(1000.0), None, None).unwrap();
}
