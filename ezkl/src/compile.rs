//! Compiles ONNX files to EZKL circuits: `zklora compile --backend ezkl`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use zklora_artifacts::{activations::Activations, folder as artifacts, synthetic};
use zklora_compiler::{compile::OnnxModel, sources::sources};
use zklora_files::Access;
use zklora_proof::manifest::BaseModel;

use super::{
    EzklError, Python, VERSION,
    child::{Cost, Ezkl},
    circuit::{Circuit, ONNX, argument},
    circuit_options::{CircuitOptions, Visibility},
    folder::{self, CIRCUIT, MAX_VK, PK, SETTINGS, Srs, Staging, VK},
    interface::Interface,
    manifest::{CheckedManifest, FORMAT, FORMAT_VERSION, Manifest, Module, check_name},
    settings::Settings,
    srs_file::{self, SrsFile},
};
use crate::Error;

/// Number of rows that circuits are calibrated on.
const CALIBRATION_ROWS: usize = 4;

/// What to compile.
pub struct Options<'a> {
    /// ONNX files, or folders that export wrote.
    pub paths: &'a [PathBuf],
    /// Where `public/` and `private/` go.
    pub out: &'a Path,
    /// Activations to calibrate on.
    pub calibrate: Option<&'a Path>,
    /// How to make the circuits.
    pub circuit: CircuitOptions,
    /// Which SRS.
    pub srs: Srs<'a>,
    /// A folder with the files of an EZKL run for the only ONNX file: settings.json, vk.key and,
    /// to prove, model.compiled and pk.key.
    pub run: Option<&'a Path>,
}

/// The circuit of one module.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ModuleReport {
    /// Name.
    pub name: String,
    /// Input features, all inputs together.
    pub d_in: usize,
    /// Output features.
    pub d_out: usize,
    /// log₂ of the rows of the circuit.
    pub logrows: u32,
    /// Fixed-point bits of inputs and output.
    pub scales: (u32, u32),
    /// Bytes of the verifying key.
    pub vk_bytes: u64,
    /// Bytes of the proving key, if there is one.
    pub pk_bytes: u64,
    /// Wall time of all of EZKL's steps, in seconds.
    pub seconds: f64,
}

/// The result of a compilation.
pub struct Compiled {
    /// The manifest.
    pub manifest: CheckedManifest,
    /// The circuit of each module.
    pub modules: Vec<ModuleReport>,
}

/// Compiles. `progress` gets the name of each step before it runs.
pub fn compile(
    options: &Options<'_>,
    python: &Python,
    progress: &mut dyn FnMut(&str),
) -> Result<Compiled, Error> {
    let given = sources(options.paths)?;
    given.modules.iter().try_for_each(|source| {
        check_name(&source.name)
            .map_err(|why| Error::input(format!("module `{}`: {why}", source.name)))
    })?;
    if options.run.is_some() && given.modules.len() != 1 {
        return Err(Error::input("keys of an EZKL run are for one ONNX file: name one"));
    }
    if options.srs.file.is_none() && !options.srs.insecure_dev {
        return Err(Error::input(
            "EZKL needs an SRS: name a file with --srs (KZG over BN254, as EZKL's get_srs fetches), or, for experiments only, pass \
             --insecure-dev-srs",
        ));
    }
    folder::may_replace(options.out)?;
    let staging = Staging::beside(options.out)?;
    zklora_files::create_folder(&staging.out().join("public"), Access::Public)?;
    zklora_files::create_folder(&staging.out().join("private"), Access::Private)?;
    let interfaces = given.modules.iter().map(interface).collect::<Result<Vec<_>, _>>()?;
    let rows = calibration(options, &given.modules, &interfaces)?;
    let mut maker =
        Maker { options, staging: &staging, ezkl: Ezkl::start(python, staging.work())?, progress };
    let mut modules = Vec::new();
    let mut reports = Vec::new();
    for (index, (source, interface)) in given.modules.iter().zip(&interfaces).enumerate() {
        let (module, report) = maker.module(index, source, interface, &rows)?;
        modules.push(module);
        reports.push(report);
    }
    drop(maker);
    let left_out = given.left_out.into_iter().collect();
    let manifest = manifest(given.base_model, left_out, modules);
    let bytes = manifest.to_bytes()?;
    let manifest = CheckedManifest::parse(&bytes, None)?;
    zklora_files::write(
        &staging.out().join("public").join(artifacts::MANIFEST),
        &bytes,
        Access::Public,
    )?;
    if python.cancel.is_cancelled() {
        return Err(EzklError::Cancelled.into());
    }
    staging.publish(options.out)?;
    Ok(Compiled { manifest, modules: reports })
}

