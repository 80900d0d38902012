//! Checks that `docs/onnx.md` lists the supported operators and the results of all cases.
//! `ZKLORA_WRITE_DOCS=1` writes the page.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use prost::Message;
use tract_onnx::pb;
use zklora_compiler::{
    Ingested, Layout, Term, ingest_file,
    supported::{Case, supported},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn cases(folder: &str) -> Vec<Case> {
    let folder = root().join("fixtures").join(folder);
    let mut folders: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders.iter().map(|folder| case(folder)).collect()
}

fn case(folder: &Path) -> Case {
    let model = pb::ModelProto::decode(&fs::read(folder.join("model.onnx")).unwrap()[..]).unwrap();
    let operators: BTreeSet<String> =
        model.graph.iter().flat_map(|graph| &graph.node).map(|node| node.op_type.clone()).collect();
    Case {
        name: folder.file_name().unwrap().to_string_lossy().into_owned(),
        origin: fs::read_to_string(folder.join("origin.txt")).unwrap().trim().into(),
        opset: model
            .opset_import
            .iter()
            .find(|set| set.domain.is_empty())
            .map_or(0, |set| set.version),
        operators: operators.into_iter().collect(),
        verdict: match ingest_file(&folder.join("model.onnx")) {
            Ok(ingested) => compiled(&ingested),
            Err(error) => format!("refused: {}", error.to_string().trim_start_matches("`model`: ")),
        },
    }
}

fn compiled(ingested: &Ingested) -> String {
    let terms = ingested.map.terms.iter().map(|term| match term {
        Term::LowRank { a, b, .. } => format!("{} x {} x {}", a.rows, a.cols, b.cols),
        Term::Bias { .. } => "bias".into(),
        Term::ElementScale { g, .. } => format!("scale of {}", g.len()),
    });
    let terms: Vec<String> = terms.collect();
    let positions =
        if ingested.inputs.contains(&Layout::FeaturesLast) { "" } else { ", rows are positions" };
    let warned = if ingested.warnings.is_empty() { "" } else { ", with a warning" };
    format!("{}{positions}{warned}", terms.join(" + "))
}

#[test]
fn the_page_on_onnx_is_up_to_date() {
    let path = root().join("docs/onnx.md");
    let page = supported(&[cases("onnx"), cases("onnx-refused")].concat());
    if std::env::var_os("ZKLORA_WRITE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/onnx.md is out of date: run ZKLORA_WRITE_DOCS=1 cargo test --release --workspace --test supported"
    );
}
