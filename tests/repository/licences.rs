//! Every dependency comes from a registry and has a licence that `deny.toml` allows: what
//! `cargo deny check licenses sources` checks, without another program and without a network.

use std::{collections::BTreeSet, process::Command};

use spdx::{Expression, LicenseItem};

use crate::files;

/// The identifiers in `allow = [...]` below `[licenses]`.
fn allowed(deny: &str) -> BTreeSet<String> {
    let licences = deny.split("[licenses]").nth(1).unwrap();
    let list = licences.split("allow = [").nth(1).unwrap().split(']').next().unwrap();
    list.split('"').skip(1).step_by(2).map(String::from).collect()
}

/// Whether a licence expression can be met with these licences.
fn is_met(licence: &str, allowed: &BTreeSet<String>) -> bool {
    // The form before SPDX expressions, which crates.io still has.
    let licence = licence.replace('/', " OR ");
    let expression = Expression::parse(&licence).unwrap_or_else(|e| panic!("{licence}: {e}"));
    expression.evaluate(|requirement| {
        let name = match &requirement.license {
            LicenseItem::Spdx { id, .. } => id.name.to_string(),
            LicenseItem::Other { .. } => return false,
        };
        match &requirement.addition {
            None => allowed.contains(&name),
            Some(addition) => allowed.contains(&format!("{name} WITH {addition}")),
        }
    })
}

/// The platform of this machine: the build has downloaded the dependencies for it, and no others.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_string()
}

#[test]
fn dependencies_have_allowed_licences_and_come_from_a_registry() {
    let deny = std::fs::read_to_string(files::root().join("deny.toml")).unwrap();
    let allowed = allowed(&deny);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--format-version", "1", "--filter-platform", &host()])
        .current_dir(files::root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100);
    for package in packages {
        let name = format!("{} {}", package["name"], package["version"]);
        if let Some(source) = package["source"].as_str() {
            assert!(source.starts_with("registry+"), "{name} comes from {source}");
        }
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(
            is_met(licence, &allowed),
            "{name} has the licence `{licence}`: deny.toml does not allow it"
        );
    }
}

#[test]
fn a_licence_is_met_by_one_alternative_or_by_all_parts() {
    let allowed = ["MIT", "Apache-2.0 WITH LLVM-exception"].map(String::from).into();
    let met = ["MIT", "GPL-3.0-only OR MIT", "MIT/Apache-2.0", "Apache-2.0 WITH LLVM-exception"];
    assert!(met.into_iter().all(|licence| is_met(licence, &allowed)));
    let not = ["GPL-3.0-only", "MIT AND GPL-3.0-only", "Apache-2.0"];
    assert!(!not.into_iter().any(|licence| is_met(licence, &allowed)));
}
