//! `zklora leak`: measures what a few rows reveal of small real adapters, and how other commands
//! report the result.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;

use crate::{
    args, zk,
    zklora::{Run, fixture, zklora, zklora_command},
};

/// A compiled adapter of a tiny base model.
fn compiled(adapter: &str, base: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let adapter = fixture("adapters").join(adapter);
    zk![
        "export",
        "--adapter",
        adapter,
        "--base",
        fixture("base").join(base),
        "--out",
        path("onnx")
    ]
    .ok();
    zk!["compile", path("onnx"), "--out", path("artifacts")].ok();
    // Text like the training data of the trained adapters. The tiny models have one token per byte.
    let text: String = (0..60)
        .map(|i| format!("let x{i} = {i}; println!(\"{{}}\", x{i} + {});\n", i * 7))
        .collect();
    fs::write(path("text"), text).unwrap();
    folder
}

/// `zklora --json leak` on it, with more arguments.
fn leak(folder: &Path, base: &str, more: &[&str]) -> Run {
    let model = fixture("base").join(base);
    let (artifacts, text) = (folder.join("artifacts"), folder.join("text"));
    let mut all =
        args!["--json", "leak", "--artifacts", artifacts, "--text", text, "--context", "128"]
            .to_vec();
    all.extend(args!["--base", model.join("dynamo.onnx"), "--base-weights", model]);
    all.extend(more.iter().map(std::ffi::OsString::from));
    zklora(all)
}

fn shares(measured: &Value, of: impl Fn(&Value) -> &Value) -> Vec<f64> {
    measured["recovered"]
        .as_array()
        .unwrap()
        .iter()
        .map(|recovered| of(recovered).as_f64().unwrap())
        .collect()
}

/// The output of `serve` with these arguments, up to the line with this text.
fn served(artifacts: PathBuf, more: &[&str], last: &str) -> String {
    let mut command = zklora_command();
    command.args(args!["serve", "--listen", "127.0.0.1:0", "--artifacts", artifacts]).args(more);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        said.push_str(&line.unwrap());
        said.push('\n');
        if said.contains(last) {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    said
}

#[test]
fn what_rows_give_away_is_measured_kept_and_said_wherever_rows_leave() {
    let folder = compiled("llama_qv_r4", "tiny-llama");
    let path = |name: &str| folder.path().join(name);
    let inputs = fixture("adapters/llama_qv_r4/activations.safetensors");
    let record = |out: &str| {
        zk![
            "trace",
            "record",
            "--artifacts",
            path("artifacts"),
            "--inputs",
            inputs,
            "--out",
            path(out)
        ]
    };
    let plan = || zk!["compile", path("onnx"), "--out", path("artifacts"), "--plan"].ok().stdout;
    let serve = || served(path("artifacts"), &["--max-rows", "unlimited"], "never before");
    for said in [serve(), record("1.safetensors").ok().stdout, plan()] {
        assert!(
            said.contains("never measured: run zklora leak") && said.contains("after payment"),
            "{said}"
        );
    }

    let ledger = fs::read(path("artifacts/private/served.jsonl")).unwrap();
    let plot = path("leak.svg");
    let measured = leak(
        folder.path(),
        "tiny-llama",
        &["--rows", "64", "--held-out-tokens", "256", "--plot", plot.to_str().unwrap()],
    );
    let measured = measured.ok().json();
    // No row was sent, so none is counted.
    assert_eq!(fs::read(path("artifacts/private/served.jsonl")).unwrap(), ledger);
    assert_eq!((&measured["format"], &measured["version"]), (&"zklora-leak".into(), &1.into()));
    assert_eq!((&measured["modules"], &measured["held_out_tokens"]), (&4.into(), &256.into()));
    assert_eq!(shares(&measured, |r| &r["rows"]), [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]);
    assert!(
        measured["adapted_loss"].as_f64().unwrap() < measured["base_loss"].as_f64().unwrap() - 0.5,
        "{measured}"
    );
    // The last fit has as many rows as features, so it recovers nearly everything.
    let (gain, energy) =
        (shares(&measured, |r| &r["gain"]), shares(&measured, |r| &r["energy"]["median"]));
    assert!(gain[6] > 0.9 && energy[6] > 0.9 && energy.is_sorted(), "{gain:?} {energy:?}");
    for recovered in measured["recovered"].as_array().unwrap() {
        let [least, median, most] =
            ["least", "median", "most"].map(|key| recovered["energy"][key].as_f64().unwrap());
        assert!(least <= median && median <= most && most <= 1.0, "{recovered}");
    }
    let kept = path("artifacts/private/leak.json");
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(&kept).unwrap()).unwrap(), measured);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let svg = fs::read_to_string(&plot).unwrap();
    assert!(svg.starts_with("<svg xmlns=") && svg.matches("<polyline").count() == 2, "{svg}");

    let first = format!("1 row a module give {:.1} % of the gain", gain[0] * 100.0);
    for said in [serve(), record("2.safetensors").ok().stdout, plan()] {
        assert!(said.contains(&first) && said.contains("after payment"), "{first}: {said}");
        assert!(!said.contains("never measured"), "{said}");
    }
    // With other weights in the folder, the measurement does not apply.
    let mut other: Value = measured.clone();
    other["adapter_id"] = "0".repeat(64).into();
    fs::write(&kept, other.to_string()).unwrap();
    assert!(plan().contains("never measured"));

    // The table has a line for every number of rows.
    let (text, model) = (path("text"), fixture("base/tiny-llama/dynamo.onnx"));
    let shown = zk![
        "leak",
        "--artifacts",
        path("artifacts"),
        "--base",
        model,
        "--base-weights",
        fixture("base/tiny-llama"),
        "--text",
        text,
        "--rows",
        "16",
        "--held-out-tokens",
        "64"
    ];
    let shown = shown.ok().stdout;
    assert!(
        shown.contains("gain recovered")
            && shown.contains("\n16 ")
            && shown.contains("lower bounds"),
        "{shown}"
    );
}

