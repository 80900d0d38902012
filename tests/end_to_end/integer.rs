//! `zklora integer`: integer models of small base models, with adapters, against floats.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    args, zk,
    zklora::{Run, fixture, zklora, zklora_command},
};

/// A folder with the integer model of a base model, made from its dynamo export.
fn model(base: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut all = args![
        "integer",
        "compile",
        "--base",
        onnx(base, "dynamo"),
        "--out",
        folder.path().join("integer")
    ]
    .to_vec();
    if !fixture("base").join(base).join("tokenizer.json").exists() {
        all.push("--generated-tokens".into());
    }
    zklora(all).ok();
    folder
}

fn onnx(base: &str, exporter: &str) -> PathBuf {
    fixture("base").join(base).join(format!("{exporter}.onnx"))
}

/// Compiles an adapter into the folder.
fn adapter(folder: &Path, name: &str) -> PathBuf {
    let (exported, artifacts) =
        (folder.join(format!("{name}.onnx")), folder.join(format!("{name}.artifacts")));
    zk!["export", "--adapter", fixture("adapters").join(name), "--out", exported.clone()].ok();
    zk!["compile", exported, "--out", artifacts.clone()].ok();
    artifacts
}

fn check(folder: &Path, base: &str, artifacts: &Path, more: &[&str]) -> Run {
    let mut all = args![
        "--json",
        "integer",
        "check",
        "--model",
        folder.join("integer"),
        "--base",
        onnx(base, "legacy"),
        "--artifacts",
        artifacts,
        "--text",
        fixture("text").join("kjv_held_out.txt"),
        "--max-units",
        "3"
    ]
    .to_vec();
    all.extend(more.iter().map(std::ffi::OsString::from));
    zklora(all)
}

/// Small models differ from floats by rounding only, with every kind of adapter that has an integer
/// model; the integer model of one exporter's file is that of the other's.
#[test]
fn integers_agree_with_floats() {
    for (base, adapters) in [
        (
            "tiny-llama",
            &["llama_qv_r4", "llama_all_linear_r8", "llama_lokr_r2", "llama_adalora_r5"][..],
        ),
        ("tiny-gpt2", &["gpt2_c_attn_r4", "gpt2_lora_bias", "gpt2_all_r8_rslora_patterns"]),
    ] {
        let folder = model(base);
        for name in adapters {
            let artifacts = adapter(folder.path(), name);
            let run = check(folder.path(), base, &artifacts, &["--limit", "0.02"]).ok();
            let found = run.json();
            for side in ["base", "adapted"] {
                let side = &found["comparison"][side];
                let number = |field: &str| side[field].as_f64().unwrap();
                let difference = (number("float_loss") - number("integer_loss")).abs();
                assert!(number("mean") < 0.002 && difference < 0.0005, "{name}: {side}");
                assert_eq!(side["tokens"], 3 * 63);
            }
            assert!(!found["comparison"]["worst"].as_array().unwrap().is_empty());
        }
    }
}

#[test]
fn a_limit_that_is_exceeded_is_exit_code_1_and_a_plot_is_drawn() {
    let folder = model("tiny-llama");
    let artifacts = adapter(folder.path(), "llama_qv_r4");
    let plot = folder.path().join("check.svg");
    let more = ["--limit", "0.000001", "--plot", plot.to_str().unwrap()];
    check(folder.path(), "tiny-llama", &artifacts, &more).refused(1, "exceeded");
    let plot = fs::read_to_string(plot).unwrap();
    assert_eq!(plot.matches("<polyline").count(), 2);
}

fn run(folder: &Path, base: &str, more: &[&std::ffi::OsStr]) -> Run {
    let model = folder.join("integer");
    let mut all =
        args!["--json", "integer", "run", "--model", model, "--base", onnx(base, "dynamo")]
            .to_vec();
    all.extend(more.iter().map(std::ffi::OsString::from));
    zklora(all)
}

