//! Makes sessions by compile, record and prove, once for all tests.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::python::python;
use crate::{
    args, zk,
    zklora::{Run, fixture, zklora},
};

pub const MODULE: &str = "model.layers.0.self_attn.v_proj";

/// Small circuits: tables of 2^8 rows, 10 bits after the point.
pub const SMALL: [&str; 6] = ["--logrows", "11", "--scales", "10,10", "--decomposition", "256,4"];

/// A folder with `onnx`, `artifacts`, `inputs.json`, `trace.safetensors` and `session.pf`.
pub struct Session {
    folder: tempfile::TempDir,
    pub id: String,
    pub python: &'static Path,
}

impl Session {
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Verifies with the pin, and with some of the files replaced.
    pub fn verify(&self, public: &Path, trace: &Path, proofs: &Path, more: &[OsString]) -> Run {
        let arguments = args![
            "--json",
            "verify",
            "--public",
            public,
            "--trace",
            trace,
            "--proof",
            proofs,
            "--backend",
            "ezkl"
        ];
        with_ezkl(self.python, &[&arguments[..], more].concat())
    }

    /// Verifies with the original files, and `--insecure-dev-srs`.
    pub fn verify_proofs(&self, proofs: &Path) -> Run {
        let pin = args!["--adapter-id", self.id, "--insecure-dev-srs"];
        self.verify(&self.path("artifacts/public"), &self.path("trace.safetensors"), proofs, &pin)
    }
}

/// Runs the binary with this Python. EZKL may hang on a circuit that does not fit, so it has a time
/// limit.
pub fn with_ezkl(python: &Path, arguments: &[OsString]) -> Run {
    zklora([arguments, &args!["--ezkl-python", python, "--ezkl-timeout", "300"]].concat())
}

pub fn compile(python: &Path, onnx: &Path, out: &Path, more: &[OsString]) -> Run {
    let arguments =
        args!["--json", "compile", onnx, "--out", out, "--backend", "ezkl", "--insecure-dev-srs"];
    with_ezkl(python, &[&arguments[..], more].concat())
}

pub fn record(python: &Path, artifacts: &Path, inputs: &Path, trace: &Path) -> Run {
    with_ezkl(
        python,
        &args!["trace", "record", "--artifacts", artifacts, "--inputs", inputs, "--out", trace],
    )
}

pub fn prove(python: &Path, artifacts: &Path, trace: &Path, out: &Path) -> Run {
    let arguments = args![
        "prove",
        "--artifacts",
        artifacts,
        "--trace",
        trace,
        "--out",
        out,
        "--insecure-dev-srs"
    ];
    with_ezkl(python, &arguments)
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Exports an adapter of this shape. Its weights are the same at every run; `other` changes them.
pub fn export(shape: &str, folder: &Path, other: bool) -> PathBuf {
    let adapter = folder.join("adapter");
    zklora_bench::ezkl_comparison::synthetic_adapter(shape.parse().unwrap(), &adapter).unwrap();
    if other {
        // The signs of the last weights.
        let weights = adapter.join("adapter_model.safetensors");
        let mut bytes = std::fs::read(&weights).unwrap();
        bytes.iter_mut().rev().step_by(4).take(16).for_each(|top| *top ^= 0x80);
        std::fs::write(&weights, bytes).unwrap();
    }
    let onnx = folder.join("onnx");
    zk!["export", "--adapter", adapter, "--out", onnx].ok();
    onnx
}

/// Writes EZKL's input file with this many rows.
pub fn inputs(features: usize, rows: usize, path: &Path) {
    let values: Vec<f32> =
        (0..features * rows).map(|i| ((i * 37 % 101) as f32 - 50.0) / 40.0).collect();
    std::fs::write(path, serde_json::json!({ "input_data": [values] }).to_string()).unwrap();
}

pub fn session_of(
    python: &'static Path,
    shape: &str,
    features: usize,
    rows: usize,
    visibility: &str,
    other: bool,
) -> Session {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let onnx = export(shape, folder.path(), other);
    let logrows = if visibility == "hashed" { "12" } else { "11" };
    let mut small = SMALL.map(OsString::from);
    small[1] = logrows.into();
    let more = [&args!["--param-visibility", visibility][..], &small].concat();
    let compiled = compile(python, &onnx, &path("artifacts"), &more).ok().json();
    inputs(features, rows, &path("inputs.json"));
    let (artifacts, trace) = (path("artifacts"), path("trace.safetensors"));
    record(python, &artifacts, &path("inputs.json"), &trace).ok();
    prove(python, &artifacts, &trace, &path("session.pf")).ok();
    Session { id: compiled["adapter_id"].as_str().unwrap().to_string(), folder, python }
}

/// A session of two rows of 16×2×16, with weights that are bound by their hash.
pub fn hashed() -> Option<&'static Session> {
    static SESSION: OnceLock<Session> = OnceLock::new();
    let python = python()?;
    Some(SESSION.get_or_init(|| session_of(python, "16x2x16", 16, 2, "hashed", false)))
}

