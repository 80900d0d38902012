//! Crates depend on each other in one direction, as ARCHITECTURE.md says, and verifying builds
//! neither tract nor a network stack.

use std::process::Command;

use crate::files;

/// The crates from the bottom up, each with those that it may use.
const LAYERS: [(&str, &[&str]); 16] = [
    ("proof", &[]),
    ("files", &[]),
    ("artifacts", &["proof", "files"]),
    ("models", &["files"]),
    ("integer", &["files", "models"]),
    ("inference", &["proof", "integer"]),
    ("evaluation", &["files", "models", "integer"]),
    ("compiler", &["proof", "files", "artifacts", "models"]),
    ("session", &["proof", "files", "artifacts", "evaluation"]),
    ("ezkl", &["proof", "files", "artifacts", "models", "compiler", "session"]),
    (
        "runtime",
        &[
            "proof",
            "files",
            "artifacts",
            "models",
            "integer",
            "inference",
            "evaluation",
            "compiler",
            "session",
        ],
    ),
    (
        "bench",
        &[
            "proof",
            "files",
            "artifacts",
            "models",
            "integer",
            "evaluation",
            "compiler",
            "session",
            "ezkl",
            "runtime",
        ],
    ),
    ("zklora", &["proof", "files", "artifacts", "models", "session", "runtime"]),
    (
        "cli",
        &[
            "proof",
            "files",
            "artifacts",
            "models",
            "integer",
            "evaluation",
            "compiler",
            "session",
            "ezkl",
            "runtime",
            "bench",
        ],
    ),
    (
        "python",
        &["proof", "files", "artifacts", "models", "evaluation", "compiler", "session", "runtime"],
    ),
    ("fuzz", &[]),
];

/// The crates of this workspace among the `[dependencies]` of a manifest.
fn own_dependencies(manifest: &str) -> Vec<String> {
    let mut in_dependencies = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line == "[dependencies]";
        } else if in_dependencies && let Some(rest) = line.strip_prefix("zklora-") {
            found.extend(rest.split(['.', ' ', '=']).next().map(String::from));
        }
    }
    found
}

#[test]
fn crates_use_only_crates_below_them() {
    for (at, (name, allowed)) in LAYERS.iter().enumerate() {
        let below: Vec<&str> = LAYERS[..at].iter().map(|(name, _)| *name).collect();
        assert!(
            allowed.iter().all(|other| below.contains(other)),
            "{name} is not above all of these"
        );
        let manifest = files::root().join(name).join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        for other in own_dependencies(&text) {
            assert!(
                allowed.contains(&other.as_str()),
                "{}: `{name}` must not depend on `{other}`: ARCHITECTURE.md has the layers",
                manifest.display()
            );
        }
    }
    let workspace = std::fs::read_to_string(files::root().join("Cargo.toml")).unwrap();
    let members = workspace.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    for member in members {
        assert!(LAYERS.iter().any(|(name, _)| *name == member), "`{member}` has no layer here");
    }
}

/// The packages that a crate needs with its default features.
fn tree(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges", "normal", "--prefix", "none", "-p", package])
        .current_dir(files::root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| Some(line.split(' ').next()?.to_string())).collect()
}

#[test]
fn verifying_needs_neither_tract_nor_a_network_stack() {
    for package in ["zklora", "zklora-artifacts"] {
        let tree = tree(package);
        assert!(tree.iter().any(|name| name == "zklora-proof"), "{tree:?}");
        for heavy in ["tract-onnx", "tonic", "tokio", "prost", "hyper"] {
            assert!(!tree.iter().any(|name| name == heavy), "{package} needs {heavy}");
        }
    }
}

#[test]
fn dependencies_for_tests_and_builds_do_not_count() {
    let manifest = "[dependencies]\nzklora-a.workspace = true\nzklora-b = { path = \"b\" }\n\n\
                    [dev-dependencies]\nzklora-c.workspace = true\n";
    assert_eq!(own_dependencies(manifest), ["a", "b"]);
}
