//! Compares delivered weights with the committed ones, after payment (docs/protocol.md, "Audit").
//!
//! The commitment is to integers. A delivered PEFT folder is exported and quantised again, with the
//! bit widths of the manifest. A delivered `weights.bin` is used unchanged.

use std::{collections::BTreeSet, path::Path};

use zeroize::Zeroizing;
use zklora_artifacts::weights_file;
use zklora_compiler::{
    compile::{OnnxModel, draft_like},
    sources::sources,
};
use zklora_models::{Adapter, LoadOptions};
use zklora_proof::{
    checked_manifest::CheckedManifest, commit, masks::MaskKey, srs::Srs, weights::Weights,
};

use crate::Error;

/// The result of an audit.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Modules of the manifest that were compared.
    pub modules: usize,
    /// Whether the delivered adapter is for the base model that the manifest names.
    pub base_model: BaseModel,
    /// The differences. Empty means that the delivered adapter is the committed one.
    pub differences: Vec<Difference>,
}

/// Result of comparing the fingerprints of the base model. Deltas do not depend on them: the
/// delivery of a committed adapter may have no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseModel {
    /// Both have the same fingerprint.
    Same,
    /// The delivered folder is for another base model.
    Different,
    /// The manifest has no fingerprint.
    NotCommitted,
    /// The manifest has a fingerprint, the delivery has none.
    NotDelivered,
}

impl BaseModel {
    fn of(committed: Option<&str>, delivered: Option<&str>) -> BaseModel {
        match (committed, delivered) {
            (None, _) => BaseModel::NotCommitted,
            (Some(_), None) => BaseModel::NotDelivered,
            (Some(committed), Some(delivered)) if committed == delivered => BaseModel::Same,
            _ => BaseModel::Different,
        }
    }

    /// Why the base model was not compared. `None` if it was.
    pub fn not_compared(self) -> Option<&'static str> {
        match self {
            BaseModel::Same | BaseModel::Different => None,
            BaseModel::NotCommitted => {
                Some("NOT COMPARED: the manifest has no fingerprint of a base model")
            }
            BaseModel::NotDelivered => Some(
                "NOT COMPARED: the manifest has the fingerprint of a base model, and what was delivered has none \
                 (for a PEFT folder, name the folder of the base model with --base)",
            ),
        }
    }
}

/// A difference between the delivered and the committed adapter.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// Module name.
    pub module: String,
    /// How it differs.
    pub why: String,
}

/// Compares a delivered adapter with the manifest. `delivered` is a PEFT folder, a folder that
/// export wrote, or a `weights.bin`.
///
/// `base` is the folder of the base model, which some kinds of adapters need.
pub fn audit(
    delivered: &Path,
    base: Option<&Path>,
    manifest: &CheckedManifest,
    key: &MaskKey,
    srs: &Srs,
) -> Result<Report, Error> {
    let modules = manifest.modules().len();
    let committed = manifest.contents().base_model.fingerprint.as_deref();
    // A weights file has no fingerprint.
    let mut base_model = BaseModel::of(committed, None);
    let mut narrow = None;
    let report = |base_model, mut differences: Vec<Difference>, narrow: Option<&str>| {
        if let Some(narrow) = narrow.filter(|_| !differences.is_empty()) {
            differences.push(Difference {
                module: "(precision)".into(),
                why: format!(
                    "all delivered weights are numbers of {narrow}: an adapter that was committed to in a \
                     wider type, and saved again in {narrow}, has other weights; ask for the file that was \
                     committed to"
                ),
            });
        }
        Ok(Report { modules, base_model, differences })
    };
    let weights = if delivered.is_file() {
        let bytes = Zeroizing::new(zklora_files::read(delivered, zklora_files::MAX_FILE)?);
        match weights_file::parse(delivered, &bytes, manifest.contents()) {
            // A weights file of another adapter: its shapes, or the sizes of its integers, do not
            // fit the manifest.
            Err(zklora_artifacts::Error::Proof(zklora_proof::Error::Weights(why))) => {
                return report(
                    base_model,
                    vec![Difference { module: "(weights file)".into(), why }],
                    None,
                );
            }
            parsed => parsed?,
        }
    } else {
        let Delivered { sources, fingerprint, left_out, narrow: of_delivered } =
            delivered_sources(delivered, base, &manifest.contents().left_out)?;
        let draft = draft_like(manifest.contents(), &sources);
        let mut differences: Vec<Difference> =
            draft.differences.into_iter().map(|(module, why)| Difference { module, why }).collect();
        let known: std::collections::HashSet<&str> =
            manifest.modules().iter().map(|m| m.name.as_str()).collect();
        differences.extend(sources.iter().filter(|s| !known.contains(s.name.as_str())).map(|s| {
            Difference { module: s.name.clone(), why: "delivered, but never committed to".into() }
        }));
        narrow = of_delivered;
        differences.extend(left_out_otherwise(&manifest.contents().left_out, &left_out));
        base_model = BaseModel::of(committed, fingerprint.as_deref());
        if base_model == BaseModel::Different {
            let [delivered, committed] =
                [fingerprint.as_deref(), committed].map(Option::unwrap_or_default);
            differences.push(Difference {
                module: "(base model)".into(),
                why: format!("it has the fingerprint {delivered}, the manifest says {committed}"),
            });
        }
        if !differences.is_empty() {
            return report(base_model, differences, narrow);
        }
        Weights::new(manifest.contents(), draft.pairs)?
    };
    let differing = commit::audit(srs, manifest, &weights, key)?;
    // With a wrong key every module differs, so the message names that cause.
    let why = if differing.len() == modules {
        "its integers under this opening give other commitments (all modules differ: is this the opening of this adapter?)"
    } else {
        "at least one of its integers is not the committed one"
    };
    report(
        base_model,
        differing.into_iter().map(|module| Difference { module, why: why.into() }).collect(),
        narrow,
    )
}

