//! Foreign text never forges a line of the program's output, in any command, as text or JSON.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use serde_json::json;
use zklora_files::text::is_plain;

use crate::{
    args,
    zklora::{ADAPTER, Run, fixture, session, zklora},
};

/// A hostile name: forged lines, by every line break and escape code that terminals or readers
/// know.
const FORGED: &str = "x\nVerdict      FORGED\r\nVerdict      FORGED\u{2028}\u{85}Verdict\
                      \u{1b}[2K\u{1b}]0;t\u{7}\u{202e}\u{200b}\u{e0041}\u{7f}";

/// Runs a command with text and with JSON output; no line of its output is forged.
#[track_caller]
fn harmless(arguments: &[OsString], code: i32, quotes: &str) -> [Run; 2] {
    let text = zklora(arguments);
    let json = zklora([&args!["--json"], arguments].concat());
    for run in [&text, &json] {
        assert_eq!(run.code, code, "{arguments:?}: {}{}", run.stdout, run.stderr);
        let printed = format!("{}{}", run.stdout, run.stderr);
        assert!(printed.chars().all(|c| c == '\n' || is_plain(c)), "{printed:?}");
        for line in printed.lines() {
            assert!(
                !line.trim_start().starts_with("Verdict") || !line.contains("FORGED"),
                "{printed}"
            );
            assert!(!line.trim_start().starts_with("FORGED"), "{printed}");
        }
        // The text is not omitted: it is part of a genuine line.
        assert!(printed.contains(quotes), "{quotes} is not in {printed}");
    }
    if !json.stdout.is_empty() {
        assert_eq!(json.stdout.lines().count(), 1, "{}", json.stdout);
        assert!(json.stdout.is_ascii());
        json.json();
    }
    [text, json]
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// A trace of one module with a hostile name.
fn trace(folder: &Path, module: &str) -> PathBuf {
    let metadata = [("format", "zklora-trace"), ("version", "1")];
    let ids = [("adapter_id", session().id.clone()), ("session_id", "00".repeat(32))];
    let metadata = metadata.map(|(k, v)| (k.to_string(), v.to_string())).into_iter();
    let metadata = metadata.chain(ids.map(|(k, v)| (k.to_string(), v))).collect();
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]).unwrap();
    write(
        folder,
        "trace.safetensors",
        &safetensors::serialize([(format!("{module}.scale"), view)], Some(metadata)).unwrap(),
    )
}

#[test]
fn a_trace_whose_tensors_are_called_like_a_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let path = trace(folder.path(), FORGED);
    let [_, json] = harmless(&args!["trace", "info", path], 0, "FORGED");
    // JSON has the exact name.
    assert_eq!(json.json()["rows"].as_object().unwrap().keys().next().unwrap(), FORGED);
    let (artifacts, proof) = (session().path("artifacts"), session().path("session.pf"));
    harmless(
        &args!["verify", "--public", artifacts, "--trace", path, "--proof", proof],
        2,
        "FORGED",
    );
    harmless(
        &args![
            "prove",
            "--artifacts",
            artifacts,
            "--trace",
            path,
            "--out",
            folder.path().join("p")
        ],
        2,
        "FORGED",
    );
}

#[test]
fn the_number_of_lines_does_not_depend_on_names() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |module: &str| {
        let run = harmless(&args!["trace", "info", trace(folder.path(), module)], 0, "0000")[0]
            .stdout
            .clone();
        run.lines().count()
    };
    let plain = lines("model.layers.0");
    for c in [
        "\n", "\r", "\r\n", "\u{b}", "\u{c}", "\u{1c}", "\u{1e}", "\u{85}", "\u{2028}", "\u{2029}",
        "\t",
    ] {
        assert_eq!(lines(&format!("{c}{c}Verdict{c}")), plain, "{c:?}");
    }
}

