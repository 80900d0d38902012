//! Two-party inference with processes: `zklora serve` and `zklora infer` on a small real language
//! model, with parties that are killed.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    args, zk,
    zklora::{Run, copy_folder, fixture, zklora_command},
};

/// Text that the tiny models predict badly: some windows of 128 bytes.
fn text() -> String {
    (0..40).map(|i| format!("let x{i} = {i}; println!(\"{{}}\", x{i} + {});\n", i * 7)).collect()
}

/// Compiled artifacts of a fixture, made once; tests serve copies of them.
pub struct Contributor(Folder);

/// The folder of the artifacts: a temporary one, or one of the test.
enum Folder {
    Own(tempfile::TempDir),
    Named(PathBuf),
}

impl Contributor {
    pub fn path(&self) -> &Path {
        match &self.0 {
            Folder::Own(folder) => folder.path(),
            Folder::Named(folder) => folder,
        }
    }
}

/// A copy of the public and private files in another folder.
pub fn copy_of(contributor: &Contributor, to: &Path) -> Contributor {
    copy_files(contributor.path(), to);
    Contributor(Folder::Named(to.to_path_buf()))
}

fn copy_files(from: &Path, to: &Path) {
    for part in ["public", "private"] {
        copy_folder(&from.join(part), &to.join(part));
    }
}

fn contributor(
    adapter: &'static str,
    base: &str,
    cell: &'static OnceLock<tempfile::TempDir>,
) -> Contributor {
    let compiled = cell.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        zk![
            "export",
            "--adapter",
            fixture(adapter),
            "--base",
            fixture(base),
            "--out",
            path("onnx")
        ]
        .ok();
        zk!["compile", path("onnx"), "--out", path("artifacts")].ok();
        folder
    });
    let copy = tempfile::tempdir().unwrap();
    copy_files(&compiled.path().join("artifacts"), copy.path());
    Contributor(Folder::Own(copy))
}

/// LoRA of rank 4 on q_proj and v_proj.
pub fn first() -> Contributor {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    contributor("adapters/llama_qv_r4", "base/tiny-llama", &MADE)
}

/// LoRA of rank 8 on all linear layers: shares q_proj and v_proj with the first.
fn second() -> Contributor {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    contributor("adapters/llama_all_linear_r8", "base/tiny-llama", &MADE)
}

/// `zklora serve`, killed when the value is dropped.
pub struct Server {
    child: Child,
    pub url: String,
    pub id: String,
    pub said: Value,
}

impl Server {
    /// A server that serves rows, any number of them unless `more` has a limit.
    pub fn start(contributor: &Contributor, listen: &str, more: &[&str]) -> Server {
        let unlimited = if more.contains(&"--max-rows") { None } else { Some("unlimited") };
        let rows = unlimited.into_iter().flat_map(|unlimited| ["--max-rows", unlimited]);
        let all: Vec<&str> = rows.chain(more.iter().copied()).collect();
        Server::without_rows(contributor, listen, &all)
    }

    /// A server that serves no rows, unless `more` says so.
    pub fn without_rows(contributor: &Contributor, listen: &str, more: &[&str]) -> Server {
        let mut command = zklora_command();
        command
            .args(["--json", "serve", "--listen", listen, "--artifacts"])
            .arg(contributor.path())
            .args(more);
        Server::of(command)
    }

    pub fn of(command: Command) -> Server {
        Server::logging(command, Stdio::null())
    }

    /// A server whose log goes to `log`.
    pub fn logging(mut command: Command, log: Stdio) -> Server {
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let text = |key: &str| said[key].as_str().unwrap().to_string();
        Server { child, url: text("url"), id: text("adapter_id"), said }
    }

    pub fn pinned(&self) -> String {
        format!("{}={}", self.url, self.id)
    }

