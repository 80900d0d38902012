//! Registered adapters: `compile --registered`, and what every command says of the proof.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use serde_json::Value;

use crate::{
    args, zk,
    zklora::{ADAPTER, Run, copy_folder, fixture, session},
};

const PROOF: &str = "registration.proof";
const YES: &str = "registered: every weight is an integer of 16 bits";

/// A registered adapter with a proven session.
struct Registered {
    folder: tempfile::TempDir,
    compiled: Value,
}

impl Registered {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn id(&self) -> &str {
        self.compiled["adapter_id"].as_str().unwrap()
    }

    /// A copy of the public folder that a test may change.
    fn public(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&self.path("artifacts/public"), copy.path());
        copy
    }

    fn verify(&self, public: &Path, json: &str) -> Run {
        let id = self.id();
        let (trace, proof) = (self.path("trace.safetensors"), self.path("session.pf"));
        let mut all = args![
            "verify",
            "--public",
            public,
            "--trace",
            trace,
            "--proof",
            proof,
            "--adapter-id",
            id
        ]
        .to_vec();
        all.splice(0..0, (!json.is_empty()).then(|| json.into()));
        crate::zklora::zklora(all)
    }
}

fn registered() -> &'static Registered {
    static REGISTERED: OnceLock<Registered> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let out = path("artifacts");
        let onnx = session().path("onnx");
        let compiled = zk!["--json", "compile", onnx, "--out", &out, "--registered"].ok().json();
        let inputs = fixture(ADAPTER).join("activations.safetensors");
        let trace = path("trace.safetensors");
        zk!["trace", "record", "--artifacts", &out, "--inputs", inputs, "--out", &trace].ok();
        let proof = path("session.pf");
        zk!["prove", "--artifacts", &out, "--trace", &trace, "--out", proof].ok();
        Registered { folder, compiled }
    })
}

#[test]
fn a_registered_adapter_has_16_bits_and_verify_says_so() {
    let own = registered();
    for module in own.compiled["modules"].as_array().unwrap() {
        let bits: Vec<u64> =
            module["bits"].as_array().unwrap().iter().map(|bits| bits.as_u64().unwrap()).collect();
        assert!(bits[1] <= 16 && bits[2] <= 16, "{module}");
    }
    assert_eq!(own.compiled["registration"], "made");
    let size = fs::metadata(own.path("artifacts/public").join(PROOF)).unwrap().len();
    assert_eq!(own.compiled["files"]["public/registration.proof"].as_u64(), Some(size));
    assert!(size < 100_000, "{size}");
    let public = own.path("artifacts/public");
    assert!(own.verify(&public, "").ok().stdout.contains(YES));
    assert_eq!(own.verify(&public, "--json").ok().json()["registered"], true);
    let audited = zk![
        "audit",
        "--public",
        &public,
        "--adapter",
        fixture(ADAPTER),
        "--opening",
        own.path("artifacts/private/opening"),
        "--adapter-id",
        own.id()
    ];
    assert!(audited.ok().stdout.contains(YES));

    let without = own.public();
    fs::remove_file(without.path().join(PROOF)).unwrap();
    let run = own.verify(without.path(), "").ok();
    assert!(run.stdout.contains("not registered") && !run.stdout.contains(YES), "{}", run.stdout);
    assert_eq!(own.verify(without.path(), "--json").ok().json()["registered"], false);
}

/// A changed file, and what the error says of it.
fn refused(change: impl FnOnce(Vec<u8>) -> Vec<u8>, why: &str) {
    let public = registered().public();
    let path = public.path().join(PROOF);
    fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
    let run = registered().verify(public.path(), "").refused(1, why);
    let said = &run.stderr;
    assert!(said.contains(&path.display().to_string()), "{said}");
    assert!(said.contains("compile --registered") && said.contains("remove it"), "{said}");
    assert!(!run.stdout.contains(YES) && !run.stdout.contains("ACCEPTED"), "{}", run.stdout);
}

#[test]
fn a_registration_that_is_none_is_refused_by_name() {
    let last = |change: fn(&mut u8)| {
        move |mut bytes: Vec<u8>| {
            change(bytes.last_mut().unwrap());
            bytes
        }
    };
    refused(last(|byte| *byte ^= 1), "no registration of adapter");
    refused(
        |mut bytes| {
            bytes[0] ^= 1;
            bytes
        },
        "header",
    );
    refused(|bytes| bytes[..bytes.len() - 1].to_vec(), "ends 1 bytes early");
    refused(|bytes| [bytes, vec![0]].concat(), "1 bytes too many");
    refused(|_| Vec::new(), "header");
    refused(|bytes| [bytes, vec![0; 1 << 20]].concat(), "at most 1048576 are read");
    // A byte in the middle of halo2's proof.
    refused(
        |mut bytes| {
            let at = bytes.len() - 400;
            bytes[at] ^= 1;
            bytes
        },
        "no registration of adapter",
    );
}

