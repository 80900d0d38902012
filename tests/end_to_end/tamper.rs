//! Tampered files of a session: refused with exit code 1, and the error names the failed check.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    args, zk,
    zklora::{fixture, session},
};

fn write(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// The offset of a tensor's data in a safetensors file.
fn start_of(tensor: &str, bytes: &[u8]) -> usize {
    let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap();
    tensors.tensor(tensor).unwrap().data().as_ptr() as usize - bytes.as_ptr() as usize
}

/// The session's trace with one byte of a tensor changed.
fn trace_with(tensor: &str, folder: &tempfile::TempDir) -> PathBuf {
    let mut bytes = fs::read(session().path("trace.safetensors")).unwrap();
    let start = start_of(tensor, &bytes);
    bytes[start] ^= 1;
    write(folder, "changed.safetensors", &bytes)
}

#[test]
fn a_trace_with_one_integer_changed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for tensor in ["delta", "x", "scale"] {
        let trace = trace_with(&format!("model.layers.1.self_attn.v_proj.{tensor}"), &folder);
        session().verify_trace(&trace).refused(1, "rejected by the check");
    }
}

#[test]
fn a_delta_beyond_the_certified_bound_is_a_no_like_any_other_false_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(session().path("trace.safetensors")).unwrap();
    let start = start_of("model.layers.1.self_attn.v_proj.delta", &bytes);
    bytes[start..start + 8].copy_from_slice(&i64::MIN.to_le_bytes());
    session()
        .verify_trace(&write(&folder, "beyond.safetensors", &bytes))
        .refused(1, "certified bound");
}

#[test]
fn a_trace_that_another_party_recorded_is_checked_against_the_users_own_session() {
    let session = session();
    let activations = fixture(crate::zklora::ADAPTER).join("activations.safetensors");
    let id =
        zk!["--json", "trace", "info", session.path("trace.safetensors")].ok().json()["session_id"]
            .clone();
    let verify = |session_id: &str, inputs: &Path| {
        session.verify_unpinned(&args![
            "--adapter-id",
            session.id,
            "--session-id",
            session_id,
            "--inputs",
            inputs
        ])
    };
    let id = id.as_str().unwrap();
    let run = verify(id, &activations).ok();
    assert!(run.stdout.contains(&format!("{id} (yours)")), "{}", run.stdout);
    let other = format!("{}{}", if id.starts_with('0') { "1" } else { "0" }, &id[1..]);
    verify(&other, &activations).refused(1, "not of yours");
    verify("00", &activations).refused(2, "64 hex digits");

    // One activation of one module changed, and one module left out.
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(&activations).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let name = "model.layers.1.self_attn.q_proj.x";
    let alone = safetensors::serialize([(name, tensors.tensor(name).unwrap())], None).unwrap();
    verify(id, &write(&folder, "fewer.safetensors", &alone)).refused(1, "yours 0");
    let row = start_of(name, &bytes) + 64 * 4 * 2;
    bytes[row..row + 4].copy_from_slice(&0.123f32.to_le_bytes());
    let run = verify(id, &write(&folder, "other.safetensors", &bytes));
    run.refused(1, "module `model.layers.1.self_attn.q_proj`, row 2, has other values");
}

#[test]
fn rows_beyond_the_contributors_limit_are_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let copy = session().copy_of_artifacts();
    let record = |limit: &str, name: &str| {
        zk![
            "trace",
            "record",
            "--artifacts",
            copy.path(),
            "--inputs",
            fixture(crate::zklora::ADAPTER).join("activations.safetensors"),
            "--out",
            folder.path().join(name),
            "--max-rows",
            limit
        ]
    };
    let ledger = copy.path().join("private/served.jsonl");
    let before = fs::read(&ledger).unwrap();
    // The tests' shared session has already served 12 rows per module.
    record("23", "a").refused(1, "would have served 24 rows in all, the limit is 23");
    assert_eq!(fs::read(&ledger).unwrap(), before);
    assert!(!folder.path().join("a").exists());
    let run = record("24", "b").ok();
    assert!(run.stdout.contains("up to 24 rows a module, the limit is 24"), "{}", run.stdout);
}

#[test]
fn a_changed_cut_or_prolonged_proof_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let proof = fs::read(session().path("session.pf")).unwrap();
    let mut flipped = proof.clone();
    let last = flipped.len() - 100;
    flipped[last] ^= 1;
    session().verify_proof(&write(&folder, "flipped.pf", &flipped)).refused(1, "proof");
    session()
        .verify_proof(&write(&folder, "cut.pf", &proof[..proof.len() - 1]))
        .refused(1, "ends 1 bytes early");
    session()
        .verify_proof(&write(&folder, "long.pf", &[proof.as_slice(), &[0]].concat()))
        .refused(1, "1 bytes too many");
    session().verify_proof(&write(&folder, "empty.pf", &[])).refused(1, "malformed");
    session().verify_proof(&folder.path().join("missing.pf")).refused(2, "missing.pf");
}

