//! The manifest of an EZKL adapter, which the user pins: shapes, scales, and the digests of
//! settings, verifying keys and SRS.
//!
//! Canonical JSON: sorted keys, no white space, one encoding for each value. Its BLAKE3 is the
//! adapter id.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use zklora_proof::manifest::{self, AdapterId, BaseModel, Input, RESERVED_INPUTS};

use super::{
    Check, EzklError, VERSION,
    circuit_options::Visibility,
    interface::{Interface, MAX_FEATURES},
    settings::Settings,
    witness::check_weights,
};

/// The `format` field.
pub const FORMAT: &str = "zklora-ezkl-manifest";
/// The `version` field that this build reads and writes.
pub const FORMAT_VERSION: u32 = 1;
/// Largest manifest that is read, in bytes.
pub const MAX_BYTES: u64 = 1 << 26;
/// Most modules.
const MAX_MODULES: usize = 1 << 16;
/// Longest name of a module, in bytes: it is also a folder's name.
const MAX_NAME: usize = 200;

/// One module: a circuit for one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// Output features.
    pub d_out: usize,
    /// An input in floats is `integer · 2^-input_scale`.
    pub input_scale: u32,
    /// Inputs, in the graph's order.
    pub inputs: Vec<Input>,
    /// log₂ of the rows of the circuit.
    pub logrows: u32,
    /// Name: letters, digits, `.`, `_` and `-`, because folders have this name.
    pub name: String,
    /// A delta in floats is `integer · 2^-output_scale`.
    pub output_scale: u32,
    /// How proofs treat the parameters.
    pub param_visibility: Visibility,
    /// BLAKE3 of `settings.json`.
    pub settings_digest: String,
    /// BLAKE3 of the SRS file.
    pub srs_digest: String,
    /// Whether EZKL's `gen_srs` made the SRS. The party that ran it can forge proofs.
    pub srs_insecure: bool,
    /// BLAKE3 of `vk.key`.
    pub vk_digest: String,
    /// The values that fix the parameters: their Poseidon hash, or KZG commitments to them. Empty
    /// if they are private or part of the key.
    pub weights: Vec<String>,
}

impl Module {
    /// A module as a circuit's settings describe it, without digests and weights. Its SRS counts as
    /// insecure until the caller sets its origin.
    pub fn described(name: &str, interface: &Interface, settings: &Settings) -> Module {
        Module {
            d_out: settings.output,
            input_scale: settings.input_scale,
            inputs: interface.inputs.clone(),
            logrows: settings.logrows,
            name: name.into(),
            output_scale: settings.output_scale,
            param_visibility: settings.visibility,
            settings_digest: String::new(),
            srs_digest: String::new(),
            srs_insecure: true,
            vk_digest: String::new(),
            weights: Vec::new(),
        }
    }
}

/// The manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The base model that the adapter is for.
    pub base_model: BaseModel,
    /// Version of the package whose proofs these are.
    pub ezkl: String,
    /// [`FORMAT`].
    pub format: String,
    /// As in the manifest of the built-in proof: tensors of layers that were trained whole and that
    /// no module computes, sorted; not in the file if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The modules.
    pub modules: Vec<Module>,
    /// [`FORMAT_VERSION`].
    pub version: u32,
}

/// A manifest that obeys every rule, and its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedManifest {
    manifest: Manifest,
    id: AdapterId,
}

impl CheckedManifest {
    /// Parses and checks a manifest. With a pin, it must have that id.
    ///
    /// # Errors
    /// [`Check::Pin`] if the id differs; [`EzklError::Answer`] names the rule that is broken.
    pub fn parse(bytes: &[u8], pin: Option<&AdapterId>) -> Result<CheckedManifest, EzklError> {
        let id = AdapterId::of(bytes);
        if let Some(pin) = pin
            && *pin != id
        {
            return Err(EzklError::refused(
                Check::Pin,
                format!("the manifest is of adapter {id}, you pinned {pin}"),
            ));
        }
        let manifest = parse(bytes).map_err(|why| EzklError::answer("manifest.json", why))?;
        Ok(CheckedManifest { manifest, id })
    }

    /// The document.
    pub fn contents(&self) -> &Manifest {
        &self.manifest
    }

    /// The id that users pin.
    pub fn id(&self) -> AdapterId {
        self.id
    }

    /// The modules.
    pub fn modules(&self) -> &[Module] {
        &self.manifest.modules
    }

    /// The modules in the form that traces and activations use: names, inputs and outputs.
    pub fn shapes(&self) -> Vec<manifest::Module> {
        self.manifest.modules.iter().map(Module::shape).collect()
    }
}