#[test]
fn a_manifest_whose_keys_and_names_are_hostile() {
    let folder = tempfile::tempdir().unwrap();
    let (path, proof) = (session().path("trace.safetensors"), session().path("session.pf"));
    let verify = || args!["verify", "--public", folder.path(), "--trace", path, "--proof", proof];
    write(folder.path(), "manifest.json", json!({ FORGED: 1 }).to_string().as_bytes());
    harmless(&verify(), 2, "FORGED");
    // A name that the manifest's rules allow: no control characters, but a direction mark and
    // invisible characters.
    let bytes = fs::read(session().path("artifacts/public/manifest.json")).unwrap();
    let manifest: zklora_proof::manifest::Manifest = serde_json::from_slice(&bytes).unwrap();
    let mut renamed = manifest.clone();
    for module in &mut renamed.modules[..2] {
        module.name = "\u{202e}DEGROF\u{200b}\u{e0041}".into();
    }
    write(folder.path(), "manifest.json", &renamed.to_bytes().unwrap());
    harmless(&verify(), 2, "two modules are called `\\u");
}

#[test]
fn an_adapter_folder_whose_names_are_hostile() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = folder.path().join("adapter");
    fs::create_dir(&adapter).unwrap();
    let original = |name: &str| fs::read(fixture(ADAPTER).join(name)).unwrap();
    let mut config: serde_json::Value =
        serde_json::from_slice(&original("adapter_config.json")).unwrap();
    write(&adapter, "adapter_model.safetensors", &original("adapter_model.safetensors"));
    config["base_model_name_or_path"] = json!(FORGED);
    write(&adapter, "adapter_config.json", config.to_string().as_bytes());
    harmless(
        &args!["export", "--adapter", adapter, "--out", folder.path().join("onnx")],
        2,
        "FORGED",
    );
    // Without control characters, the name is allowed.
    let name = "\u{202e}FORGED\u{200b}\u{e0041}";
    config["base_model_name_or_path"] = json!(name);
    write(&adapter, "adapter_config.json", config.to_string().as_bytes());
    let onnx = folder.path().join("onnx");
    let [_, json] = harmless(&args!["export", "--adapter", adapter, "--out", onnx], 0, "FORGED");
    assert_eq!(json.json()["base_model"], name);
    // A value that is refused, an unknown tensor, and a delivered folder of another model.
    config["peft_type"] = json!(FORGED);
    write(&adapter, "adapter_config.json", config.to_string().as_bytes());
    harmless(&args!["export", "--adapter", adapter, "--out", onnx], 2, "FORGED");
    let opening = session().path("artifacts/private/opening");
    let audit = args![
        "audit",
        "--public",
        session().path("artifacts"),
        "--adapter",
        adapter,
        "--opening",
        opening
    ];
    harmless(&audit, 2, "FORGED");
    write(&adapter, "adapter_config.json", &original("adapter_config.json"));
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]).unwrap();
    let name = format!("base_model.model.{FORGED}.lora_A.weight");
    write(
        &adapter,
        "adapter_model.safetensors",
        &safetensors::serialize([(name, view)], None).unwrap(),
    );
    harmless(&args!["export", "--adapter", adapter, "--out", onnx], 2, "FORGED");
    harmless(&audit, 2, "FORGED");
}

#[test]
fn a_delivery_with_a_module_that_was_never_committed_to() {
    let folder = tempfile::tempdir().unwrap();
    // An export folder with a hostile module name in its list; the ONNX file is honest.
    let onnx = folder.path().join("onnx");
    fs::create_dir(&onnx).unwrap();
    for entry in fs::read_dir(session().path("onnx")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), onnx.join(entry.file_name())).unwrap();
    }
    let mut index: serde_json::Value =
        serde_json::from_slice(&fs::read(onnx.join("export.json")).unwrap()).unwrap();
    index["modules"][0]["name"] = json!(FORGED);
    write(&onnx, "export.json", index.to_string().as_bytes());
    let opening = session().path("artifacts/private/opening");
    harmless(
        &args![
            "audit",
            "--public",
            session().path("artifacts"),
            "--adapter",
            onnx,
            "--opening",
            opening
        ],
        2,
        "FORGED",
    );
}

