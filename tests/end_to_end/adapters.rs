//! Adapters as people have them, from the file to the artifacts.

use std::path::PathBuf;

use crate::{args, zk, zklora::zklora};

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(path)
}

/// Before the training, or in layers that saw no token, `lora_B` is zero.
#[test]
fn adapters_without_any_effect_compile() {
    let out = tempfile::tempdir().unwrap();
    for case in ["fresh_lora", "fresh_adalora", "zero_B_one_module", "name_space", "rank_gt_d"] {
        let (onnx, artifacts) = (out.path().join(case), out.path().join(format!("{case}.out")));
        let adapter = fixture("field").join(case);
        zk!["export", "--adapter", adapter, "--out", onnx.clone()].ok();
        let compiled = zk!["compile", onnx, "--out", artifacts].ok();
        // The warning about a rank that is too large does not ask for what was done.
        assert!(!compiled.stderr.contains("zklora export"), "{}", compiled.stderr);
        assert_eq!(compiled.stderr.contains("rank"), case == "rank_gt_d", "{}", compiled.stderr);
    }
}

#[test]
fn adapters_of_other_libraries_compile() {
    let out = tempfile::tempdir().unwrap();
    for (case, modules) in [
        ("foreign/lycoris_mixed/adapter.safetensors", 6),
        ("foreign/mlx_lora_bias", 1),
        ("field/kohya_single", 2),
    ] {
        let (onnx, artifacts) = (out.path().join("onnx"), out.path().join("artifacts"));
        let export = zk!["--json", "export", "--adapter", fixture(case), "--out", onnx.clone()];
        assert_eq!(export.ok().json()["modules"], modules, "{case}");
        zk!["compile", onnx.clone(), "--out", artifacts.clone()].ok();
        std::fs::remove_dir_all(onnx).unwrap();
        std::fs::remove_dir_all(artifacts).unwrap();
    }
}

/// A refusal says what to do, and that works.
#[test]
fn names_and_the_base_model_are_named_by_the_user() {
    let out = tempfile::tempdir().unwrap();
    let export = |case: &str, more: &[&str]| {
        let mut all = args!["--json", "export", "--adapter", fixture("field").join(case)].to_vec();
        all.extend(args!["--out", out.path().join("onnx")]);
        all.extend(more.iter().map(Into::into));
        zklora(all)
    };
    export("keys_orig_mod_inner", &[]).refused(2, "--rename _orig_mod.=");
    export("keys_orig_mod_inner", &["--rename", "_orig_mod."]).refused(2, "--rename");
    let renamed = export("keys_orig_mod_inner", &["--rename", "_orig_mod.="]).ok();
    assert_eq!(renamed.json()["modules"], 2);
    // A path does not go into the public manifest unseen.
    let folder = tempfile::tempdir().unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let mut bytes = std::fs::read(fixture("field/fresh_lora").join(file)).unwrap();
        if file == "adapter_config.json" {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains("\"tiny-llama\""), "{text}");
            bytes = text.replace("\"tiny-llama\"", "\"/home/me/models/llama\"").into();
        }
        std::fs::write(folder.path().join(file), bytes).unwrap();
    }
    let named = |more: &[&str]| {
        let mut all = args!["--json", "export", "--adapter", folder.path()].to_vec();
        all.extend(args!["--out", out.path().join("named")]);
        all.extend(more.iter().map(Into::into));
        zklora(all).ok()
    };
    assert!(named(&[]).stderr.contains("--base-name"));
    let run = named(&["--base-name", "org/llama"]);
    assert_eq!((run.json()["base_model"].as_str(), run.stderr.as_str()), (Some("org/llama"), ""));
}

/// Convolutions, experts and layers that were trained whole are compiled; what is left out is said by
/// the manifest, by every verdict and by the audit.
#[test]
fn what_is_left_out_is_in_the_manifest_and_in_every_verdict() {
    let out = tempfile::tempdir().unwrap();
    let case = |name: &str| fixture("peft").join(name);
    for name in ["bias_all", "convolutions_dora", "convolutions_lora", "experts", "tied_tokens"] {
        let (onnx, artifacts) = (out.path().join(name), out.path().join(format!("{name}.out")));
        let base = case(name).join("base");
        let export =
            zk!["--json", "export", "--adapter", case(name), "--base", base, "--out", onnx.clone()]
                .ok();
        assert_eq!(
            (export.json()["left_out"].to_string(), export.stderr),
            ("[]".into(), String::new())
        );
        let compiled = zk!["--json", "compile", onnx, "--out", artifacts].ok();
        assert_eq!(compiled.json()["left_out"].to_string(), "[]");
    }

    let (onnx, artifacts) = (out.path().join("onnx"), out.path().join("artifacts"));
    let adapter = case("modules_to_save");
    let export = zk!["export", "--adapter", adapter.clone(), "--out", onnx.clone()].ok();
    assert!(export.stderr.contains("head.weight") && export.stderr.contains("--base"));
    zk!["compile", onnx.clone(), "--out", artifacts.clone()].ok();
    let manifest = std::fs::read_to_string(artifacts.join("public/manifest.json")).unwrap();
    assert!(
        manifest.contains(r#""left_out":["embed_tokens.weight","head.bias","#),
        "{manifest:.600}"
    );

    let (trace, proof) = (out.path().join("trace.bin"), out.path().join("proof.bin"));
    zk!["trace", "record", "--artifacts", artifacts.clone(), "--rows", "2", "--out", trace.clone()]
        .ok();
    zk![
        "prove",
        "--artifacts",
        artifacts.clone(),
        "--trace",
        trace.clone(),
        "--out",
        proof.clone()
    ]
    .ok();
    let public = artifacts.join("public");
    let verified =
        zk!["verify", "--public", public.clone(), "--trace", trace, "--proof", proof].ok();
    assert!(verified.stdout.contains("no part of this adapter's deltas: embed_tokens.weight"));

    // The audit leaves the same tensors out, and sees another adapter's.
    let opening = artifacts.join("private/opening.json");
    let audit = |delivered: &std::path::Path| {
        zk![
            "audit",
            "--public",
            public.clone(),
            "--adapter",
            delivered,
            "--opening",
            opening.clone()
        ]
    };
    assert!(audit(&adapter).ok().stdout.contains("ACCEPTED"));
    assert!(audit(&onnx).ok().stdout.contains("ACCEPTED"));
    let plain = tempfile::tempdir().unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(adapter.join(file), plain.path().join(file)).unwrap();
    }
    let path = plain.path().join("adapter_model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let text = b"model.head.bias";
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    let mut renamed = bytes;
    renamed[at..at + text.len()].copy_from_slice(b"model.haed.bias");
    std::fs::write(&path, renamed).unwrap();
    let refused = audit(plain.path());
    assert!(
        refused.stdout.contains("haed.bias: a layer that was trained whole"),
        "{}",
        refused.stdout
    );
    assert!(refused.stdout.contains("head.bias: the manifest says"), "{}", refused.stdout);
}
