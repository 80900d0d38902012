//! The files of `compile`: reproducible, with private files private, and written atomically.

use std::fs;

use crate::{
    args, zk,
    zklora::{ADAPTER, fixture, session, zklora_with},
};

fn compile(out: &std::path::Path, seed: Option<&std::path::Path>) -> String {
    let onnx = session().path("onnx");
    let json = match seed {
        Some(seed) => zk!["--json", "compile", onnx, "--out", out, "--seed-file", seed],
        None => zk!["--json", "compile", onnx, "--out", out],
    };
    json.ok().json()["adapter_id"].as_str().unwrap().to_string()
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let folders =
        [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let seed = session().path("artifacts/private/seed");
    let same = compile(folders[0].path(), Some(&seed));
    assert_eq!(same, session().id);
    for name in [
        "public/manifest.json",
        "public/settings.json",
        "public/circuit.vk",
        "public/zklora.lock",
        "private/weights.bin",
        "private/opening",
    ] {
        assert_eq!(
            fs::read(folders[0].path().join(name)).unwrap(),
            fs::read(session().path("artifacts").join(name)).unwrap(),
            "{name}"
        );
    }
    let first = compile(folders[1].path(), None);
    assert_eq!(first, compile(folders[1].path(), None), "a folder keeps its seed");
    assert_ne!(first, same);
    fs::write(folders[2].path().join("seed"), "00".repeat(32)).unwrap();
    zk![
        "compile",
        session().path("onnx"),
        "--out",
        folders[2].path(),
        "--seed-file",
        folders[2].path().join("seed")
    ]
    .refused(2, "not drawn at random");
}

#[cfg(unix)]
#[test]
fn private_files_let_only_their_owner_in_and_no_secret_is_printed() {
    use std::os::unix::fs::PermissionsExt;
    let session = session();
    for name in [
        "artifacts/private/weights.bin",
        "artifacts/private/seed",
        "artifacts/private/opening",
        "artifacts/private/served.jsonl",
        "trace.safetensors",
    ] {
        let mode = fs::metadata(session.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let seed = fs::read_to_string(session.path("artifacts/private/seed")).unwrap();
    let opening: serde_json::Value =
        serde_json::from_slice(&fs::read(session.path("artifacts/private/opening")).unwrap())
            .unwrap();
    let copy = session.copy_of_artifacts();
    let runs = [
        zk!["compile", session.path("onnx"), "--out", copy.path()],
        zk![
            "--json",
            "prove",
            "--artifacts",
            session.path("artifacts"),
            "--trace",
            session.path("trace.safetensors"),
            "--out",
            copy.path().join("p.pf")
        ],
        zk![
            "audit",
            "--public",
            session.path("artifacts"),
            "--adapter",
            fixture(ADAPTER),
            "--opening",
            session.path("artifacts/private/opening")
        ],
    ];
    for run in runs {
        let run = run.ok();
        for secret in [seed.trim(), opening["mask_key"].as_str().unwrap()] {
            assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret));
        }
    }
}

#[test]
fn a_lock_confirms_no_guess_of_the_weights() {
    let lock = fs::read_to_string(session().path("artifacts/public/zklora.lock")).unwrap();
    for private in ["artifacts/private/weights.bin", "onnx/model.layers.0.self_attn.q_proj.onnx"] {
        let bytes = fs::read(session().path(private)).unwrap();
        assert!(!lock.contains(blake3::hash(&bytes).to_hex().as_str()), "{private}");
    }
}

#[test]
fn public_files_that_were_changed_are_refused() {
    let session = session();
    for (name, why) in
        [("settings.json", "not the settings"), ("circuit.vk", "not the verifying key")]
    {
        let copy = session.copy_of_artifacts();
        let path = copy.path().join("public").join(name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        session
            .verify_with(
                copy.path(),
                &session.path("trace.safetensors"),
                &session.path("session.pf"),
                &session.id,
            )
            .refused(2, why);
    }
}

#[test]
fn a_failed_compile_leaves_what_was_there() {
    let copy = session().copy_of_artifacts();
    zk!["compile", fixture("onnx-refused/relu_between_op17/model.onnx"), "--out", copy.path()]
        .refused(2, "Relu");
    for name in ["public/manifest.json", "private/weights.bin", "private/seed"] {
        assert_eq!(
            fs::read(copy.path().join(name)).unwrap(),
            fs::read(session().path("artifacts").join(name)).unwrap(),
            "{name}"
        );
    }
    assert_eq!(fs::read_dir(copy.path().join("public")).unwrap().count(), 4, "no temporary files");
}

#[test]
fn calibration_measures_every_module_it_has_activations_for_and_stays_reproducible() {
    let out = tempfile::tempdir().unwrap();
    let activations = fixture(ADAPTER).join("activations.safetensors");
    let run =
        zk!["compile", session().path("onnx"), "--out", out.path(), "--calibrate", activations]
            .ok();
    assert!(
        run.stdout.contains("RMS error") && !run.stdout.contains("not measured"),
        "{}",
        run.stdout
    );
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(out.path().join("private/calibration.json")).unwrap())
            .unwrap();
    for (module, entry) in report["modules"].as_object().unwrap() {
        assert!(entry[1]["relative_rms"].as_f64().unwrap() < 1e-4, "{module}: {entry}");
    }
    zk![
        "compile",
        session().path("onnx"),
        "--out",
        out.path(),
        "--calibrate",
        activations,
        "--locked"
    ]
    .ok();
    zk!["compile", session().path("onnx"), "--out", out.path(), "--locked"]
        .refused(1, "(calibration activations");
}

#[test]
fn a_plan_says_what_will_happen_and_writes_nothing() {
    let out = tempfile::tempdir().unwrap();
    let plan =
        zk!["--json", "compile", session().path("onnx"), "--out", out.path().join("a"), "--plan"]
            .ok()
            .json();
    assert!(!out.path().join("a").exists());
    let size = |name: &str| fs::metadata(session().path(name)).unwrap().len();
    assert_eq!(plan["manifest_bytes"].as_u64().unwrap(), size("artifacts/public/manifest.json"));
    assert_eq!(plan["proof_bytes"].as_u64().unwrap(), size("session.pf"));
    let settings: serde_json::Value = serde_json::from_slice(
        &fs::read(session().path("artifacts/public/settings.json")).unwrap(),
    )
    .unwrap();
    assert_eq!(plan["layout"], settings["layout"]);
}

#[test]
fn explain_names_every_node_and_the_terms_and_a_revealing_graph_is_warned_of() {
    let out = tempfile::tempdir().unwrap();
    let onnx = fixture("onnx/flat1d_sums_64x4x192_op11/model.onnx");
    let run = zk!["compile", onnx, "--out", out.path().join("a"), "--explain"].ok();
    for part in ["/MatMul_1", "ReduceMean", "bias [1536]", "Export the delta alone"] {
        assert!(run.stdout.contains(part), "{part}: {}", run.stdout);
    }
    assert!(!out.path().join("a").exists());
    let run = zk!["compile", onnx, "--out", out.path().join("a")].ok();
    assert!(
        run.stderr.contains("learns that sum") && run.stderr.contains("zklora export"),
        "{}",
        run.stderr
    );
}

#[test]
fn points_that_were_kept_and_changed_are_not_used_and_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // Enough commitments to be worth keeping.
    zk!["run", "--adapter", fixture("adapters/smollm2-r4-qv"), "--rows", "1", "--out", path("run")]
        .ok();
    let (public, trace, proof) =
        (path("run/public"), path("run/trace.safetensors"), path("run/session.pf"));
    let cache = path("cache");
    let run = |more: &[&str]| {
        let mut args =
            args!["--json", "verify", "--public", public, "--trace", trace, "--proof", proof]
                .to_vec();
        args.extend(more.iter().map(Into::into));
        zklora_with(&[("ZKLORA_CACHE_DIR", &cache)], args).ok().json()["adapter_id"]
            .as_str()
            .unwrap()
            .to_string()
    };
    // A manifest that is not pinned does not fill the cache.
    let id = run(&[]);
    assert!(!cache.exists());
    let verify = || run(&["--adapter-id", &id]);
    let kept = cache.join(format!("{}.points", verify()));
    let good = fs::read(&kept).unwrap();
    for change in [100, good.len() - 1] {
        let mut bad = good.clone();
        bad[change] ^= 1;
        fs::write(&kept, &bad).unwrap();
        verify();
        assert!(fs::read(&kept).unwrap() == good, "byte {change}");
    }
    fs::write(&kept, b"").unwrap();
    verify();
    assert!(fs::read(&kept).unwrap() == good);
}