/// A graph in which a node has a hostile name of the same length.
fn graph(folder: &Path) -> PathBuf {
    let bytes = fs::read(fixture("onnx/base_plus_delta_two_inputs_op17/model.onnx")).unwrap();
    let (name, forged) = (b"/d/A/MatMul", b"\nVerdict  F");
    let mut renamed = bytes.clone();
    let mut found = 0;
    for at in 0..bytes.len() - name.len() {
        if bytes[at..].starts_with(name) {
            renamed[at..at + name.len()].copy_from_slice(forged);
            found += 1;
        }
    }
    assert!(found > 1);
    write(folder, "model.onnx", &renamed)
}

#[test]
fn a_graph_whose_nodes_are_called_like_a_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let model = graph(folder.path());
    let [text, json] = harmless(
        &args!["compile", model, "--out", folder.path().join("a"), "--explain"],
        0,
        r"\nVerdict  F",
    );
    let original = fixture("onnx/base_plus_delta_two_inputs_op17/model.onnx");
    let honest =
        zklora(args!["compile", original, "--out", folder.path().join("a"), "--explain"]).ok();
    assert_eq!(text.stdout.lines().count(), honest.stdout.lines().count(), "{}", text.stdout);
    assert!(
        json.json()[0]["steps"]
            .as_array()
            .unwrap()
            .iter()
            .any(|step| step["node"] == "\nVerdict  F")
    );
    // The module has the name of its file.
    let hostile = folder.path().join("y\nVerdict      FORGED.onnx");
    fs::copy(&model, &hostile).unwrap();
    harmless(&args!["compile", hostile, "--out", folder.path().join("b")], 2, "FORGED");
}

#[test]
fn a_report_whose_texts_are_hostile() {
    let folder = tempfile::tempdir().unwrap();
    let report = json!({
        "format": "zklora-report", "version": 1, "base_model": FORGED, "mode": FORGED, "loss": null,
        "generated": { "prompt": FORGED, "adapted": FORGED, "base": FORGED, "tokens": 3 },
        "contributors": [{
            "url": FORGED, "adapter_id": FORGED, "pinned": true, "session_id": FORGED,
            "modules": 2, "modules_called": 2, "rows": 8, "rows_reused": 0, "calls": 4,
            "reconnections": 0, "bytes_sent": 1, "bytes_received": 1, "latency": null,
            "proof_seconds": null, "verify_seconds": null, "proof_bytes": null,
            "verdict": "rejected", "why": FORGED
        }],
        "points": [{
            "module": FORGED, "rows": 4, "base_rms": 1.0, "delta_rms": 0.5, "relative": 0.5,
            "contributors": [0]
        }],
        "forward_seconds": 1.0, "forward_passes": 1
    });
    write(folder.path(), "report.json", report.to_string().as_bytes());
    let page = folder.path().join("page.html");
    let [_, json] = harmless(&args!["report", folder.path(), "--html", page], 0, "FORGED");
    assert_eq!(json.json(), report);
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("FORGED") && html.chars().all(|c| c == '\n' || c == '\t' || is_plain(c)));
}

#[test]
fn hostile_paths_and_arguments_of_a_script() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FORGED);
    for arguments in [
        args!["trace", "info", path].to_vec(),
        args!["export", "--adapter", path, "--out", folder.path().join("o")].to_vec(),
        args![FORGED].to_vec(),
        args!["trace", FORGED].to_vec(),
        args!["run", "--adapter", "x", "--rows", FORGED].to_vec(),
        args!["compile", "x", "--out", "y", "--backend", FORGED].to_vec(),
        args!["verify", "--public", "x", "--trace", "x", "--proof", "x", "--adapter-id", FORGED]
            .to_vec(),
        args!["audit", format!("--{FORGED}")].to_vec(),
        args![
            "infer",
            "--base",
            path,
            "--contributor",
            format!("http://{FORGED}"),
            "--text",
            "x",
            "--out",
            "o"
        ]
        .to_vec(),
    ] {
        harmless(&arguments, 2, "FORGED");
    }
}

#[test]
fn a_path_that_is_not_utf8_has_a_place_in_json() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join(OsStr::from_bytes(b"onnx\xff\xfe"));
    let [_, json] =
        harmless(&args!["export", "--adapter", fixture(ADAPTER), "--out", out], 0, "onnx");
    assert!(json.json()["out"].as_str().unwrap().ends_with("onnx\u{fffd}\u{fffd}"));
    assert!(out.join("export.json").is_file());
}