/// What was delivered.
struct Delivered {
    sources: Vec<OnnxModel>,
    /// The fingerprint of the base model, if there is one.
    fingerprint: Option<String>,
    /// Tensors of layers that were trained whole, which are no module.
    left_out: Vec<String>,
    /// The 16-bit type that holds all weights of an adapter's matrices, if one does.
    narrow: Option<&'static str>,
}

/// The modules of a folder, without the tensors that the manifest leaves out.
fn delivered_sources(
    folder: &Path,
    base: Option<&Path>,
    left_out: &[String],
) -> Result<Delivered, Error> {
    if folder.join("export.json").is_file() {
        let sources = sources(&[folder.to_path_buf()])?;
        return Ok(Delivered {
            sources: sources.modules,
            fingerprint: sources.base_model.fingerprint,
            left_out: sources.left_out.into_iter().collect(),
            narrow: None,
        });
    }
    let options = LoadOptions { base, left_out, ..LoadOptions::default() };
    let adapter = Adapter::load_with(folder, &options)?;
    Ok(Delivered {
        sources: adapter_sources(&adapter)?,
        fingerprint: adapter.base_model.fingerprint.clone(),
        narrow: adapter.narrow_type(),
        left_out: adapter.left_out.into_iter().map(|left| left.tensor).collect(),
    })
}

/// The tensors that only the manifest or only the delivery leaves out.
fn left_out_otherwise(committed: &[String], delivered: &[String]) -> Vec<Difference> {
    let missing = |from: &[String], of: &[String], why: &str| -> Vec<Difference> {
        let from: BTreeSet<&String> = from.iter().collect();
        let others = of.iter().filter(|tensor| !from.contains(tensor));
        others.map(|tensor| Difference { module: tensor.clone(), why: why.into() }).collect()
    };
    let mut differences = missing(
        committed,
        delivered,
        "a layer that was trained whole, which the manifest does not say is left out (if it was exported as a \
         difference, pass the base model with --base)",
    );
    differences.extend(missing(
        delivered,
        committed,
        "the manifest says that it is left out, but it was not delivered",
    ));
    differences
}

/// The modules of an adapter as ONNX, in memory.
pub fn adapter_sources(adapter: &Adapter) -> Result<Vec<OnnxModel>, Error> {
    adapter
        .modules
        .iter()
        .map(|module| {
            Ok(OnnxModel {
                name: module.name.clone(),
                onnx: zklora_models::onnx_model(module)?,
                folder: None,
                scaling: Some(module.scaling),
            })
        })
        .collect()
}
