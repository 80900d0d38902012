//! An operator's view of a server: metrics, log, and `zklora sessions`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Stdio,
};

use serde_json::Value;

use crate::{
    inference::{Contributor, Server, end, first, infer, wait_for_rows},
    zk,
    zklora::{Run, fixture, zklora_command},
};

fn sessions(contributor: &Contributor, more: &[&str]) -> Run {
    crate::zklora::run(
        zklora_command().arg("sessions").args(more).arg("--artifacts").arg(contributor.path()),
    )
}

fn in_json(contributor: &Contributor, more: &[&str]) -> Value {
    sessions(contributor, &[&["--json"], more].concat()).ok().json()
}

fn states(contributor: &Contributor) -> Vec<String> {
    let list = in_json(contributor, &["list"]);
    list["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["state"].as_str().unwrap().to_string())
        .collect()
}

fn only_id(contributor: &Contributor) -> String {
    let list = in_json(contributor, &[]);
    assert_eq!(list["sessions_in_all"], 1, "{list}");
    list["sessions"][0]["id"].as_str().unwrap().to_string()
}

/// The largest number of rows of a module.
fn most(rows: &Value) -> Option<u64> {
    rows.as_object().unwrap().values().filter_map(Value::as_u64).max()
}

/// What is at `http://ADDRESS/metrics`, by series.
pub fn scrape(url: &str) -> BTreeMap<String, f64> {
    let address = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let lines = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap());
    lines.map(|(series, value)| (series.to_string(), value.parse().unwrap())).collect()
}