impl Module {
    /// The module in the form that traces and activations use.
    pub(super) fn shape(&self) -> manifest::Module {
        manifest::Module {
            a_bits: 0,
            b_bits: 0,
            d_out: self.d_out,
            delta_bits: 63,
            inputs: self.inputs.clone(),
            name: self.name.clone(),
            scale_log2: 0,
            scaling: 1.0,
            terms: Vec::new(),
            x_bits: 32,
        }
    }

    /// Checks that settings agree with this module.
    ///
    /// # Errors
    /// Names the first difference.
    pub(super) fn fits(&self, settings: &Settings) -> Result<(), String> {
        let dims: Vec<usize> = self.inputs.iter().map(|input| input.dim).collect();
        let differs = |what: &str, declared: String, found: String| {
            if declared == found {
                Ok(())
            } else {
                Err(format!("{what}: {found} in the settings, {declared} in the manifest"))
            }
        };
        differs("inputs", format!("{dims:?}"), format!("{:?}", settings.inputs))?;
        differs("output", self.d_out.to_string(), settings.output.to_string())?;
        differs(
            "scale of the inputs",
            self.input_scale.to_string(),
            settings.input_scale.to_string(),
        )?;
        differs(
            "scale of the output",
            self.output_scale.to_string(),
            settings.output_scale.to_string(),
        )?;
        differs("logrows", self.logrows.to_string(), settings.logrows.to_string())?;
        differs(
            "visibility of the parameters",
            self.param_visibility.name().into(),
            settings.visibility.name().into(),
        )?;
        if self.param_visibility == Visibility::Polycommit {
            // A missing commitment would leave a column of parameters free.
            differs(
                "commitments to the parameters",
                self.weights.len().to_string(),
                settings.commitments.to_string(),
            )?;
        }
        Ok(())
    }
}

impl Manifest {
    /// Canonical JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EzklError> {
        let value = serde_json::to_value(self).and_then(|value| serde_json::to_vec(&value));
        value.map_err(|e| EzklError::answer("manifest.json", e))
    }
}

fn parse(bytes: &[u8]) -> Result<Manifest, String> {
    let manifest: Manifest = serde_json::from_slice(bytes)
        .map_err(|e| format!("not a manifest of EZKL circuits: {e}"))?;
    if manifest.format != FORMAT || manifest.version != FORMAT_VERSION {
        return Err(format!(
            "format `{:.40}` version {}: this build reads `{FORMAT}` version {FORMAT_VERSION}",
            manifest.format, manifest.version
        ));
    }
    if manifest.ezkl != VERSION {
        return Err(format!("for EZKL {:.40}, this build works with {VERSION}", manifest.ezkl));
    }
    if manifest.to_bytes().map_err(|e| e.to_string())? != bytes {
        return Err("not canonical JSON".into());
    }
    zklora_proof::manifest::check_left_out(&manifest.left_out)?;
    if !(1..=MAX_MODULES).contains(&manifest.modules.len()) {
        return Err(format!("{} modules", manifest.modules.len()));
    }
    let mut names = HashSet::new();
    for module in &manifest.modules {
        check(module).map_err(|why| format!("module `{:.200}`: {why}", module.name))?;
        if !names.insert(module.name.to_ascii_lowercase()) {
            return Err(format!("two modules are called `{}`", module.name));
        }
    }
    Ok(manifest)
}

/// Checks that a folder can have the name of a module.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.bytes().all(plain)
    {
        return Ok(());
    }
    Err("a name has 1 to 200 letters, digits, dots, underscores and hyphens, and does not begin with a dot".into())
}

fn check(module: &Module) -> Result<(), String> {
    check_name(&module.name)?;
    let dims = module.inputs.iter().map(|input| input.dim).chain([module.d_out]);
    if module.inputs.is_empty()
        || module.inputs.len() > 64
        || dims.clone().any(|d| !(1..=MAX_FEATURES).contains(&d))
    {
        return Err("its shape is not possible".into());
    }
    let names: HashSet<&str> = module.inputs.iter().map(|input| input.name.as_str()).collect();
    let bad = |name: &&str| name.is_empty() || name.contains('.') || RESERVED_INPUTS.contains(name);
    if names.len() < module.inputs.len() || names.iter().any(bad) {
        return Err("its inputs have impossible names".into());
    }
    let digest = |text: &String| {
        text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    if ![&module.settings_digest, &module.srs_digest, &module.vk_digest].into_iter().all(digest) {
        return Err("a digest is not 64 hex digits".into());
    }
    if module.input_scale > 24 || module.output_scale > 24 || !(1..=28).contains(&module.logrows) {
        return Err("scales or logrows are out of range".into());
    }
    check_weights(&module.weights, module.param_visibility)
}
