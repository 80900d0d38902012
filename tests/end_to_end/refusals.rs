//! Unusable inputs: exit code 2, and an error that says what, where and what to do.

use crate::{
    zk,
    zklora::{fixture, session},
};

#[test]
fn adapters_that_are_not_supported_are_refused_by_the_key_or_tensor_that_says_so() {
    for (adapter, why) in [
        ("gpt2_c_attn_r4_bin", "safetensors"),
        ("gpt2_dora_r4", "use_dora"),
        ("gpt2_dora_r4", "--base DIR"),
        ("gpt2_vera_r8", "--base DIR"),
    ] {
        zk!["run", "--adapter", fixture("adapters").join(adapter)].refused(2, why);
    }
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("adapter_config.json"), r#"{"peft_type": "PREFIX_TUNING"}"#)
        .unwrap();
    std::fs::write(other.path().join("adapter_model.safetensors"), b"").unwrap();
    zk!["export", "--adapter", other.path(), "--out", other.path().join("onnx")]
        .refused(2, "PREFIX_TUNING");
    assert!(!other.path().join("onnx").exists());
}

#[test]
fn a_base_model_of_another_architecture_is_refused_by_the_weight_that_it_lacks() {
    let (adapter, base) = (fixture("adapters/gpt2_dora_r4"), fixture("base/tiny-llama"));
    zk!["run", "--adapter", adapter, "--base", base]
        .refused(2, "transformer.h.0.attn.c_attn.weight");
    // Also if the adapter does not need the base model: the manifest would have a wrong
    // fingerprint.
    let (adapter, base) = (fixture("adapters/llama_qv_r4"), fixture("base/tiny-gpt2"));
    zk!["run", "--adapter", adapter, "--base", base]
        .refused(2, "model.layers.0.self_attn.q_proj.weight");
}

#[test]
fn graphs_that_are_not_linear_are_refused_by_node() {
    let out = tempfile::tempdir().unwrap();
    zk![
        "compile",
        fixture("onnx-refused/relu_between_op17/model.onnx"),
        "--out",
        out.path().join("a")
    ]
    .refused(2, "Relu");
    assert!(!out.path().join("a").exists());
}

#[test]
fn missing_and_foreign_files_are_named() {
    let out = tempfile::tempdir().unwrap();
    let text = out.path().join("note.txt");
    std::fs::write(&text, "hello").unwrap();
    zk!["run", "--adapter", out.path().join("nowhere")].refused(2, "nowhere");
    zk!["compile", text, "--out", out.path().join("a")].refused(2, "note");
    zk!["trace", "info", text].refused(2, "not a trace");
    zk!["verify", "--public", out.path(), "--trace", text, "--proof", text]
        .refused(2, "name the folder that compile wrote");
    zk![
        "trace",
        "record",
        "--artifacts",
        session().path("artifacts"),
        "--inputs",
        text,
        "--out",
        out.path().join("t")
    ]
    .refused(2, ".safetensors, .npy or .json");
}

#[test]
fn files_cannot_write_on_the_terminal() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("trace.safetensors");
    let name = "\u{1b}[2K\rVerdict  ACCEPTED\u{202e}\u{1b}[8m.scale";
    let metadata = [("format", "zklora-trace"), ("version", "1")];
    let ids = [("adapter_id", "00".repeat(32)), ("session_id", "00".repeat(32))];
    let metadata = metadata.map(|(k, v)| (k.to_string(), v.to_string())).into_iter();
    let metadata = metadata.chain(ids.map(|(k, v)| (k.to_string(), v))).collect();
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]).unwrap();
    std::fs::write(&path, safetensors::serialize([(name, view)], Some(metadata)).unwrap()).unwrap();
    let manifest = br#"{"\u001b[2K\rVerdict  ACCEPTED":1}"#;
    std::fs::write(out.path().join("manifest.json"), manifest).unwrap();
    let runs = [
        zk!["trace", "info", path].ok(),
        zk!["verify", "--public", out.path(), "--trace", path, "--proof", path],
    ];
    for run in runs {
        let printed = format!("{}{}", run.stdout, run.stderr);
        assert!(printed.contains("ACCEPTED"), "{printed}");
        assert!(!printed.contains(['\u{1b}', '\r', '\u{202e}']), "{printed:?}");
    }
}

#[test]
fn bad_usage_is_exit_code_two() {
    zk!["prove"].refused(2, "--artifacts");
    zk!["frobnicate"].refused(2, "frobnicate");
    zk!["run", "--adapter", "x", "--rows", "0"].refused(2, "0");
    zk!["run", "--adapter", "x", "--rows", "many"].refused(2, "many");
    zk!["verify", "--public", "x", "--trace", "x", "--proof", "x", "--adapter-id", "zz"]
        .refused(2, "64 hex digits");
}

#[test]
fn two_modules_of_one_name_are_refused_before_anything_is_committed_to() {
    let out = tempfile::tempdir().unwrap();
    let onnx = session().path("onnx");
    zk!["compile", onnx, onnx, "--out", out.path().join("a")].refused(2, "two modules are called");
    assert!(!out.path().join("a").exists());
}

#[test]
fn an_unknown_ceremony_gives_no_audit_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ceremony.json");
    std::fs::write(&file, crate::zklora::foreign_ceremony()).unwrap();
    let (session, opening) = (session(), session().path("artifacts/private/opening"));
    zk![
        "audit",
        "--public",
        session.path("artifacts"),
        "--adapter",
        fixture(crate::zklora::ADAPTER),
        "--opening",
        opening,
        "--srs",
        file
    ]
    .refused(1, "UNKNOWN CEREMONY");
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    for arguments in ["srs info", "completions bash"] {
        let script = format!(
            "set -o pipefail; '{}' {arguments} | true; echo ${{PIPESTATUS[0]}}",
            env!("CARGO_BIN_EXE_zklora")
        );
        let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!text.contains("panicked"), "{text}");
        assert_ne!(String::from_utf8_lossy(&output.stdout).trim(), "101");
    }
}

#[test]
fn errors_are_json_too_when_asked() {
    let run = zk!["--json", "trace", "info", "nowhere"].refused(2, "nowhere");
    assert!(run.json()["error"].as_str().unwrap().contains("nowhere"));
}
