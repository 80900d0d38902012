//! `zklora report` shows a report as a table, as JSON, and as an HTML page.

use std::fs;

use serde_json::json;

use crate::zk;

fn report() -> serde_json::Value {
    json!({
        "format": "zklora-report", "version": 1, "base_model": "model.onnx", "mode": "add-delta",
        "loss": null, "generated": null,
        "contributors": [{
            "url": "https://a.example", "adapter_id": "ab", "pinned": true, "session_id": "cd",
            "modules": 2, "modules_called": 2, "rows": 8, "rows_reused": 0, "calls": 4,
            "reconnections": 0, "bytes_sent": 1, "bytes_received": 1, "latency": null,
            "proof_seconds": null, "verify_seconds": null, "proof_bytes": null,
            "verdict": "rejected",
            "why": "<b>no\nContributor  Verdict ACCEPTED"
        }],
        "points": [{
            "module": "model.layers.0.q_proj", "rows": 4, "base_rms": 1.0, "delta_rms": 0.5,
            "relative": 0.5, "contributors": [0]
        }],
        "forward_seconds": 1.0, "forward_passes": 1
    })
}

#[test]
fn a_report_is_shown_as_a_table_as_json_and_as_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    fs::write(folder.path().join("report.json"), report().to_string()).unwrap();
    let shown = zk!["report", folder.path(), "--html", page].ok().stdout;
    assert!(
        shown.contains("REJECTED") && shown.contains("50.000 %") && shown.contains("page.html"),
        "{shown}"
    );
    assert!(!shown.contains("\nContributor  Verdict ACCEPTED"), "{shown}");
    let html = fs::read_to_string(&page).unwrap();
    assert!(
        html.contains("✕ REJECTED") && html.contains("&lt;b&gt;no") && html.ends_with("</html>\n")
    );
    assert_eq!(zk!["--json", "report", folder.path()].ok().json(), report());
}

#[test]
fn reports_that_cannot_be_read_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    zk!["report", folder.path()].refused(2, "report.json");
    let mut other = report();
    other["version"] = json!(2);
    fs::write(folder.path().join("report.json"), other.to_string()).unwrap();
    let page = folder.path().join("page.html");
    zk!["report", folder.path(), "--html", page].refused(2, "this build reads");
    assert!(!page.exists());
    zk!["report", folder.path(), "--html", folder.path().join("nowhere/page.html")]
        .refused(2, "create it first");
}