fn manifest(base_model: BaseModel, left_out: Vec<String>, modules: Vec<Module>) -> Manifest {
    Manifest {
        base_model,
        ezkl: VERSION.into(),
        format: FORMAT.into(),
        left_out,
        modules,
        version: FORMAT_VERSION,
    }
}

/// Inputs and outputs of a graph.
pub fn interface(source: &OnnxModel) -> Result<Interface, Error> {
    Interface::read(&source.onnx)
        .map_err(|why| Error::input(format!("module `{}`: {why}", source.name)))
}

/// The shapes of a module that has no keys yet.
pub fn shape_of(name: &str, interface: &Interface) -> zklora_proof::manifest::Module {
    let inputs = interface.inputs.clone();
    zklora_proof::manifest::Module { inputs, ..blank(name).shape() }
}

fn blank(name: &str) -> Module {
    Module {
        d_out: 1,
        input_scale: 0,
        inputs: Vec::new(),
        logrows: 1,
        name: name.into(),
        output_scale: 0,
        param_visibility: Visibility::Private,
        settings_digest: String::new(),
        srs_digest: String::new(),
        srs_insecure: false,
        vk_digest: String::new(),
        weights: Vec::new(),
    }
}

/// The rows to calibrate on: the user's, or else pseudo-random ones.
fn calibration(
    options: &Options<'_>,
    sources: &[OnnxModel],
    interfaces: &[Interface],
) -> Result<Activations, Error> {
    let shapes: Vec<_> =
        sources.iter().zip(interfaces).map(|(s, interface)| shape_of(&s.name, interface)).collect();
    let mut rows = synthetic::activations(&shapes, CALIBRATION_ROWS);
    if let Some(path) = options.calibrate {
        let given = Activations::read(path, &shapes, None)?;
        for (name, inputs) in &given.modules {
            if let Some(value) = inputs.iter().flatten().find(|v| !v.is_finite()) {
                return Err(Error::file(
                    path,
                    format!(
                        "module `{name}`: {value} cannot be calibrated on: only finite numbers can"
                    ),
                ));
            }
        }
        rows.modules.extend(given.modules);
    }
    Ok(rows)
}

/// EZKL's input file for the first `most` rows of a module.
pub fn floats(interface: &Interface, inputs: &[Vec<f32>], most: usize) -> Value {
    let first = |(values, dim): (&Vec<f32>, usize)| {
        values.iter().take(dim * most).map(|v| f64::from(*v)).collect::<Vec<f64>>()
    };
    let dims = interface.inputs.iter().map(|input| input.dim);
    json!({ "input_data": inputs.iter().zip(dims).map(first).collect::<Vec<_>>() })
}

/// Writes an ONNX file into the circuit's folder, with the weights embedded, because EZKL reads no
/// external data.
pub fn write_onnx(circuit: &Circuit<'_>, source: &OnnxModel) -> Result<(), Error> {
    let onnx =
        zklora_compiler::ingest::embedded(&source.onnx, &source.name, source.folder.as_deref());
    let onnx = onnx.map_err(|e| Error::Compile(e.into()))?;
    Ok(zklora_files::write(&circuit.path(ONNX), &onnx, Access::Private)?)
}

