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

/// Runs a command whose arguments are separated by spaces, with `$OUT` for a folder.
fn in_folder(out: &std::path::Path, command: &str) -> crate::zklora::Run {
    let out = out.to_str().unwrap();
    zklora(command.split(' ').map(|part| part.replace("$OUT", out)))
}

/// Convolutions, experts and layers that were trained whole are compiled.
#[test]
fn layers_of_all_kinds_compile() {
    let out = tempfile::tempdir().unwrap();
    for name in ["bias_all", "convolutions_dora", "convolutions_lora", "experts", "tied_tokens"] {
        let case = fixture("peft").join(name);
        let case = case.to_str().unwrap();
        let export = format!("--json export --adapter {case} --base {case}/base --out $OUT/{name}");
        let export = in_folder(out.path(), &export).ok();
        assert_eq!(export.json()["left_out"].to_string(), "[]");
        assert_eq!(export.stderr, "");
        let compile = format!("--json compile $OUT/{name} --out $OUT/{name}.out");
        let compiled = in_folder(out.path(), &compile).ok();
        assert_eq!(compiled.json()["left_out"].to_string(), "[]");
    }
}

/// What is left out is said by the manifest, by every verdict and by the audit.
#[test]
fn what_is_left_out_is_in_the_manifest_and_in_every_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    let adapter = fixture("peft/modules_to_save");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(adapter.join(file), out.join(file)).unwrap();
    }
    // The rows of q alone.
    let bytes = std::fs::read(adapter.join("expected.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let rows = safetensors::serialize([("q.x", tensors.tensor("q.x").unwrap())], None).unwrap();
    std::fs::write(out.join("rows.safetensors"), rows).unwrap();

    let export = in_folder(out, "export --adapter $OUT --out $OUT/onnx").ok();
    assert!(export.stderr.contains("head.weight") && export.stderr.contains("--base"));
    in_folder(out, "compile $OUT/onnx --out $OUT/a").ok();
    let manifest = std::fs::read_to_string(out.join("a/public/manifest.json")).unwrap();
    let names = r#""left_out":["embed_tokens.weight","head.bias","#;
    assert!(manifest.contains(names), "{manifest:.600}");
    let inputs = "--inputs $OUT/rows.safetensors";
    in_folder(out, &format!("trace record --artifacts $OUT/a {inputs} --out $OUT/trace")).ok();
    in_folder(out, "prove --artifacts $OUT/a --trace $OUT/trace --out $OUT/proof").ok();
    let verify = "verify --public $OUT/a/public --trace $OUT/trace --proof $OUT/proof";
    let verified = in_folder(out, verify).ok();
    assert!(verified.stdout.contains("no part of this adapter's deltas: embed_tokens.weight"));

    // The audit leaves the same tensors out, and sees another adapter's.
    let opening = "--opening $OUT/a/private/opening";
    for delivered in ["$OUT", "$OUT/onnx"] {
        let audit = format!("audit --public $OUT/a/public --adapter {delivered} {opening}");
        assert!(in_folder(out, &audit).ok().stdout.contains("ACCEPTED"));
    }
    let path = out.join("adapter_model.safetensors");
    let mut weights = std::fs::read(&path).unwrap();
    let text = b"model.head.bias";
    let at = weights.windows(text.len()).position(|window| window == text).unwrap();
    weights[at..at + text.len()].copy_from_slice(b"model.haed.bias");
    std::fs::write(&path, weights).unwrap();
    let audit = format!("audit --public $OUT/a/public --adapter $OUT {opening}");
    let refused = in_folder(out, &audit).refused(1, "haed.bias: a layer that was trained whole");
    assert!(refused.stdout.contains("head.bias: the manifest says"), "{}", refused.stdout);
}