#[test]
fn a_16x2x16_module_goes_through_compile_prove_and_verify() {
    let Some(session) = hashed() else { return };
    let yours = args![
        "--adapter-id",
        session.id,
        "--insecure-dev-srs",
        "--inputs",
        session.path("inputs.json")
    ];
    let [public, trace, proofs] =
        ["artifacts/public", "trace.safetensors", "session.pf"].map(|name| session.path(name));
    let verdict = session.verify(&public, &trace, &proofs, &yours).ok().json();
    assert_eq!(
        (&verdict["accepted"], &verdict["pinned"], &verdict["weights_bound"]),
        (&true.into(), &true.into(), &true.into())
    );
    assert_eq!(verdict["rows"][MODULE], 2);
    // The rows are close to what the float adapter computes: 10 bits after the point.
    let info = zk!["--json", "trace", "info", trace].ok().json();
    assert_eq!(
        (&info["adapter_id"], &info["rows"][MODULE]),
        (&session.id.as_str().into(), &2.into())
    );
}

#[test]
fn a_64x4x64_module_goes_through_compile_prove_and_verify_with_unbound_private_weights() {
    let Some(python) = python() else { return };
    let session = session_of(python, "64x4x64", 64, 1, "private", false);
    let run = session.verify_proofs(&session.path("session.pf")).ok();
    assert!(run.stderr.contains("THE WEIGHTS ARE NOT BOUND"), "{}", run.stderr);
    assert_eq!(run.json()["weights_bound"], false);
}

#[test]
fn commitments_and_keys_bind_weights_and_refuse_others() {
    let Some(python) = python() else { return };
    for (visibility, check) in [("polycommit", "fixed weights"), ("fixed", "EZKL's own")] {
        let [first, other] =
            [false, true].map(|other| session_of(python, "16x2x16", 16, 1, visibility, other));
        assert_eq!(
            first.verify_proofs(&first.path("session.pf")).ok().json()["weights_bound"],
            true
        );
        let trace = super::attacks::relabelled(&other, &first);
        let pin = args!["--adapter-id", first.id, "--insecure-dev-srs"];
        first
            .verify(&first.path("artifacts/public"), &trace, &other.path("session.pf"), &pin)
            .refused(1, check);
    }
}