struct Maker<'a> {
    options: &'a Options<'a>,
    staging: &'a Staging,
    ezkl: Ezkl<'a>,
    progress: &'a mut dyn FnMut(&str),
}

impl Maker<'_> {
    fn module(
        &mut self,
        index: usize,
        source: &OnnxModel,
        interface: &Interface,
        rows: &Activations,
    ) -> Result<(Module, ModuleReport), Error> {
        let name = source.name.as_str();
        let circuit = Circuit::new(self.staging.work().join(format!("circuit-{index}")), name)?;
        let mut costs = Vec::new();
        let row = match rows.modules.get(name) {
            Some(inputs) => floats(interface, inputs, 1),
            None => json!({ "input_data": [] }),
        };
        let settings = match self.options.run {
            Some(run) => {
                take_run(&circuit, run)?;
                circuit.read_settings()?
            }
            None => {
                (self.progress)(&format!("{name}: settings and circuit"));
                write_onnx(&circuit, source)?;
                let all = rows
                    .modules
                    .get(name)
                    .map(|inputs| floats(interface, inputs, CALIBRATION_ROWS));
                let (settings, took) = circuit.settings(
                    &mut self.ezkl,
                    interface,
                    &self.options.circuit,
                    &all.unwrap_or_default(),
                )?;
                costs.extend(took);
                settings
            }
        };
        let dims: Vec<usize> = interface.inputs.iter().map(|input| input.dim).collect();
        if dims != settings.inputs {
            return Err(Error::input(format!(
                "module `{name}`: the circuit has inputs of {:?} features, the graph {dims:?}",
                settings.inputs
            )));
        }
        let (srs, srs_path) = self.srs(&settings, &mut costs)?;
        if self.options.run.is_none() {
            (self.progress)(&format!("{name}: mock proof of one row"));
            // Without keys, a witness has no public values of the parameters.
            let none = Visibility::Private;
            let (_, cost) =
                circuit.witness(&mut self.ezkl, name, &row, &circuit.path(CIRCUIT), None, none)?;
            costs.extend([cost, circuit.mock(&mut self.ezkl)?]);
            (self.progress)(&format!("{name}: keys of 2^{} rows", settings.logrows));
            costs.push(circuit.setup(&mut self.ezkl, &srs_path)?);
        }
        let weights = self.weights(&circuit, &settings, &row, &srs_path, &mut costs)?;
        let module = self.keep(&circuit, interface, &settings, &srs, weights)?;
        let size =
            |file: &str| std::fs::metadata(self.kept(&module.name, file)).map_or(0, |m| m.len());
        let report = ModuleReport {
            name: name.into(),
            d_in: dims.iter().sum(),
            d_out: module.d_out,
            logrows: module.logrows,
            scales: (module.input_scale, module.output_scale),
            vk_bytes: size(VK),
            pk_bytes: size(PK),
            seconds: costs.iter().map(|cost| cost.seconds).sum(),
        };
        Ok((module, report))
    }

    /// Computes the values that fix the parameters.
    fn weights(
        &mut self,
        circuit: &Circuit<'_>,
        settings: &Settings,
        row: &Value,
        srs: &Path,
        costs: &mut Vec<Cost>,
    ) -> Result<Vec<String>, Error> {
        let compiled = circuit.path(CIRCUIT);
        let needed = matches!(settings.visibility, Visibility::Hashed | Visibility::Polycommit);
        if !needed {
            return Ok(Vec::new());
        }
        if !compiled.is_file() {
            return Err(Error::input(format!(
                "parameters that are {} are fixed by what the compiled circuit gives: put {CIRCUIT} beside {VK}",
                settings.visibility.name()
            )));
        }
        let keys = (circuit.path(VK), srs.to_path_buf());
        let keys = Some((keys.0.as_path(), keys.1.as_path()));
        let what = "the parameters";
        let (witness, cost) =
            circuit.witness(&mut self.ezkl, what, row, &compiled, keys, settings.visibility)?;
        costs.push(cost);
        Ok(witness.weights)
    }

    /// The SRS for a circuit. EZKL makes it if the user allowed that and named no file.
    fn srs(
        &mut self,
        settings: &Settings,
        costs: &mut Vec<Cost>,
    ) -> Result<(SrsFile, PathBuf), Error> {
        let dev = self.staging.out().join("public").join(folder::dev_srs(settings.logrows));
        let path = match self.options.srs.file {
            Some(file) => {
                let path = std::path::absolute(file).map_err(|e| Error::file(file, e))?;
                if self.options.srs.insecure_dev && !dev.is_file() {
                    std::fs::copy(&path, &dev).map_err(|e| Error::file(&path, e))?;
                }
                path
            }
            None => {
                if !dev.is_file() {
                    (self.progress)(&format!("INSECURE SRS of 2^{} points", settings.logrows));
                    let args = json!({ "srs_path": argument(&dev)?, "logrows": settings.logrows });
                    costs.push(self.ezkl.call("gen_srs", "an insecure SRS", args)?);
                }
                dev
            }
        };
        let srs = srs_file::inspect(&path, &path)?;
        if srs.logrows < settings.logrows {
            return Err(Error::file(
                &path,
                format!(
                    "2^{} points, this circuit needs 2^{}: name a larger SRS",
                    srs.logrows, settings.logrows
                ),
            ));
        }
        Ok((srs, path))
    }

    fn kept(&self, module: &str, file: &str) -> PathBuf {
        let part = if matches!(file, SETTINGS | VK) { "public" } else { "private" };
        self.staging.out().join(part).join(module).join(file)
    }

    /// Moves the files that are kept into the artifact folder, and describes the module.
    fn keep(
        &self,
        circuit: &Circuit<'_>,
        interface: &Interface,
        settings: &Settings,
        srs: &SrsFile,
        weights: Vec<String>,
    ) -> Result<Module, Error> {
        let name = circuit.name();
        zklora_files::create_folder(&self.staging.out().join("public").join(name), Access::Public)?;
        zklora_files::create_folder(
            &self.staging.out().join("private").join(name),
            Access::Private,
        )?;
        let mut digests = Vec::new();
        for (file, most) in [(SETTINGS, super::settings::MAX_BYTES), (VK, MAX_VK)] {
            let bytes = zklora_files::read(&circuit.path(file), most)?;
            digests.push(blake3::hash(&bytes).to_hex().to_string());
            zklora_files::write(&self.kept(name, file), &bytes, Access::Public)?;
        }
        for file in [CIRCUIT, PK] {
            let (from, to) = (circuit.path(file), self.kept(name, file));
            if from.is_file() {
                std::fs::rename(&from, &to).map_err(|e| Error::file(&to, e))?;
                restrict(&to)?;
            }
        }
        let [settings_digest, vk_digest] = <[String; 2]>::try_from(digests).unwrap_or_default();
        let module = Module {
            settings_digest,
            srs_digest: srs.digest.clone(),
            srs_insecure: self.options.srs.insecure_dev,
            vk_digest,
            weights,
            ..Module::described(name, interface, settings)
        };
        module
            .fits(settings)
            .map_err(|why| EzklError::answer(format!("{SETTINGS} of `{name}`"), why))?;
        Ok(module)
    }
}

/// Restricts a file to its owner.
fn restrict(path: &Path) -> Result<(), Error> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, mode).map_err(|e| Error::file(path, e))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Copies the files of an EZKL run.
fn take_run(circuit: &Circuit<'_>, run: &Path) -> Result<(), Error> {
    for (file, needed) in [(SETTINGS, true), (VK, true), (CIRCUIT, false), (PK, false)] {
        let from = run.join(file);
        if !from.is_file() {
            if needed {
                return Err(Error::file(
                    &from,
                    "not here: an EZKL run needs settings.json and vk.key under these names",
                ));
            }
            continue;
        }
        let to = circuit.path(file);
        std::fs::copy(&from, &to).map_err(|e| Error::file(&to, e))?;
    }
    Ok(())
}