#[test]
fn units_of_every_form_are_scored() {
    let folder = model("tiny-llama");
    let units = folder.path().join("units.jsonl");
    fs::write(
        &units,
        concat!(
            r#"{"text": "let x = 5;"}"#,
            "\n\n",
            r#"{"tokens": [1, 2, 3, 4], "from": 2}"#,
            "\n",
            r#"{"prompt": "let x =", "completion": " 5;"}"#,
            "\n",
            r#"{"prompt": "let ", "choices": ["x = 5;", "Q~"], "answer": 0, "normalise": "bytes"}"#,
            "\n",
            r#"{"prompt": "let x", "generate": 4}"#,
            "\n",
        ),
    )
    .unwrap();
    let out = folder.path().join("scores.jsonl");
    let more = ["--units".as_ref(), units.as_os_str(), "--out".as_ref(), out.as_os_str()];
    let found = run(folder.path(), "tiny-llama", &more).ok().json();
    let units = found["units"].as_array().unwrap();
    let lengths: Vec<usize> =
        units[..3].iter().map(|unit| unit["tokens"].as_array().unwrap().len()).collect();
    // One token per byte.
    assert_eq!(lengths, [9, 2, 3]);
    assert_eq!((&units[3]["chosen"], &units[3]["correct"]), (&0.into(), &true.into()));
    assert_eq!(units[4]["generated"].as_array().unwrap().len(), 4);
    let lines: Vec<Value> = fs::read_to_string(out)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(&lines, units);
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let folder = model("tiny-llama");
    let text = fixture("text").join("kjv_held_out.txt");
    let more = ["--text-file".as_ref(), text.as_os_str()];
    run(folder.path(), "tiny-llama", &more).ok();
    // Another base model.
    run(folder.path(), "tiny-gpt2", &more).refused(2, "another base model");
    // An adapter of another base model, and kinds that have no integer model.
    for (name, why) in [
        ("gpt2_c_attn_r4", "has no layer called"),
        ("llama_ia3", "has no integer model"),
        ("llama_embedding_dora_r2", ""),
    ] {
        let exported = folder.path().join("exported");
        let _ = fs::remove_dir_all(&exported);
        let base = fixture("base").join(format!("tiny-{}", name.split('_').next().unwrap()));
        zk![
            "export",
            "--adapter",
            fixture("adapters").join(name),
            "--base",
            base,
            "--out",
            exported.clone()
        ]
        .ok();
        let artifacts = folder.path().join(name);
        zk!["compile", exported, "--out", artifacts.clone()].ok();
        let mut all = more.to_vec();
        all.extend(["--artifacts".as_ref(), artifacts.as_os_str()]);
        run(folder.path(), "tiny-llama", &all).refused(2, why);
    }
    // Weights that are not those of the adapter id, and a public folder alone.
    let artifacts = adapter(folder.path(), "llama_qv_r4");
    let mut all = more.to_vec();
    all.extend(["--artifacts".as_ref(), artifacts.as_os_str()]);
    run(folder.path(), "tiny-llama", &all).ok();
    let weights = artifacts.join("private/weights.bin");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 0xff;
    *bytes.iter_mut().rev().nth(4).unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let changed = run(folder.path(), "tiny-llama", &all);
    assert_eq!(changed.code, 2, "{}", changed.stdout);
    fs::remove_dir_all(artifacts.join("private")).unwrap();
    run(folder.path(), "tiny-llama", &all).refused(2, "no private/ folder");
    // A file that is read and written.
    let units = folder.path().join("units.jsonl");
    fs::write(&units, "{\"text\": \"let x\"}\n").unwrap();
    let both = ["--units".as_ref(), units.as_os_str(), "--out".as_ref(), units.as_os_str()];
    run(folder.path(), "tiny-llama", &both).refused(2, "--out names the file that is read");
    // Another function than the pinned one.
    let digest = run(folder.path(), "tiny-llama", &more).json()["integer_model"].clone();
    let digest = digest.as_str().unwrap();
    let mut pinned = more.to_vec();
    pinned.extend(["--digest", digest].map(std::ffi::OsStr::new));
    run(folder.path(), "tiny-llama", &pinned).ok();
    let other = "0".repeat(64);
    pinned[3] = std::ffi::OsStr::new(&other);
    run(folder.path(), "tiny-llama", &pinned).refused(2, "this is another function");
    // A changed scale.
    let path = folder.path().join("integer/integer-model.json");
    let file = fs::read_to_string(&path).unwrap();
    let changed = file.replacen("\"largest_sum\":", "\"largest_sum\":1", 1);
    assert_ne!(changed, file);
    fs::write(&path, changed).unwrap();
    run(folder.path(), "tiny-llama", &more).refused(2, "differ");
    fs::write(&path, file.replacen("\"rules\":1", "\"rules\":2", 1)).unwrap();
    run(folder.path(), "tiny-llama", &more).refused(2, "rules 2");
    fs::write(&path, "{}").unwrap();
    run(folder.path(), "tiny-llama", &more).refused(2, "integer-model.json");
}