/// Parsing refuses a commitment that is the identity. So does a verifier that finds the manifest's
/// points in its cache.
#[test]
fn an_identity_among_kept_points_is_refused_as_in_the_manifest() {
    use zklora_proof::{
        checked_manifest::CheckedManifest,
        manifest::{Manifest, Point},
    };
    let (folder, session) = (tempfile::tempdir().unwrap(), session());
    let bytes = fs::read(session.path("artifacts/public/manifest.json")).unwrap();
    let mut points = CheckedManifest::parse(&bytes).unwrap().points_to_bytes();
    let mut manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
    let (mut compressed, mut whole) = ([0u8; 48], [0u8; 96]);
    (compressed[0], whole[0]) = (0xc0, 0x40);
    manifest.modules[0].terms[0].a[0][0] = Point(compressed);
    points[..96].copy_from_slice(&whole);
    let changed = manifest.to_bytes().unwrap();
    write(&folder, "manifest.json", &changed);
    let id = blake3::hash(&changed).to_hex().to_string();
    write(&folder, &format!("{id}.points"), &points);
    let [trace, proof] = ["trace.safetensors", "session.pf"].map(|name| session.path(name));
    let verify = || {
        let arguments = args![
            "verify",
            "--public",
            folder.path(),
            "--trace",
            trace,
            "--proof",
            proof,
            "--adapter-id",
            id
        ];
        crate::zklora::zklora_with(&[("ZKLORA_CACHE_DIR", folder.path())], arguments)
    };
    verify().refused(2, "is the identity");
}

#[test]
fn a_pin_that_differs_in_one_digit_is_refused() {
    let session = session();
    let other = if session.id.starts_with('0') { "1" } else { "0" };
    let pin = format!("{other}{}", &session.id[1..]);
    session
        .verify_with(
            &session.path("artifacts"),
            &session.path("trace.safetensors"),
            &session.path("session.pf"),
            &pin,
        )
        .refused(1, "was pinned");
}

#[test]
fn a_trace_or_proof_of_another_session_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let copy = session().copy_of_artifacts();
    let inputs = fixture(crate::zklora::ADAPTER).join("activations.safetensors");
    let other = folder.path().join("other.safetensors");
    zk!["trace", "record", "--artifacts", copy.path(), "--inputs", inputs, "--out", other].ok();
    // The same rows under another session id.
    session().verify_trace(&other).refused(1, "rejected by the check");
}

#[test]
fn the_contributor_proves_only_rows_that_it_served_and_publishes_nothing_false() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace_with("model.layers.0.self_attn.q_proj.delta", &folder);
    let out = folder.path().join("false.pf");
    zk!["prove", "--artifacts", session().path("artifacts"), "--trace", trace, "--out", out]
        .refused(1, "not a session that");
    // The same without the ledger: it is not the ledger that prevents false statements.
    let copy = session().copy_of_artifacts();
    let ledger = copy.path().join("private/served.jsonl");
    fs::remove_file(&ledger).unwrap();
    zk![
        "prove",
        "--artifacts",
        copy.path(),
        "--trace",
        session().path("trace.safetensors"),
        "--out",
        out
    ]
    .refused(1, "not a session that");
    assert!(!out.exists());
}

#[test]
fn a_torn_ledger_line_is_cut_and_a_foreign_one_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let copy = session().copy_of_artifacts();
    let ledger = copy.path().join("private/served.jsonl");
    let whole = fs::read(&ledger).unwrap();
    fs::write(&ledger, [whole.as_slice(), b"{\"rows\":{\"mod"].concat()).unwrap();
    let (trace, inputs) = (
        folder.path().join("t.safetensors"),
        fixture(crate::zklora::ADAPTER).join("activations.safetensors"),
    );
    zk!["trace", "record", "--artifacts", copy.path(), "--inputs", inputs, "--out", trace].ok();
    let lines = fs::read_to_string(&ledger).unwrap();
    assert!(
        lines.as_bytes().starts_with(&whole) && lines.lines().count() == 2 && lines.ends_with('\n')
    );
    fs::write(&ledger, "hello\n").unwrap();
    zk!["prove", "--artifacts", copy.path(), "--trace", trace, "--out", folder.path().join("p.pf")]
        .refused(2, "not a ledger entry");
}

#[test]
fn parameters_of_an_unknown_ceremony_are_refused_unless_the_user_says_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ceremony.json");
    fs::write(&file, crate::zklora::foreign_ceremony()).unwrap();
    assert!(zk!["srs", "info", "--srs", file].ok().stdout.contains("UNKNOWN CEREMONY: INSECURE"));
    let run =
        zk!["run", "--adapter", fixture(crate::zklora::ADAPTER), "--rows", "1", "--srs", file];
    run.refused(1, "UNKNOWN CEREMONY").refused(1, "--insecure-srs");
    zk![
        "run",
        "--adapter",
        fixture(crate::zklora::ADAPTER),
        "--rows",
        "1",
        "--srs",
        file,
        "--insecure-srs"
    ]
    .ok();
    // A proof does not verify with another SRS than that of its commitments.
    let session = session();
    session
        .verify_unpinned(&args!["--srs", file, "--insecure-srs"])
        .refused(1, "was made for the SRS");
    let mut broken = fs::read_to_string(&file).unwrap();
    broken.truncate(1000);
    fs::write(&file, broken).unwrap();
    zk!["srs", "verify", "--srs", file].refused(2, "not a ceremony file");
}