    pub fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the server with SIGKILL; returns its address.
    pub fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.address().to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `zklora infer` on tiny-llama.
pub fn infer(contributors: &[&str], out: &Path, more: &[&str]) -> Child {
    infer_on("dynamo", contributors, out, more)
}

/// Starts `zklora infer` on an export of tiny-llama.
fn infer_on(export: &str, contributors: &[&str], out: &Path, more: &[&str]) -> Child {
    let mut command = zklora_command();
    command.args(["--json", "infer", "--base-weights"]).arg(fixture("base/tiny-llama"));
    command.arg("--base").arg(fixture(&format!("base/tiny-llama/{export}.onnx")));
    command.args(contributors.iter().flat_map(|contributor| ["--contributor", contributor]));
    command.arg("--out").arg(out).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub fn end(child: Child) -> Run {
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Waits until a log in this folder is longer than `bytes`.
pub fn wait_for_rows(folder: &Path, bytes: u64) -> PathBuf {
    let start = Instant::now();
    loop {
        let logs = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let log = logs.map(|e| e.path()).find(|path| {
            let extension = path.extension().unwrap_or_default();
            (extension == "rows" || extension == "log")
                && std::fs::metadata(path).is_ok_and(|m| m.len() > bytes)
        });
        if let Some(log) = log {
            return log;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "no rows in {}", folder.display());
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Verifies again, with only the files of the user's folder.
pub fn verify_again(folder: &Path, id: &str) -> Value {
    let (public, trace, proof) =
        (folder.join("public"), folder.join("trace.safetensors"), folder.join("session.pf"));
    zk![
        "--json",
        "verify",
        "--public",
        public,
        "--trace",
        trace,
        "--proof",
        proof,
        "--adapter-id",
        id
    ]
    .ok()
    .json()
}

#[test]
fn serve_and_infer_end_with_a_verified_proof() {
    let contributor = first();
    let server = Server::start(&contributor, "127.0.0.1:0", &["--max-rows", "100000"]);
    let user = tempfile::tempdir().unwrap();
    let out = user.path().join("session");
    let text = text();
    let run = end(infer(
        &[&server.pinned()],
        &out,
        &["--text", &text, "--prompt", "fn main() {", "--generate", "6"],
    ));
    let report = run.ok().json();
    let loss = &report["loss"];
    // The adapter is trained on such text, so it lowers the loss.
    assert!(loss["adapted"].as_f64().unwrap() < loss["base"].as_f64().unwrap() - 0.5, "{loss}");
    assert!(report["generated"]["tokens"].as_u64().unwrap() > 0);
    let session = &report["contributors"][0];
    assert_eq!((&session["verdict"], &session["pinned"]), (&"accepted".into(), &true.into()));
    assert!(session["rows_reused"].as_u64().unwrap() > 0);
    assert_eq!(report["points"].as_array().unwrap().len(), 4);
    let verdict = verify_again(&out.join("contributor-1"), &server.id);
    assert_eq!(verdict["session_id"], session["session_id"]);
    // The session in this folder is finished; another run needs another folder.
    end(infer(&[&server.pinned()], &out, &["--text", "x = 1"])).refused(2, "finished session");
    // A wrong pin is refused before anything is sent.
    let other = format!("{}={}", server.url, "0".repeat(64));
    end(infer(&[&other], &user.path().join("other"), &["--text", "x = 1"]))
        .refused(1, "was pinned");
}

#[test]
fn a_base_model_with_a_cache_gives_the_same_text_and_sends_every_row_once() {
    let contributor = first();
    let server = Server::start(&contributor, "127.0.0.1:0", &[]);
    let user = tempfile::tempdir().unwrap();
    let prompt = "fn main() {";
    let generated = |export: &str| {
        let more = ["--prompt", prompt, "--generate", "40"];
        let out = user.path().join(export);
        end(infer_on(export, &[&server.pinned()], &out, &more)).ok().json()
    };
    let (whole, cached) = (generated("dynamo"), generated("cached"));
    assert_eq!(cached["generated"]["adapted"], whole["generated"]["adapted"]);
    let session = &cached["contributors"][0];
    assert_eq!(session["verdict"], "accepted");
    // The four modules get every token once, but for the last, which is chosen and not run. Equal
    // tokens have equal rows in the first layer, and those are not sent again.
    let rows = |run: &Value| {
        let session = &run["contributors"][0];
        session["rows"].as_u64().unwrap() + session["rows_reused"].as_u64().unwrap()
    };
    let tokens = prompt.len() as u64 + cached["generated"]["tokens"].as_u64().unwrap() - 1;
    assert_eq!(rows(&cached), 4 * tokens);
    assert!(rows(&whole) > 10 * rows(&cached));
}

#[test]
fn rows_are_served_only_by_a_contributor_that_chose_it() {
    let contributor = first();
    let ledger = contributor.path().join("private/served.jsonl");
    let user = tempfile::tempdir().unwrap();
    let server = Server::without_rows(&contributor, "127.0.0.1:0", &[]);
    assert!(server.said["max_rows"].is_null() && server.said.get("leakage").is_none());
    let before = std::fs::read(&ledger).ok();
    let refused = end(infer(&[&server.pinned()], &user.path().join("none"), &["--text", "x = 1"]));
    refused.refused(2, "this contributor serves no rows (it did not choose --max-rows): ask for");
    assert_eq!(std::fs::read(&ledger).ok(), before);
    // A session that began under another choice ends with its proof.
    let address = server.kill();
    let server = Server::start(&contributor, &address, &[]);
    assert_eq!(server.said["max_rows"], "unlimited");
    let (out, text) = (user.path().join("session"), text());
    let pinned = server.pinned();
    let running = infer(&[&pinned], &out, &["--text", &text, "--patience", "30"]);
    wait_for_rows(&contributor.path().join("private/sessions"), 100_000);
    server.kill();
    let server = Server::without_rows(&contributor, &address, &[]);
    let run = end(running);
    run.refused(2, "this contributor serves no further rows");
    let report: Value =
        serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(report["contributors"][0]["verdict"], "accepted");
    let verdict = verify_again(&out.join("contributor-1"), &server.id);
    let rows = server.said["rows_served"].as_u64().unwrap();
    let proven = verdict["rows"].as_object().unwrap().values();
    assert_eq!(proven.map(|rows| rows.as_u64().unwrap()).max(), Some(rows));
}

#[test]
fn two_contributors_on_the_same_layers_add_up_and_each_is_proven() {
    let (one, two) = (first(), second());
    let (one, two) =
        (Server::start(&one, "127.0.0.1:0", &[]), Server::start(&two, "127.0.0.1:0", &[]));
    let user = tempfile::tempdir().unwrap();
    let text = text();
    let run = |contributors: &[&str], out: &str| {
        end(infer(contributors, &user.path().join(out), &["--text", &text])).ok().json()
    };
    let both = run(&[&one.pinned(), &two.pinned()], "both");
    let alone = run(&[&one.pinned()], "one");
    let verdicts: Vec<&str> = both["contributors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["verdict"].as_str().unwrap())
        .collect();
    assert_eq!(verdicts, ["accepted", "accepted"]);
    assert_eq!(both["points"].as_array().unwrap().len(), 14);
    let shared = both["points"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|point| point["contributors"] == serde_json::json!([0, 1]));
    assert_eq!(shared.count(), 4);
    assert_ne!(both["loss"]["adapted"], alone["loss"]["adapted"]);
    for (index, server) in [&one, &two].into_iter().enumerate() {
        verify_again(
            &user.path().join("both").join(format!("contributor-{}", index + 1)),
            &server.id,
        );
    }
}

#[test]
fn one_contributor_that_fails_is_named_and_the_work_of_the_other_is_kept() {
    let (one, two) = (first(), second());
    let one = Server::start(&one, "127.0.0.1:0", &[]);
    // It stops after 50 rows a module.
    let two = Server::start(&two, "127.0.0.1:0", &["--max-rows", "50"]);
    let user = tempfile::tempdir().unwrap();
    let text = text();
    let run = end(infer(
        &[&one.pinned(), &two.pinned()],
        user.path(),
        &["--text", &text, "--patience", "2"],
    ));
    let run = run.refused(2, "the limit is 50");
    assert!(run.stderr.contains(&two.url) && !run.stderr.contains(&one.url), "{}", run.stderr);
    let report: Value =
        serde_json::from_slice(&std::fs::read(user.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(report["contributors"][0]["verdict"], "accepted");
    verify_again(&user.path().join("contributor-1"), &one.id);
    // The rows that it served before it stopped are proven, too.
    let stopped = &report["contributors"][1];
    assert_eq!(stopped["verdict"], "accepted");
    assert!(stopped["why"].as_str().unwrap().contains("ended early"), "{stopped}");
    verify_again(&user.path().join("contributor-2"), &two.id);
}

#[test]
fn a_contributor_that_goes_away_for_good_is_named_and_nothing_is_shown_of_it() {
    let (one, two) = (first(), second());
    let folder = two.path().join("private/sessions");
    let one = Server::start(&one, "127.0.0.1:0", &[]);
    let two = Server::start(&two, "127.0.0.1:0", &[]);
    let user = tempfile::tempdir().unwrap();
    let text = text();
    let running =
        infer(&[&one.pinned(), &two.pinned()], user.path(), &["--text", &text, "--patience", "1"]);
    wait_for_rows(&folder, 200_000);
    let address = two.kill();
    let run = end(running).refused(2, "unreachable for 1.").refused(2, &address);
    run.refused(2, "contributor-2: run the same command again to resume it");
    let report: Value =
        serde_json::from_slice(&std::fs::read(user.path().join("report.json")).unwrap()).unwrap();
    let verdicts: Vec<&Value> =
        report["contributors"].as_array().unwrap().iter().map(|c| &c["verdict"]).collect();
    assert_eq!(verdicts, ["accepted", "failed"]);
    verify_again(&user.path().join("contributor-1"), &one.id);
}

#[test]
fn a_server_that_is_killed_in_the_middle_goes_on_and_proves_everything() {
    let contributor = first();
    let mut server = Server::start(&contributor, "127.0.0.1:0", &[]);
    let (pinned, id) = (server.pinned(), server.id.clone());
    let user = tempfile::tempdir().unwrap();
    let text = text();
    let running = infer(&[&pinned], user.path(), &["--text", &text]);
    for bytes in [20_000, 200_000] {
        wait_for_rows(&contributor.path().join("private/sessions"), bytes);
        let address = server.kill();
        server = Server::start(&contributor, &address, &[]);
    }
    let report = end(running).ok().json();
    assert_eq!(
        (&report["contributors"][0]["verdict"], &report["contributors"][0]["reconnections"]),
        (&"accepted".into(), &2.into())
    );
    verify_again(&user.path().join("contributor-1"), &id);
    // No row was counted twice, over three runs of the server.
    let address = server.kill();
    let server = Server::start(&contributor, &address, &[]);
    let trace = zk!["--json", "trace", "info", user.path().join("contributor-1/trace.safetensors")]
        .ok()
        .json();
    let rows = trace["rows"].as_object().unwrap().values().map(|rows| rows.as_u64().unwrap()).max();
    assert_eq!(server.said["rows_served"].as_u64(), rows);
    assert_eq!(server.said["sessions"]["proven"], 1);
}

#[test]
fn a_user_that_is_killed_in_the_middle_goes_on_with_the_same_command() {
    let contributor = first();
    let server = Server::start(&contributor, "127.0.0.1:0", &[]);
    let user = tempfile::tempdir().unwrap();
    let text = text();
    let mut running = infer(&[&server.pinned()], user.path(), &["--text", &text]);
    wait_for_rows(&user.path().join("contributor-1"), 200_000);
    running.kill().unwrap();
    running.wait().unwrap();
    let report = end(infer(&[&server.pinned()], user.path(), &["--text", &text])).ok().json();
    assert_eq!(report["contributors"][0]["verdict"], "accepted");
    assert!(
        report["contributors"][0]["rows_reused"].as_u64()
            > report["contributors"][0]["rows"].as_u64()
    );
    verify_again(&user.path().join("contributor-1"), &server.id);
}

#[test]
fn a_base_model_that_is_not_the_adapters_is_refused() {
    let contributor = first();
    let server = Server::start(&contributor, "127.0.0.1:0", &[]);
    let user = tempfile::tempdir().unwrap();
    let base = fixture("base/tiny-llama/dynamo.onnx");
    let infer = |more: &[std::ffi::OsString]| {
        let common = args![
            "infer",
            "--contributor",
            server.pinned(),
            "--base",
            base,
            "--text",
            "x = 1",
            "--out",
            user.path()
        ];
        crate::zklora::zklora([&common[..], more].concat())
    };
    let other = fixture("base/tiny-gpt2");
    infer(&args!["--base-weights", other])
        .refused(2, "use the model that the adapter was trained on");
    infer(&args!["--allow-other-base"]).ok();
}

/// The environment variable ZKLORA_SMOLLM2 names the folder that `models/make/smollm2.py` made.
#[test]
#[ignore = "needs SmolLM2: models/make/README.md"]
fn smollm2_with_the_trained_adapter_has_the_loss_that_peft_has_and_a_proof() {
    const TEXT: &str = "In the beginning God created the heaven and the earth. And the earth was \
                        without form, and void; and darkness was upon the face of the deep. And \
                        the Spirit of God moved upon the face of the waters. And God said, Let \
                        there be light: and there was light. And God saw the light, that it was \
                        good: and God divided the light from the darkness.";
    // Computed by torch 2.15.0 and peft 0.21.2 from the same weights.
    const BASE: f64 = 1.628_564_6;
    const ADAPTED: f64 = 1.333_489_9;
    let model = PathBuf::from(std::env::var("ZKLORA_SMOLLM2").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    zk!["export", "--adapter", fixture("adapters/smollm2-r4-qv"), "--out", path("onnx")].ok();
    zk!["compile", path("onnx"), "--out", path("artifacts")].ok();
    let mut command = zklora_command();
    command
        .args(["--json", "serve", "--max-rows", "unlimited", "--listen", "127.0.0.1:0"])
        .arg("--artifacts")
        .arg(path("artifacts"));
    let server = Server::of(command);
    let mut command = zklora_command();
    command.args(["--json", "infer", "--contributor", &server.pinned(), "--text", TEXT, "--base"]);
    command.arg(model.join("onnx/model.onnx")).arg("--base-weights").arg(model.join("hf"));
    command
        .arg("--tokenizer")
        .arg(model.join("hf/tokenizer.json"))
        .arg("--out")
        .arg(path("session"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let report = end(command.spawn().unwrap()).ok().json();
    for (ours, theirs) in [("base", BASE), ("adapted", ADAPTED)] {
        let ours = report["loss"][ours].as_f64().unwrap();
        assert!((ours - theirs).abs() < 1e-3 * theirs, "{ours}, peft: {theirs}");
    }
    assert_eq!(report["points"].as_array().unwrap().len(), 60);
    assert_eq!(report["contributors"][0]["verdict"], "accepted");
    verify_again(&path("session/contributor-1"), &server.id);
}