#[test]
fn serve_says_whether_rows_are_served_and_what_they_give_away() {
    let folder = compiled("llama_qv_r4", "tiny-llama");
    let artifacts = || folder.path().join("artifacts");
    let formulas = ["Exact recovery", "linear algebra", "within reach", "crafted"];
    let none = "none (--max-rows N or unlimited switches the row service on)";
    let off = served(artifacts(), &[], none);
    assert!(!off.contains("give away") && !off.contains("counted per folder"), "{off}");
    for (choice, shown) in [
        ("2000", "at most 2,000 a module, over all sessions and users"),
        ("unlimited", "Rows                 unlimited"),
    ] {
        let on = served(artifacts(), &["--max-rows", choice], "never before");
        let parts = [shown, "counted per folder", "What rows give away  never measured"];
        assert!(parts.iter().all(|part| on.contains(part)), "{on}");
        assert!(!formulas.iter().any(|formula| on.contains(formula)), "{on}");
    }
    for (wrong, why) in
        [("0", "to serve no rows, leave it out"), ("all", "a number of rows, or `unlimited`")]
    {
        zk!["serve", "--artifacts", artifacts(), "--max-rows", wrong].refused(2, why);
    }
}

#[test]
fn what_was_seen_is_known_whatever_the_kind_of_term() {
    for (adapter, base) in [
        ("gpt2_lora_bias", "tiny-gpt2"),
        ("gpt2_ia3", "tiny-gpt2"),
        ("gpt2_dora_r4", "tiny-gpt2"),
        ("gpt2_wte_embedding_r4", "tiny-gpt2"),
        ("llama_embedding_dora_r2", "tiny-llama"),
    ] {
        let folder = compiled(adapter, base);
        // The held-out text is the text of the rows: of an embedding, they reveal nothing about
        // other tokens.
        let text = folder.path().join("text");
        let same =
            ["--held-out", text.to_str().unwrap(), "--rows", "512", "--held-out-tokens", "512"];
        let measured = leak(folder.path(), base, &same).ok().json();
        let least = shares(&measured, |r| &r["energy"]["least"]);
        assert!(least.last().unwrap() > &0.999_999, "{adapter}: {least:?}");
        let loss =
            measured["recovered"].as_array().unwrap().last().unwrap()["loss"].as_f64().unwrap();
        assert!(
            (loss - measured["adapted_loss"].as_f64().unwrap()).abs() < 1e-3,
            "{adapter}: {measured}"
        );
    }
}

#[test]
fn what_cannot_be_measured_is_refused_and_nothing_is_kept() {
    let folder = compiled("llama_qv_r4", "tiny-llama");
    let path = |name: &str| folder.path().join(name);
    let refused =
        |more: &[&str], why: &str| leak(folder.path(), "tiny-llama", more).refused(2, why);
    refused(&["--plot", path("nowhere/leak.svg").to_str().unwrap()], "create it first");
    fs::write(path("short"), "let x = 1;").unwrap();
    refused(
        &["--held-out", path("short").to_str().unwrap()],
        "short: 10 tokens are too few: a loss takes at least 64",
    );
    refused(&["--held-out", path("missing").to_str().unwrap()], "missing");
    fs::write(path("bytes"), [0xff; 500]).unwrap();
    refused(&["--held-out", path("bytes").to_str().unwrap()], "bytes: not text in UTF-8");
    refused(&["--map", "nothing=tensor"], "no contributor has a module of this name");
    // One base model lacks the layers, another has other weights than the adapter's.
    leak(folder.path(), "tiny-gpt2", &[]).refused(2, "self_attn");
    let (model, weights) = (fixture("base/tiny-llama/dynamo.onnx"), fixture("base/tiny-gpt2"));
    let wrong = zk![
        "leak",
        "--artifacts",
        path("artifacts"),
        "--text",
        path("text"),
        "--base",
        model,
        "--base-weights",
        weights
    ];
    wrong.refused(2, "with fingerprint");
    fs::rename(path("short"), path("text")).unwrap();
    refused(&[], "text: 10 tokens are too few: one half gives rows");
    assert!(!path("artifacts/private/leak.json").exists());
}