/// EZKL's private parameters bind nothing: docs/ezkl.md warns of that.
#[test]
fn private_weights_of_another_adapter_pass_and_the_verdict_says_so() {
    let Some(python) = python() else { return };
    let session = session_of(python, "16x2x16", 16, 1, "private", false);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let onnx = export("16x2x16", folder.path(), true);
    let vk = |artifacts: &Path| {
        std::fs::read(artifacts.join("public").join(MODULE).join("vk.key")).unwrap()
    };
    // EZKL lays out the same graph in several ways: about every second attempt gives the pinned
    // key.
    let srs = session.path("artifacts/public/insecure-dev-11.srs");
    let more = [&args!["--srs", srs][..], &SMALL.map(OsString::from)].concat();
    let attempt =
        || compile(python, &onnx, &path("artifacts"), &more).ok().json()["adapter_id"].clone();
    let mut attempts = (0..40).map(|_| attempt());
    let id = attempts.find(|_| vk(&path("artifacts")) == vk(&session.path("artifacts"))).unwrap();
    let (artifacts, trace, proofs) =
        (path("artifacts"), path("trace.safetensors"), path("session.pf"));
    let inputs = session.path("inputs.json");
    record(python, &artifacts, &inputs, &trace).ok();
    prove(python, &artifacts, &trace, &proofs).ok();
    let trace = super::attacks::relabel(&trace, id.as_str().unwrap(), &session.id);
    let pin = args!["--adapter-id", session.id, "--insecure-dev-srs", "--inputs", inputs];
    let run = session.verify(&session.path("artifacts/public"), &trace, &proofs, &pin).ok();
    assert!(
        run.stderr.contains("any delta is what some weights give")
            && run.json()["weights_bound"] == false
    );
}

/// Compiles a file, and records, proves and verifies one row.
fn goes_through(python: &Path, onnx: &Path, folder: &Path) {
    let path = |name: &str| folder.join(name);
    let (artifacts, rows) = (path("artifacts"), path("x.json"));
    compile(python, onnx, &artifacts, &SMALL.map(OsString::from)).ok();
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(artifacts.join("public/manifest.json")).unwrap())
            .unwrap();
    inputs(manifest["modules"][0]["inputs"][0]["dim"].as_u64().unwrap() as usize, 1, &rows);
    let (trace, proofs) = (path("t.safetensors"), path("t.pf"));
    record(python, &artifacts, &rows, &trace).ok();
    prove(python, &artifacts, &trace, &proofs).ok();
    let verify = args![
        "verify",
        "--public",
        artifacts,
        "--trace",
        trace,
        "--proof",
        proofs,
        "--insecure-dev-srs",
        "--inputs",
        rows
    ];
    with_ezkl(python, &verify).ok();
}

#[test]
fn a_graph_with_a_nonlinearity_between_the_factors_goes_through() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let onnx = fixture("onnx-refused/relu_between_named_rows/model.onnx");
    zk!["compile", onnx, "--out", folder.path().join("native")].refused(2, "Relu");
    goes_through(python, &onnx, folder.path());
}

#[test]
fn weights_in_another_file_and_a_named_dimension_go_through_in_a_folder_with_an_unusual_name() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let unusual = folder.path().join("$(true) `a` 'b' \"ç\" %s\n{}");
    goes_through(python, &super::onnx_file::external(&unusual), &unusual);
}

#[test]
fn bench_measures_both_on_one_module_and_writes_a_page() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let html = folder.path().join("page.html");
    let bench = args![
        "--json",
        "bench",
        "--against",
        "ezkl",
        "--module",
        "16x2x16",
        "--ezkl-python",
        python,
        "--html",
        html
    ];
    let result = zklora([&bench[..], &SMALL.map(OsString::from)].concat()).ok().json();
    for side in ["native", "ezkl"] {
        let stages = result[side]["stages"].as_array().unwrap();
        assert_eq!(stages.len(), 6);
        assert!(
            stages.iter().all(|s| s[1]["done"]["seconds"].is_number() || s[1] == "in_next"),
            "{result}"
        );
        assert!(result[side]["accuracy"]["relative_rms"].as_f64().unwrap() < 0.1, "{result}");
        assert!(result[side]["proof_bytes"].as_u64().unwrap() > 100);
    }
    let ratio = |what: &str| result["ratios"].as_array().unwrap().iter().any(|r| r["what"] == what);
    assert!(
        ratio("prove, wall time") && ratio("proofs, bytes") && ratio("peak memory"),
        "{result}"
    );
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(
        page.contains("EZKL 23.0.5")
            && page.contains("<svg")
            && !page.contains("<script")
            && !page.contains("http:")
    );
}
