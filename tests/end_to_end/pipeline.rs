//! The whole pipeline, as one command and in single commands.

use crate::{
    zk,
    zklora::{ADAPTER, fixture, session},
};

#[test]
fn run_takes_a_real_adapter_through_the_whole_pipeline_and_keeps_its_promises() {
    let run =
        zk!["--json", "run", "--adapter", fixture("adapters/smollm2-r4-qv"), "--rows", "64"].ok();
    let result = run.json();
    assert_eq!(result["accepted"], true);
    assert_eq!(
        (&result["modules"], &result["modules_called"], &result["rows"], &result["parameters"]),
        (&60.into(), &60.into(), &3840.into(), &230_400.into())
    );
    assert!(result["precision"]["relative_rms"].as_f64().unwrap() < 1e-4, "{result}");
    assert!(result["proof_bytes"].as_u64().unwrap() < 2048, "{result}");
    assert!(result["ceremony"].as_str().unwrap().contains("Ethereum"));
}

#[test]
fn run_on_real_activations_is_precise_and_says_which_modules_were_called() {
    let run = zk!["run", "--adapter", fixture("adapters/smollm2-r4-qv")].ok();
    for line in
        ["60 modules", "ACCEPTED", "Ethereum KZG ceremony", "Adapter id", "relative RMS error"]
    {
        assert!(run.stdout.contains(line), "{line}: {}", run.stdout);
    }
    let json = zk!["--json", "run", "--adapter", fixture("adapters/smollm2-r4-qv")].ok().json();
    assert!(json["precision"]["relative_rms"].as_f64().unwrap() < 1e-4, "{json}");
}

/// Every supported adapter of the fixtures, on its real activations. Some kinds need the base
/// model's weights.
#[test]
fn every_supported_adapter_of_the_fixtures_runs_precisely() {
    let mut seen = 0;
    for entry in std::fs::read_dir(fixture("adapters")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if !path.join("activations.safetensors").is_file() {
            continue;
        }
        let base =
            fixture(if name.starts_with("gpt2") { "base/tiny-gpt2" } else { "base/tiny-llama" });
        let run = if name.contains("dora") || name.contains("vera") {
            zk!["--json", "run", "--adapter", path, "--base", base]
        } else {
            zk!["--json", "run", "--adapter", path]
        };
        let json = run.ok().json();
        assert!(json["precision"]["relative_rms"].as_f64().unwrap() < 1e-4, "{name}: {json}");
        seen += 1;
    }
    assert!(seen >= 18, "{seen}");
}

#[test]
fn single_commands_prove_and_verify_against_the_pin() {
    let session = session();
    let run = session.verify_proof(&session.path("session.pf")).ok();
    assert!(
        run.stdout.contains("ACCEPTED") && run.stdout.contains("your pin") && run.stderr.is_empty(),
        "{}{}",
        run.stdout,
        run.stderr
    );
    let info = zk!["--json", "trace", "info", session.path("trace.safetensors")].ok().json();
    assert_eq!(info["adapter_id"], session.id);
}

#[test]
fn verify_says_in_plain_words_that_nothing_was_pinned() {
    let run = session().verify_unpinned(&[]).ok();
    assert!(run.stderr.contains("THE ADAPTER WAS NOT PINNED") && run.stdout.contains("NOT PINNED"));
}

#[test]
fn run_keeps_its_files_when_asked_and_they_verify() {
    let out = tempfile::tempdir().unwrap();
    zk!["run", "--adapter", fixture(ADAPTER), "--rows", "3", "--out", out.path()].ok();
    let files = ["public", "trace.safetensors", "session.pf"].map(|name| out.path().join(name));
    zk!["verify", "--public", files[0], "--trace", files[1], "--proof", files[2]].ok();
}

#[test]
fn activations_of_one_module_come_from_npy_or_json() {
    let folder = tempfile::tempdir().unwrap();
    let onnx = fixture("onnx/peft_delta_2d_op11/model.onnx");
    let artifacts = folder.path().join("artifacts");
    zk!["compile", onnx, "--out", artifacts].ok();
    let json = folder.path().join("x.json");
    std::fs::write(&json, serde_json::json!({ "input_data": [vec![0.25f32; 128]] }).to_string())
        .unwrap();
    for inputs in [fixture("onnx/peft_delta_2d_op11/input.npy"), json] {
        let (trace, proof) = (folder.path().join("t.safetensors"), folder.path().join("t.pf"));
        zk!["trace", "record", "--artifacts", artifacts, "--inputs", inputs, "--out", trace].ok();
        zk!["prove", "--artifacts", artifacts, "--trace", trace, "--out", proof].ok();
        zk!["verify", "--public", artifacts, "--trace", trace, "--proof", proof].ok();
    }
}

#[test]
fn srs_commands_name_the_ceremony_and_completions_are_printed() {
    for command in ["info", "verify"] {
        let json = zk!["--json", "srs", command].ok().json();
        assert_eq!((json["trusted"].as_bool(), json["k"].as_u64()), (Some(true), Some(12)));
    }
    assert!(zk!["completions", "bash"].ok().stdout.contains("zklora"));
}
