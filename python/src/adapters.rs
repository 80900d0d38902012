//! Adapters: from a PEFT folder to artifacts, and their manifests.

use std::{path::PathBuf, sync::Arc};

use pyo3::prelude::*;
use zklora_artifacts::folder as artifacts;
use zklora_files::{Access, text};
use zklora_models::AppliesTo;
use zklora_proof::{
    checked_manifest::CheckedManifest,
    manifest::{self, AdapterId, TermKind},
    verifier::SrsPolicy,
};
use zklora_runtime::{
    Error, compile as compiling,
    infer::{InputSource, applies_to, input_sources},
    registration::Registration,
};

use crate::{error::Failure, globals, worker};

/// One module of an adapter, as its manifest describes it.
#[pyclass(frozen, get_all, module = "zklora._native")]
pub struct Module {
    /// The name of the module, and of its layer in the base model.
    name: String,
    /// Name and number of features of each input.
    inputs: Vec<(String, usize)>,
    /// The source of each input: `"layer"` (the layer's input) or `"base"` (the base layer's
    /// output).
    reads: Vec<&'static str>,
    /// Whether deltas are added to the layer's `"output"` or to its `"input"`.
    applies_to: &'static str,
    /// Number of features of a delta.
    d_out: usize,
    /// Sum of the ranks of its low-rank terms.
    rank: usize,
}

#[pymethods]
impl Module {
    fn __repr__(&self) -> String {
        let inputs: Vec<String> =
            self.inputs.iter().map(|(name, dim)| format!("{name}[{dim}]")).collect();
        text::shown(format!(
            "Module('{}', {} -> {}, rank {})",
            self.name,
            inputs.join(", "),
            self.d_out,
            self.rank
        ))
    }
}

/// The modules of an adapter, in the order of its manifest.
fn modules(manifest: &CheckedManifest) -> Result<Vec<Module>, Failure> {
    let of = |module: &manifest::Module| {
        let refuse = |why| Failure::Input(format!("module `{}`: {why}", module.name));
        let sources = input_sources(module).map_err(refuse)?;
        let low_rank = module.terms.iter().filter(|term| term.kind == TermKind::LowRank);
        Ok(Module {
            name: module.name.clone(),
            inputs: module.inputs.iter().map(|input| (input.name.clone(), input.dim)).collect(),
            applies_to: match applies_to(module, &sources) {
                AppliesTo::Input => "input",
                AppliesTo::Output => "output",
            },
            reads: sources
                .iter()
                .map(|source| if *source == InputSource::LayerInput { "layer" } else { "base" })
                .collect(),
            d_out: module.d_out,
            rank: low_rank.map(|term| term.rank).sum(),
        })
    };
    manifest.modules().iter().map(of).collect()
}

/// The public description of an adapter. Its digest is the adapter id.
#[pyclass(frozen, module = "zklora._native")]
pub struct Manifest {
    /// The manifest.
    pub manifest: Arc<CheckedManifest>,
    /// Whether the public folder that it was read from registers the adapter; none if it was not
    /// read from a folder.
    registration: Option<Registration>,
}

impl From<Arc<CheckedManifest>> for Manifest {
    fn from(manifest: Arc<CheckedManifest>) -> Manifest {
        Manifest { manifest, registration: None }
    }
}

/// An adapter id of 64 hex digits.
///
/// # Errors
/// [`Failure::Input`] if the text is not an adapter id.
pub fn parse_id(text: &str) -> Result<AdapterId, Failure> {
    text.parse().map_err(|e: zklora_proof::Error| Failure::Input(e.to_string()))
}

#[pymethods]
impl Manifest {
    /// Reads a manifest file, or the manifest of a public folder, whose registration is verified if
    /// there is one. With `adapter_id`, it must have that id.
    #[staticmethod]
    #[pyo3(signature = (path, adapter_id=None))]
    fn load(py: Python<'_>, path: PathBuf, adapter_id: Option<&str>) -> Result<Manifest, Failure> {
        let pin = adapter_id.map(parse_id).transpose()?;
        worker::run(py, None, move |_| {
            if path.is_file() {
                let bytes = zklora_files::read(&path, manifest::MAX_BYTES as u64)?;
                let manifest = match &pin {
                    Some(pin) => CheckedManifest::parse_pinned(&bytes, pin),
                    None => CheckedManifest::parse(&bytes),
                };
                return Ok(Arc::new(manifest.map_err(Error::from)?).into());
            }
            let (srs, keys) = (globals::srs()?, globals::keys());
            let manifest = artifacts::Public::load(&path, pin.as_ref(), &srs, keys)?.manifest;
            let policy = SrsPolicy::TrustedOnly;
            let registration = Registration::of_folder(&path, &manifest, &srs, keys, policy)?;
            Ok(Manifest { manifest: Arc::new(manifest), registration: Some(registration) })
        })
    }

    /// Writes the manifest file, which a user can pin.
    fn save(&self, py: Python<'_>, path: PathBuf) -> Result<(), Failure> {
        let manifest = Arc::clone(&self.manifest);
        worker::run(py, None, move |_| {
            let bytes = manifest.contents().to_bytes().map_err(Error::from)?;
            Ok(zklora_files::write(&path, &bytes, Access::Public)?)
        })
    }

    /// The adapter id, 64 hex digits.
    #[getter]
    fn adapter_id(&self) -> String {
        self.manifest.id().to_string()
    }

    /// Whether a proof in the public folder shows that every weight is an integer of 16 bits;
    /// `None` if the manifest was not read from a folder.
    #[getter]
    fn registered(&self) -> Option<bool> {
        self.registration.map(Registration::is_registered)
    }