#[test]
fn an_operator_watches_a_session_and_removes_what_is_left_of_it() {
    let (contributor, user) = (first(), tempfile::tempdir().unwrap());
    let log = user.path().join("log");
    let mut command = zklora_command();
    command.args([
        "--json",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--metrics",
        "127.0.0.1:0",
        "--max-rows",
        "5000",
    ]);
    command.args(["--log-format", "json", "--artifacts"]).arg(contributor.path());
    let server = Server::logging(command, Stdio::from(File::create(&log).unwrap()));
    assert!(
        server.said["budget"].as_str().unwrap().contains("a copy of this folder has its own count")
    );
    assert_eq!(server.said["sessions"]["set_aside"], serde_json::json!([]));
    let metrics = server.said["metrics"].as_str().unwrap().to_string();
    assert!(
        scrape(&metrics)
            .iter()
            .all(|(name, value)| !name.starts_with("zklora_rows_served") || *value == 0.0)
    );
    let out = user.path().join("session");
    let report = end(infer(&[&server.pinned()], &out, &["--text", "x = 1; y = 2"])).ok().json();
    let listed = in_json(&contributor, &["list"]);
    let session = &listed["sessions"][0];
    let rows = session["rows_in_all"].as_u64().unwrap();
    assert!(rows > 0 && listed["server_runs"] == true, "{listed}\n{report}");
    // The metrics have the ledger's numbers of rows.
    let page = scrape(&metrics);
    let value =
        |series: &str| *page.get(series).unwrap_or_else(|| panic!("no {series} in {page:?}"));
    for (module, rows) in session["rows"].as_object().unwrap() {
        assert_eq!(
            value(&format!("zklora_rows_served{{module=\"{module}\"}}")),
            rows.as_f64().unwrap()
        );
        assert_eq!(
            value(&format!("zklora_rows_left{{module=\"{module}\"}}")),
            5000.0 - rows.as_f64().unwrap()
        );
    }
    assert_eq!(value("zklora_client_rows{client=\"anonymous\"}"), rows as f64);
    assert_eq!(value("zklora_proof_seconds_count"), 1.0);
    assert_eq!(value("zklora_sessions{state=\"proven\"}"), 1.0);
    assert!(value("zklora_batches_total") > 0.0 && value("zklora_sent_bytes_total") > 0.0);
    // The log has one object per line, with the rows of each event.
    let text = fs::read_to_string(&log).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let event = |message: &str| {
        events.iter().find(|event| event["message"] == message).unwrap_or_else(|| panic!("{text}"))
    };
    assert!(
        event("began")["rows"].as_u64().unwrap() > 0 && event("began")["client"] == "anonymous"
    );
    assert_eq!(
        (event("ended")["rows"].as_u64(), event("proven")["rows"].as_u64()),
        (Some(rows), Some(rows))
    );
    assert!(event("proven")["seconds"].is_f64() && event("proof fetched")["time"].is_string());
    // The sessions in the folder.
    let id = session["id"].as_str().unwrap().to_string();
    assert_eq!(
        (session["state"].as_str(), session["client"].as_str()),
        (Some("fetched"), Some("anonymous"))
    );
    let shown = in_json(&contributor, &["show", &id[..12]]);
    assert!(shown["batches"].as_u64().unwrap() > 0 && shown["id"] == id.as_str());
    let table = sessions(&contributor, &["list"]).ok().stdout;
    assert!(
        table.contains(&id[..16]) && table.contains("fetched") && table.contains("  running"),
        "{table}"
    );
    assert!(sessions(&contributor, &["show", &id]).ok().stdout.contains("counted in the ledger"));
    let dry = in_json(&contributor, &["prune", "--older-than", "0s", "--dry-run"]);
    assert_eq!(
        (dry["sessions"].as_array().unwrap().len(), &dry["dry_run"]),
        (1, &Value::Bool(true))
    );
    assert!(
        in_json(&contributor, &["prune", "--older-than", "7d"])["sessions"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let files = contributor.path().join("private/sessions");
    assert_eq!(fs::read_dir(&files).unwrap().count(), 3);
    let pruned = sessions(&contributor, &["prune", "--older-than", "0s"]).ok().stdout;
    assert!(pruned.contains("they stay counted"), "{pruned}");
    assert_eq!(
        (fs::read_dir(&files).unwrap().count(), states(&contributor)),
        (0, vec!["removed".to_string()])
    );
    let address = server.kill();
    let server = Server::start(&contributor, &address, &[]);
    assert_eq!(server.said["rows_served"].as_u64(), most(&session["rows"]));
}

#[test]
fn an_operator_gives_a_session_up_and_has_another_one_tried_again() {
    let (contributor, user) = (first(), tempfile::tempdir().unwrap());
    let server = Server::start(&contributor, "127.0.0.1:0", &[]);
    let text: String = (0..40)
        .map(|i| format!("let x{i} = {i}; println!(\"{{}}\", x{i} + {});\n", i * 7))
        .collect();
    let mut running = infer(&[&server.pinned()], &user.path().join("one"), &["--text", &text]);
    let log = wait_for_rows(&contributor.path().join("private/sessions"), 100_000);
    running.kill().unwrap();
    running.wait().unwrap();
    let id = only_id(&contributor);
    sessions(&contributor, &["abandon", &id]).refused(2, "another process serves from this folder");
    sessions(&contributor, &["retry", &id]).refused(2, "only a session that was set aside");
    let (pinned, address) = (server.pinned(), server.kill());
    let open = in_json(&contributor, &["show", &id]);
    assert_eq!(
        (open["state"].as_str(), open["counted_in_ledger"].as_bool()),
        (Some("open"), Some(false))
    );
    let given_up = sessions(&contributor, &["abandon", &id[..10]]).ok().stdout;
    assert!(
        given_up.contains("they stay counted") && given_up.contains("gets no proof"),
        "{given_up}"
    );
    assert!(!log.exists());
    let left = in_json(&contributor, &["show", &id]);
    assert_eq!((&left["rows"], left["state"].as_str()), (&open["rows"], Some("abandoned")));
    let server = Server::start(&contributor, &address, &[]);
    assert_eq!(server.said["rows_served"].as_u64(), most(&open["rows"]));
    // The user begins another session, which is proven. Then its files simulate proofs of it that
    // killed servers.
    end(infer(&[&pinned], &user.path().join("one"), &["--text", &text]))
        .refused(2, "was served before");
    end(infer(&[&pinned], &user.path().join("two"), &["--text", "x = 1"])).ok();
    server.kill();
    let second = in_json(&contributor, &["list", "--limit", "1"])["sessions"][0]["id"]
        .as_str()
        .unwrap()
        .to_string();
    let proof = log.with_file_name(format!("{second}.pf"));
    fs::remove_file(&proof).unwrap();
    fs::write(proof.with_extension("proving"), "3\n").unwrap();
    let server = Server::start(&contributor, &address, &[]);
    assert_eq!(server.said["sessions"]["set_aside"], serde_json::json!([second]));
    server.kill();
    let table = sessions(&contributor, &[]).ok().stdout;
    assert!(table.contains("set aside") && table.contains("zklora sessions retry"), "{table}");
    sessions(&contributor, &["retry", &second]).ok();
    let server = Server::start(&contributor, &address, &[]);
    assert_eq!(server.said["sessions"]["to_prove"], 1);
    let start = std::time::Instant::now();
    while !proof.exists() {
        assert!(start.elapsed() < std::time::Duration::from_secs(120), "it is not proven");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(states(&contributor), ["fetched", "abandoned"]);
}

#[test]
fn sessions_are_named_by_what_is_known_and_foreign_text_stays_in_its_cell() {
    let contributor = first();
    let recorded = |id: &str| {
        let (inputs, out) = (
            fixture("adapters/llama_qv_r4/activations.safetensors"),
            contributor.path().join("trace"),
        );
        zk![
            "trace",
            "record",
            "--artifacts",
            contributor.path(),
            "--inputs",
            inputs,
            "--session-id",
            id,
            "--out",
            out
        ]
        .ok();
    };
    recorded(&"ab".repeat(32));
    recorded(&"ac".repeat(32));
    assert_eq!(states(&contributor), ["recorded", "recorded"]);
    assert_eq!(in_json(&contributor, &["show", "AB"])["id"], "ab".repeat(32));
    sessions(&contributor, &["show", "a"]).refused(2, "2 sessions begin with a");
    sessions(&contributor, &["show", "b"]).refused(2, "no session begins with b");
    for id in ["../../served.jsonl", "/etc/passwd", "ab/..", "ab*", ""] {
        sessions(&contributor, &["show", id]).refused(2, "64 hex digits");
        sessions(&contributor, &["abandon", id]).refused(2, "64 hex digits");
    }
    sessions(&contributor, &["abandon", "ab"]).refused(2, "is recorded");
    for age in ["7", "d", "-1d", "7 d", "7é", "99999999999999999999w", "9999999999999999999w"] {
        sessions(&contributor, &["prune", &format!("--older-than={age}")]).refused(2, "such as 7d");
    }
    zk!["sessions", "list"].refused(2, "--artifacts DIR");
    zk!["sessions", "--artifacts", contributor.path().join("public")]
        .refused(2, "name the folder that compile wrote");
    // A hostile name in a damaged ledger.
    let ledger = contributor.path().join("private/served.jsonl");
    let line = concat!(
        r#"{"client":"eve\u001b[2J\u202e","log":"sessions/x.rows","rows":{},"#,
        r#""session":"\u001b]0;x","v":3}"#
    );
    let mut text = fs::read_to_string(&ledger).unwrap();
    text.push_str(&format!("{line}\n"));
    fs::write(&ledger, text).unwrap();
    let table = sessions(&contributor, &["list"]).ok().stdout;
    assert!(table.contains("damaged") && table.contains("eve"), "{table}");
    assert!(!table.contains(['\u{1b}', '\u{202e}']), "{table}");
    assert!(!Path::new(contributor.path()).join("private/sessions").exists());
}