/// A unit that leaves a range has no score: the mean is not that of the others, and only the
/// warning says where.
#[test]
fn a_unit_without_a_score_stops_the_mean() {
    let folder = model("tiny-llama");
    let path = folder.path().join("integer/integer-model.json");
    let file = fs::read_to_string(&path).unwrap();
    // Sixteen bits more leave no room for the residual stream of some tokens.
    let purpose = file.find("\"purpose\":\"residual\"").unwrap();
    let (before, after) = file.split_at(purpose);
    let bits = after.find("\"bits\":").unwrap() + 7;
    let end = bits + after[bits..].find('}').unwrap();
    let found: i32 = after[bits..end].parse().unwrap();
    let changed = format!("{before}{}{}{}", &after[..bits], found + 14, &after[end..]);
    fs::write(&path, changed).unwrap();
    let text = fixture("text").join("kjv_held_out.txt");
    let run = run(folder.path(), "tiny-llama", &["--text-file".as_ref(), text.as_os_str()]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let units = run.json()["units"].as_array().unwrap().clone();
    let out: Vec<&Value> =
        units.iter().filter(|unit| unit["out_of_range"] == Value::Bool(true)).collect();
    assert!(!out.is_empty());
    assert!(!run.stdout.contains("times its range") && run.stderr.contains("times its range"));
}

#[test]
fn a_base_model_without_a_tokenizer_needs_a_flag() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("integer");
    zk!["integer", "compile", "--base", onnx("tiny-qwen2", "dynamo"), "--out", out]
        .refused(2, "--tokenizer");
}

/// The figures of docs/integer-model.md, "Accuracy", with some room.
#[test]
#[ignore = "needs ZKLORA_SMOLLM2, the folder that models/make/smollm2.py makes"]
fn smollm2_in_integers_is_as_close_to_floats_as_the_page_says() {
    let model = PathBuf::from(std::env::var("ZKLORA_SMOLLM2").unwrap());
    let (base, tokenizer) = (model.join("onnx/model.onnx"), model.join("hf/tokenizer.json"));
    let folder = tempfile::tempdir().unwrap();
    let artifacts = adapter(folder.path(), "smollm2-r4-qv");
    let out = folder.path().join("integer");
    let named = args!["--base", base.clone(), "--tokenizer", tokenizer.clone()];
    let compile = args!["--json", "integer", "compile", "--out", out.clone()];
    let made = zklora([&compile[..], &named[..]].concat()).ok().json();
    let common = args!["--model", out, "--artifacts", artifacts, "--allow-other-base"];
    let text = fixture("text").join("kjv_held_out.txt");
    let check = args!["--json", "integer", "check", "--text", text.clone()];
    let found = zklora([&check[..], &named[..], &common[..]].concat()).ok().json();
    println!("seconds in integers and floats: {}", found["comparison"]["seconds"]);
    for side in ["base", "adapted"] {
        let side = &found["comparison"][side];
        let number = |field: &str| side[field].as_f64().unwrap();
        let difference = (number("float_loss") - number("integer_loss")).abs();
        println!("{difference:.5} {:.5} {:.5}", number("mean"), number("largest"));
        assert!(difference < 0.002 && number("mean") < 0.006 && number("largest") < 0.05);
    }
    // The same scores with one thread and with two.
    let run = args!["--json", "integer", "run", "--text-file", text];
    let scores = |threads: &str| {
        let mut command = zklora_command();
        command.env("RAYON_NUM_THREADS", threads);
        command.args([&run[..], &named[..], &common[..]].concat());
        let output = crate::zklora::output(&mut command).unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["integer_model"], made["integer_model"]);
        found["units"].clone()
    };
    assert_eq!(scores("1"), scores("2"));
}
