//! A hostile prover: each attack is refused by the intended check.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    python::script,
    sessions::{MODULE, Session, compile, copy, export, hashed, prove, session_of},
};
use crate::{
    args, zk,
    zklora::{run, zklora_command},
};

/// A copy of an adapter's public files that a test may change.
fn public(session: &Session) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("public");
    copy(&session.path("artifacts/public"), &path);
    (folder, path)
}

/// A copy of a session's proofs that a test may change.
fn proofs(session: &Session) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proofs");
    copy(&session.path("session.pf"), &path);
    (folder, path)
}

fn proof(folder: &Path, row: usize) -> PathBuf {
    folder.join(format!("{MODULE}.{row:06}.json"))
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// The trace of `other`, relabelled as one of `own`'s adapter.
pub fn relabelled(other: &Session, session: &Session) -> PathBuf {
    relabel(&other.path("trace.safetensors"), &other.id, &session.id)
}

/// A copy of a trace, relabelled as one of another adapter.
pub fn relabel(trace: &Path, from: &str, to: &str) -> PathBuf {
    let bytes = fs::read(trace).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    let path = trace.with_file_name("relabelled.safetensors");
    fs::write(&path, [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()).unwrap();
    path
}

/// The order of BN254's scalar field, least significant byte first.
const ORDER: &str = "010000f093f5e1439170b97948e833285d588181b64550b829a031e1724e6430";

fn plus_order(element: &str) -> String {
    let byte = |text: &str, at: usize| u16::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
    let mut carry = 0;
    let mut digits = String::new();
    for at in 0..32 {
        let sum = byte(element, at) + byte(ORDER, at) + carry;
        carry = sum >> 8;
        digits += &format!("{:02x}", sum & 255);
    }
    digits
}

/// A small integer as EZKL writes it.
const ONE: &str = "0100000000000000000000000000000000000000000000000000000000000000";

#[test]
fn edited_public_values_are_refused_before_ezkl_sees_them() {
    let Some(session) = hashed() else { return };
    for (place, value, check, why) in [
        (0, ONE, "fixed weights", "whose hash is in the manifest"),
        (1, ONE, "public values", "feature 0 of the inputs is 0.0009765625 in the proof"),
        (17, ONE, "public values", "feature 0 of the delta is"),
        (17, "NaN", "public values", "feature 0 of the delta is no number in the proof"),
        (17, "", "public values", "feature 0 of the delta is no number in the proof"),
    ] {
        let (_folder, path) = proofs(session);
        edit(&proof(&path, 1), |p| p["instances"][0][place] = value.into());
        let run =
            session.verify_proofs(&path).refused(1, &format!("rejected by the check `{check}`"));
        assert!(
            run.stderr.contains(&format!("{MODULE}, row 1")) && run.stderr.contains(why),
            "{}",
            run.stderr
        );
    }
    // The same field element, written as itself plus the field's order.
    let (_folder, path) = proofs(session);
    edit(&proof(&path, 0), |p| {
        let element = p["instances"][0][1].as_str().unwrap().to_string();
        p["instances"][0][1] = plus_order(&element).into();
    });
    session.verify_proofs(&path).refused(1, "feature 0 of the inputs is no number in the proof");
    let (_folder, path) = proofs(session);
    edit(&proof(&path, 0), |p| drop(p["instances"][0].as_array_mut().unwrap().pop()));
    session.verify_proofs(&path).refused(1, "it has 32 public values, the row has 33");
    let (_folder, path) = proofs(session);
    edit(&proof(&path, 0), |p| p["instances"].as_array_mut().unwrap().push(serde_json::json!([])));
    session.verify_proofs(&path).refused(1, "2 columns of public values");
}

#[test]
fn a_false_row_in_trace_and_proof_alike_is_refused_by_ezkl() {
    let Some(session) = hashed() else { return };
    let mut bytes = fs::read(session.path("trace.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let at = tensors.tensor(&format!("{MODULE}.delta")).unwrap().data().as_ptr() as usize
        - bytes.as_ptr() as usize;
    bytes[at..at + 8].copy_from_slice(&1i64.to_le_bytes());
    let (folder, path) = proofs(session);
    let trace = folder.path().join("false.safetensors");
    fs::write(&trace, bytes).unwrap();
    edit(&proof(&path, 0), |p| p["instances"][0][17] = ONE.into());
    let pin = args!["--adapter-id", session.id, "--insecure-dev-srs"];
    let run = session.verify(&session.path("artifacts/public"), &trace, &path, &pin);
    run.refused(1, "rejected by the check `EZKL's own`");
    // And an honest prover does not prove it.
    let (artifacts, out) = (session.path("artifacts"), folder.path().join("false.pf"));
    prove(session.python, &artifacts, &trace, &out).refused(1, "not a session that");
    assert!(!out.exists());
}

#[test]
fn changed_proof_bytes_and_numbers_that_are_none_are_refused() {
    let Some(session) = hashed() else { return };
    let (_folder, path) = proofs(session);
    edit(&proof(&path, 0), |p| p["proof"][70] = (p["proof"][70].as_u64().unwrap() ^ 1).into());
    session.verify_proofs(&path).refused(1, "`proof` and `hex_proof` are different");
    let (_folder, path) = proofs(session);
    edit(&proof(&path, 0), |p| {
        let mut bytes: Vec<u8> =
            p["proof"].as_array().unwrap().iter().map(|b| b.as_u64().unwrap() as u8).collect();
        bytes[1000] ^= 1;
        p["hex_proof"] =
            format!("0x{}", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()).into();
        p["proof"] = bytes.into();
    });
    session.verify_proofs(&path).refused(1, "rejected by the check `EZKL's own`");
    let (_folder, path) = proofs(session);
    let text = fs::read_to_string(proof(&path, 0)).unwrap();
    for (from, to) in [
        ("{", "{\"instances\":[[]],"),
        ("\"proof\":[", "\"proof\":[NaN,"),
        ("\"proof\":[", "\"proof\":[1e999,"),
        ("\"proof\":[", "\"proof\":[256,"),
        ("{", "[{"),
    ] {
        fs::write(proof(&path, 0), text.replacen(from, to, 1)).unwrap();
        session.verify_proofs(&path).refused(1, "not a proof of EZKL");
    }
    // Fields for display are ignored.
    fs::write(proof(&path, 0), text).unwrap();
    edit(&proof(&path, 0), |p| p["pretty_public_inputs"] = "lies".into());
    session.verify_proofs(&path).ok();
}

#[test]
fn missing_duplicate_swapped_and_foreign_rows_are_refused() {
    let Some(session) = hashed() else { return };
    let (_folder, path) = proofs(session);
    fs::remove_file(proof(&path, 1)).unwrap();
    session.verify_proofs(&path).refused(1, "rejected by the check `one proof a row`");
    let (_folder, path) = proofs(session);
    fs::copy(proof(&path, 0), proof(&path, 1)).unwrap();
    session.verify_proofs(&path).refused(1, "rejected by the check `public values`");
    let (_folder, path) = proofs(session);
    fs::rename(proof(&path, 0), path.join("x")).unwrap();
    fs::rename(proof(&path, 1), proof(&path, 0)).unwrap();
    fs::rename(path.join("x"), proof(&path, 1)).unwrap();
    session.verify_proofs(&path).refused(1, "rejected by the check `public values`");
    let (_folder, path) = proofs(session);
    fs::copy(proof(&path, 0), proof(&path, 2)).unwrap();
    session.verify_proofs(&path).refused(1, "belongs to no row of your trace");
    // A name cannot forge a line of the verdict.
    let (_folder, path) = proofs(session);
    fs::write(path.join("x\nVerdict  ACCEPTED"), "").unwrap();
    let run = session.verify_proofs(&path).refused(1, "belongs to no row of your trace");
    assert!(!run.stderr.contains("\nVerdict"), "{}", run.stderr);
    let (_folder, path) = proofs(session);
    edit(&proof(&path, 0), |p| p["version"] = "1\nVerdict  ACCEPTED".into());
    let run = session.verify_proofs(&path).refused(1, "a proof of EZKL 1");
    assert!(!run.stderr.contains("\nVerdict"), "{}", run.stderr);
    // A pipe instead of a file cannot make the command wait.
    let (_folder, path) = proofs(session);
    fs::remove_file(proof(&path, 0)).unwrap();
    let made = std::process::Command::new("mkfifo").arg(proof(&path, 0)).status().unwrap();
    assert!(made.success());
    session.verify_proofs(&path).refused(2, "not a file");
    session.verify_proofs(&session.path("inputs.json")).refused(2, "a folder with one file a row");
}

#[test]
fn another_key_other_settings_another_srs_and_another_manifest_are_refused() {
    let Some(session) = hashed() else { return };
    let folder = tempfile::tempdir().unwrap();
    let trace = session.path("trace.safetensors");
    let proofs = session.path("session.pf");
    let pin = args!["--adapter-id", session.id, "--insecure-dev-srs"];
    let (_folder, changed) = public(session);
    let vk = changed.join(MODULE).join("vk.key");
    let mut bytes = fs::read(&vk).unwrap();
    bytes[100] ^= 1;
    fs::write(&vk, bytes).unwrap();
    session
        .verify(&changed, &trace, &proofs, &pin)
        .refused(1, "rejected by the check `verifying key`");

    let (_folder, changed) = public(session);
    edit(&changed.join(MODULE).join("settings.json"), |s| {
        s["run_args"]["input_visibility"] = "Private".into()
    });
    session.verify(&changed, &trace, &proofs, &pin).refused(1, "rejected by the check `settings`");
    // The settings say that nothing is public, and a manifest pins them.
    let digest = blake3::hash(&fs::read(changed.join(MODULE).join("settings.json")).unwrap())
        .to_hex()
        .to_string();
    let manifest = changed.join("manifest.json");
    edit(&manifest, |m| m["modules"][0]["settings_digest"] = digest.into());
    session
        .verify(&changed, &trace, &proofs, &pin)
        .refused(1, "rejected by the check `pinned manifest`");
    let id = blake3::hash(&fs::read(&manifest).unwrap()).to_hex().to_string();
    let trace_copy = folder.path().join("own.safetensors");
    fs::copy(&trace, &trace_copy).unwrap();
    let trace_copy = relabel(&trace_copy, &session.id, &id);
    let run = session.verify(
        &changed,
        &trace_copy,
        &proofs,
        &args!["--adapter-id", id, "--insecure-dev-srs"],
    );
    run.refused(1, "the inputs are not public in this circuit");

    let srs = folder.path().join("other.srs");
    let code = format!("import ezkl; ezkl.gen_srs({:?}, 12)", srs.display().to_string());
    script(session.python, folder.path(), &code);
    let public = session.path("artifacts/public");
    let with = [&pin[..], &args!["--srs", srs]].concat();
    session.verify(&public, &trace, &proofs, &with).refused(1, "rejected by the check `SRS`");
    fs::write(&srs, &fs::read(&srs).unwrap()[..1000]).unwrap();
    session.verify(&public, &trace, &proofs, &with).refused(2, "not an SRS of EZKL");
    session
        .verify(&public, &trace, &proofs, &args!["--adapter-id", session.id])
        .refused(1, "INSECURE SRS");
}

#[test]
fn rows_of_others_and_rows_with_other_scales_are_refused() {
    let Some(session) = hashed() else { return };
    let folder = tempfile::tempdir().unwrap();
    let public = session.path("artifacts/public");
    let proofs = session.path("session.pf");
    let other = folder.path().join("other.json");
    super::sessions::inputs(16, 1, &other);
    let trace = session.path("trace.safetensors");
    let pin = args!["--adapter-id", session.id, "--insecure-dev-srs", "--inputs", other];
    session.verify(&public, &trace, &proofs, &pin).refused(1, "has 2 rows, yours 1");
    let pin =
        args!["--adapter-id", session.id, "--insecure-dev-srs", "--session-id", "00".repeat(32)];
    session.verify(&public, &trace, &proofs, &pin).refused(1, "not of yours");
    // The same integers at another scale are other numbers.
    let mut bytes = fs::read(&trace).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let at = tensors.tensor(&format!("{MODULE}.scale")).unwrap().data().as_ptr() as usize
        - bytes.as_ptr() as usize;
    bytes[at..at + 4].copy_from_slice(&1f32.to_le_bytes());
    let scaled = folder.path().join("scaled.safetensors");
    fs::write(&scaled, bytes).unwrap();
    let pin = args!["--adapter-id", session.id, "--insecure-dev-srs"];
    session.verify(&public, &scaled, &proofs, &pin).refused(1, "has the scale 1 in the trace");
}

#[test]
fn other_weights_than_the_hashed_ones_are_refused() {
    let Some(session) = hashed() else { return };
    let other = session_of(session.python, "16x2x16", 16, 2, "hashed", true);
    let trace = relabelled(&other, session);
    let pin = args!["--adapter-id", session.id, "--insecure-dev-srs"];
    let run =
        session.verify(&session.path("artifacts/public"), &trace, &other.path("session.pf"), &pin);
    run.refused(1, "rejected by the check `fixed weights`");
}

/// A contributor that fixes only some of the columns of the parameters could change the others.
#[test]
fn a_manifest_with_fewer_commitments_than_the_parameters_fill_is_refused() {
    let Some(hashed) = hashed() else { return };
    let session = session_of(hashed.python, "64x16x64", 64, 1, "polycommit", false);
    let verdict = session.verify_proofs(&session.path("session.pf")).ok().json();
    assert_eq!(
        (&verdict["weights_bound"], &verdict["rounded"][0]),
        (&true.into(), &"inputs by 2^-10, deltas by 2^-10".into())
    );
    let (folder, changed) = public(&session);
    let manifest = changed.join("manifest.json");
    edit(&manifest, |m| {
        let weights = m["modules"][0]["weights"].as_array_mut().unwrap();
        assert_eq!(weights.len(), 2);
        weights.pop();
    });
    let id = blake3::hash(&fs::read(&manifest).unwrap()).to_hex().to_string();
    let trace = folder.path().join("trace.safetensors");
    fs::copy(session.path("trace.safetensors"), &trace).unwrap();
    let trace = relabel(&trace, &session.id, &id);
    let run = session.verify(
        &changed,
        &trace,
        &session.path("session.pf"),
        &args!["--adapter-id", id, "--insecure-dev-srs"],
    );
    run.refused(1, "commitments to the parameters: 2 in the settings, 1 in the manifest");
}

/// Python imports neither from the user's working folder nor from the prover's folders.
#[test]
fn python_files_beside_the_proofs_are_not_run() {
    let Some(session) = hashed() else { return };
    let (_folder, path) = proofs(session);
    let (_other, changed) = public(session);
    let here = tempfile::tempdir().unwrap();
    let run_by = here.path().join("was-run");
    for folder in [here.path(), &path, &changed] {
        for module in ["ezkl", "asyncio", "json", "resource", "numpy"] {
            let code =
                format!("open({:?}, 'w')\nraise SystemExit(0)\n", run_by.display().to_string());
            fs::write(folder.join(format!("{module}.py")), code).unwrap();
        }
    }
    let verify = |proofs: &Path, public: &Path| {
        let arguments = args![
            "verify",
            "--public",
            public,
            "--trace",
            session.path("trace.safetensors"),
            "--proof",
            proofs,
            "--adapter-id",
            session.id,
            "--insecure-dev-srs",
            "--ezkl-python",
            session.python
        ];
        run(zklora_command().args(arguments).current_dir(here.path()))
    };
    verify(&session.path("session.pf"), &changed).ok();
    verify(&path, &changed).refused(1, "belongs to no row of your trace");
    assert!(!run_by.exists());
}

#[test]
fn manifests_that_lead_out_of_their_folder_or_are_not_canonical_are_refused() {
    let Some(session) = hashed() else { return };
    let (_folder, changed) = public(session);
    let manifest = changed.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    for (from, to, why) in [
        (MODULE, "../../etc", "a name has"),
        ("\"version\":1", "\"version\":2", "this build reads"),
        ("{\"base_model\"", "{ \"base_model\"", "not canonical"),
        ("23.0.5", "99.0.0", "this build works with"),
        ("\"logrows\":12", "\"logrows\":99", "out of range"),
        ("\"weights\":[\"", "\"weights\":[\"00\",\"", "does not fit"),
        ("\"dim\":16", "\"dim\":0", "shape"),
    ] {
        fs::write(&manifest, text.replace(from, to)).unwrap();
        let run = session.verify(
            &changed,
            &session.path("trace.safetensors"),
            &session.path("session.pf"),
            &[],
        );
        run.refused(2, why);
    }
}

#[test]
fn commands_of_the_native_backend_say_that_they_are() {
    let Some(session) = hashed() else { return };
    let folder = tempfile::tempdir().unwrap();
    let artifacts = session.path("artifacts");
    zk!["serve", "--artifacts", artifacts].refused(2, "EZKL backend are not served");
    zk!["audit", "--public", artifacts, "--adapter", folder.path(), "--opening", artifacts]
        .refused(2, "not audited");
    let onnx = export("16x2x16", folder.path(), false);
    zk!["compile", onnx, "--out", folder.path().join("a"), "--backend", "ezkl", "--locked"]
        .refused(2, "--locked");
    compile(session.python, &onnx, &artifacts, &[]).refused(2, "has served rows");
    zk!["compile", onnx, "--out", folder.path().join("a"), "--backend", "ezkl"]
        .refused(2, "name a file with --srs");
    let verify = args!["--adapter-id", session.id, "--backend", "halo2"];
    let verify =
        [&args!["verify", "--public", artifacts, "--trace", "x", "--proof", "x"][..], &verify]
            .concat();
    crate::zklora::zklora(verify).refused(2, "--backend says otherwise");
}