#[test]
fn the_registration_of_another_adapter_is_refused() {
    // The same weights under another seed are another adapter.
    let other = tempfile::tempdir().unwrap();
    let onnx = session().path("onnx");
    zk!["compile", &onnx, "--out", other.path(), "--registered"].ok();
    let bytes = fs::read(other.path().join("public").join(PROOF)).unwrap();
    refused(|_| bytes.clone(), "it does not show that every weight");
    // One whose weights may have more bits, which nothing can register.
    let wide = session().copy_of_artifacts();
    fs::write(wide.path().join("public").join(PROOF), bytes).unwrap();
    let public = wide.path().join("public");
    let (trace, proof) = (session().path("trace.safetensors"), session().path("session.pf"));
    session().verify_with(&public, &trace, &proof, &session().id).refused(1, PROOF);
    // Nor is it served.
    zk!["serve", "--artifacts", wide.path(), "--listen", "127.0.0.1:0"].refused(1, PROOF);
}

/// The bytes of all files of both parts, by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for part in ["public", "private"] {
        for entry in fs::read_dir(folder.join(part)).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{part}/{}", path.file_name().unwrap().to_str().unwrap());
            all.push((name, fs::read(path).unwrap()));
        }
    }
    all.sort();
    all
}

#[test]
fn a_valid_registration_is_kept_and_an_invalid_one_made_again() {
    let out = tempfile::tempdir().unwrap();
    let onnx = session().path("onnx");
    let compile = || zk!["--json", "compile", &onnx, "--out", out.path(), "--registered"].ok();
    assert_eq!(compile().json()["registration"], "made");
    let first = files(out.path());
    assert_eq!(compile().json()["registration"], "kept");
    assert_eq!(files(out.path()), first);
    let locked = || zk!["compile", &onnx, "--out", out.path(), "--registered", "--locked"];
    let of = |run: &Run| {
        let line = run.stdout.lines().find(|line| line.starts_with("public/registration.proof"));
        line.unwrap().split_whitespace().last().unwrap().to_string()
    };
    assert_eq!(of(&locked().ok()), "same");

    let path = out.path().join("public").join(PROOF);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(of(&locked().refused(1, "REFUSED")), "DIFFERENT");
    fs::remove_file(&path).unwrap();
    assert_eq!(of(&locked().refused(1, "REFUSED")), "MISSING");
    fs::write(&path, bytes).unwrap();
    assert_eq!(compile().json()["registration"], "made");
    assert_eq!(of(&locked().ok()), "same");

    // Everything but the proof is what it was.
    let is_other = |(name, _): &(String, Vec<u8>)| !name.ends_with(PROOF);
    let rest = |all: Vec<(String, Vec<u8>)>| all.into_iter().filter(is_other).collect::<Vec<_>>();
    assert_eq!(rest(files(out.path())), rest(first));
}

#[test]
fn without_the_option_nothing_is_registered_and_nothing_changes() {
    let out = tempfile::tempdir().unwrap();
    let onnx = session().path("onnx");
    let seed = session().path("artifacts/private/seed");
    zk!["compile", &onnx, "--out", out.path(), "--seed-file", &seed, "--registered"].ok();
    let path = out.path().join("public").join(PROOF);
    assert!(path.exists());
    // The adapter of the default bit widths is another one, and its folder has no registration. The
    // folder would keep k = 12.
    let run = zk!["compile", &onnx, "--out", out.path(), "--k", "8"].ok();
    assert!(!run.stdout.contains("egistered"), "{}", run.stdout);
    assert!(!path.exists());
    let of_session = files(&session().path("artifacts"));
    let own: Vec<_> = files(out.path());
    for (name, bytes) in &own {
        assert_eq!(Some(bytes), of_session.iter().find(|(of, _)| of == name).map(|(_, b)| b));
    }
    let run = session().verify_proof(&session().path("session.pf")).ok();
    assert!(run.stdout.contains("not registered"), "{}", run.stdout);
}

#[test]
fn ezkl_registers_nothing() {
    let onnx = fixture("onnx/peft_delta_2d_op11/model.onnx");
    let out = tempfile::tempdir().unwrap();
    zk!["compile", onnx, "--out", out.path(), "--backend", "ezkl", "--registered"]
        .refused(2, "--registered works only with the native backend");
}
