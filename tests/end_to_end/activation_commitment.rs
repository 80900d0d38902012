//! Commitments to activations: commit, check, and prove one row to another party.

use std::{fs, path::PathBuf};

use crate::{zk, zklora::fixture};

/// A folder with activations, the file of the activations, a commitment to them, and its root.
fn committed(json: &str) -> (tempfile::TempDir, PathBuf, PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let (values, commitment) =
        (folder.path().join("activations.json"), folder.path().join("commitment.json"));
    fs::write(&values, json).unwrap();
    let run = zk!["--json", "trace", "commit", values, "--out", commitment].ok();
    let root = run.json()["root"].as_str().unwrap().to_string();
    assert!(!run.stdout.contains("nonce"));
    (folder, values, commitment, root)
}

const THREE_ROWS: &str = r#"{"input_data": [[0.5, -1.25, 3], [4.5, -0.0, 6], [7, 8, 9e-3]]}"#;

#[test]
fn commitments_of_the_original_are_accepted_and_other_values_are_not() {
    let at = |name: &str| fixture("activation_commitments").join(name);
    zk!["trace", "check", at("flat-9.json"), at("flat-9.commitment.json")].ok();
    let text = fs::read_to_string(at("flat-9.commitment.json")).unwrap();
    let run = zk!["--json", "trace", "check", at("flat-9.json"), text].ok();
    assert_eq!(run.json()["accepted"], true);
    zk!["trace", "check", at("flat-8.json"), text].refused(1, "REFUSED");
    assert_eq!(zk!["--json", "trace", "check", at("flat-8.json"), text].json()["accepted"], false);
}

#[test]
fn a_commitment_is_printed_as_python_writes_it() {
    let (_folder, values, file, _) = committed(THREE_ROWS);
    let run = zk!["trace", "commit", values].ok();
    assert!(
        run.stdout.starts_with("{\"root\": \"0x") && run.stdout.contains("\", \"nonce\": \"0x"),
        "{}",
        run.stdout
    );
    assert_eq!(run.stdout.len(), fs::read_to_string(&file).unwrap().len());
    zk!["trace", "check", values, run.stdout.trim()].ok();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_row_is_shown_without_the_others() {
    let (folder, values, commitment, root) = committed(THREE_ROWS);
    let proof = folder.path().join("row.json");
    zk!["trace", "prove-row", values, commitment, "--row", "1", "--out", proof].ok();
    let shown =
        zk!["--json", "trace", "check-row", proof, "--root", root, "--count", "9"].ok().json();
    assert_eq!(shown["first"], 3);
    assert_eq!(shown["values"].to_string(), "[4.5,-0.0,6.0]");
    assert!(!fs::read_to_string(&proof).unwrap().contains("1.25"));
    zk!["trace", "check-row", proof, "--root", root].ok().stdout.find("as the proof says").unwrap();

    zk!["trace", "check-row", proof, "--root", root, "--count", "10"].refused(1, "not for 10");
    zk!["trace", "check-row", proof, "--root", "00".repeat(32)].refused(1, &root);
    let text = fs::read_to_string(&proof).unwrap();
    fs::write(&proof, text.replace("4.5", "4.25")).unwrap();
    zk!["trace", "check-row", proof, "--root", root].refused(1, "not shown to be under this root");
    fs::write(&proof, text.replace("\"version\":1", "\"version\":2")).unwrap();
    zk!["trace", "check-row", proof, "--root", root].refused(2, "this build reads");
}

#[test]
fn rows_of_a_flat_list_need_their_length() {
    let (folder, values, commitment, root) = committed(r#"{"input_data": [[1, 2, 3, 4, 5, 6]]}"#);
    let proof = folder.path().join("row.json");
    zk!["trace", "prove-row", values, commitment, "--row", "0", "--out", proof]
        .refused(2, "--columns");
    zk!["trace", "prove-row", values, commitment, "--row", "3", "--columns", "2", "--out", proof]
        .refused(2, "no row 3");
    zk!["trace", "prove-row", values, commitment, "--row", "2", "--columns", "2", "--out", proof]
        .ok();
    zk!["trace", "check-row", proof, "--root", root]
        .ok()
        .stdout
        .find("values 4 to 5 of 6")
        .unwrap();
    fs::write(&values, r#"{"input_data": [[1, 2, 3, 4, 5, 7]]}"#).unwrap();
    zk!["trace", "prove-row", values, commitment, "--row", "0", "--columns", "2", "--out", proof]
        .refused(1, "not to the values of this file");
}

#[test]
fn what_is_no_list_of_numbers_is_refused() {
    let safetensors = fixture(crate::zklora::ADAPTER).join("activations.safetensors");
    zk!["trace", "commit", safetensors].refused(2, "no other format is read");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.json");
    fs::write(&file, r#"{"input_data": [1, NaN]}"#).unwrap();
    zk!["trace", "commit", file].refused(2, "x.json");
    zk!["trace", "check", file, "{}"].refused(2, "not a commitment");
    zk!["trace", "check", file, "nowhere.json"].refused(2, "nowhere.json");
    zk!["trace", "check-row", file, "--root", "12"].refused(2, "64 hex digits");
}