    /// The modules.
    #[getter]
    fn modules(&self) -> Result<Vec<Module>, Failure> {
        modules(&self.manifest)
    }

    /// The name of the base model.
    #[getter]
    fn base_model(&self) -> String {
        self.manifest.contents().base_model.name.clone()
    }

    /// Tensors of layers that were trained whole and that the adapter leaves out, as the
    /// contributor says.
    #[getter]
    fn left_out(&self) -> Vec<String> {
        self.manifest.contents().left_out.clone()
    }

    /// The fingerprint of the base model's weights, if the contributor gave it.
    #[getter]
    fn base_fingerprint(&self) -> Option<String> {
        self.manifest.contents().base_model.fingerprint.clone()
    }

    fn __repr__(&self) -> String {
        format!("Manifest({}, {} modules)", self.manifest.id(), self.manifest.modules().len())
    }
}

/// A contributor's artifact folder, with its private part, which Python cannot read.
#[pyclass(frozen, module = "zklora._native")]
pub struct Artifacts(pub Arc<artifacts::Artifacts>);

#[pymethods]
impl Artifacts {
    /// Reads a folder that `compile` wrote.
    #[staticmethod]
    fn load(py: Python<'_>, folder: PathBuf) -> Result<Artifacts, Failure> {
        worker::run(py, None, move |_| {
            let loaded = artifacts::Artifacts::load(&folder, &*globals::srs()?, globals::keys())?;
            Ok(Artifacts(Arc::new(loaded)))
        })
    }

    /// The folder.
    #[getter]
    fn folder(&self) -> PathBuf {
        self.0.folder.clone()
    }

    /// The public part.
    #[getter]
    fn manifest(&self) -> Manifest {
        Arc::new(self.0.manifest.clone()).into()
    }

    /// The adapter id, 64 hex digits.
    #[getter]
    fn adapter_id(&self) -> String {
        self.0.manifest.id().to_string()
    }

    /// The modules.
    #[getter]
    fn modules(&self) -> Result<Vec<Module>, Failure> {
        modules(&self.0.manifest)
    }

    fn __repr__(&self) -> String {
        format!(
            "Artifacts({}, {} modules, private part not shown)",
            self.0.manifest.id(),
            self.0.manifest.modules().len()
        )
    }
}

/// Exports an adapter to one ONNX file per module; returns the modules' names.
#[pyfunction]
#[pyo3(signature = (
    adapter, out, base=None, modules=Vec::new(), progress=None, base_name=None, rename=Vec::new(),
    lora_only=false
))]
#[allow(clippy::too_many_arguments)]
pub fn export_adapter(
    py: Python<'_>,
    adapter: PathBuf,
    out: PathBuf,
    base: Option<PathBuf>,
    modules: Vec<String>,
    progress: Option<Py<PyAny>>,
    base_name: Option<String>,
    rename: Vec<(String, String)>,
    lora_only: bool,
) -> Result<(Vec<String>, Vec<String>), Failure> {
    worker::run(py, progress.as_ref(), move |told| {
        told.step("read the adapter", 0, 2);
        let options = zklora_models::LoadOptions {
            base: base.as_deref(),
            base_name: base_name.as_deref(),
            modules: &modules,
            rename: &rename,
            lora_only,
            left_out: &[],
        };
        let adapter = zklora_models::Adapter::load_with(&adapter, &options).map_err(Error::from)?;
        told.step("write ONNX", 1, 2);
        zklora_files::create_folder(&out, Access::Private)?;
        let index = zklora_models::export(&adapter, &modules, &out).map_err(Error::from)?;
        told.step("exported", 2, 2);
        let names = index.modules.into_iter().map(|module| module.name).collect();
        Ok((names, adapter.warnings()))
    })
}

/// Compiles ONNX files, or folders that `export_adapter` wrote, to an artifact folder.
#[pyfunction]
#[pyo3(signature = (
    paths, out, seed_file=None, calibrate=None, progress=None, registered=false, k=None
))]
#[allow(clippy::too_many_arguments)]
pub fn compile(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    out: PathBuf,
    seed_file: Option<PathBuf>,
    calibrate: Option<PathBuf>,
    progress: Option<Py<PyAny>>,
    registered: bool,
    k: Option<u32>,
) -> Result<Artifacts, Failure> {
    worker::run(py, progress.as_ref(), move |told| {
        told.step("load the SRS", 0, 2);
        let srs = globals::srs()?;
        SrsPolicy::TrustedOnly.check(&srs).map_err(Error::from)?;
        told.step("compile and commit", 1, 2);
        let (seed_file, calibrate) = (seed_file.as_deref(), calibrate.as_deref());
        let options =
            compiling::Options { paths: &paths, out: &out, seed_file, calibrate, registered, k };
        let compiled = compiling::compile(&options, &srs, globals::keys())?;
        if let Some(old) = compiled.replaced {
            tracing::warn!("{}: replaces adapter {old}, which had served no rows", out.display());
        }
        told.step("compiled", 2, 2);
        Ok(Artifacts(Arc::new(compiled.artifacts)))
    })
}

/// The fingerprint of a base model's folder, as in manifests.
#[pyfunction]
pub fn base_fingerprint(py: Python<'_>, folder: PathBuf) -> Result<String, Failure> {
    worker::run(py, None, move |_| Ok(zklora_models::fingerprint(&folder).map_err(Error::from)?))
}

/// Foreign text for a message: escaped like the command line's, and cut after `most` characters.
#[pyfunction]
#[pyo3(signature = (text, most=None))]
pub fn shown(text: &str, most: Option<usize>) -> String {
    match most {
        Some(most) => text::shortened(text, most),
        None => text::shown(text),
    }
}
