//! Runs EZKL's stages. Each runs in its own process, so that its memory is measured alone.

use std::path::{Path, PathBuf};

use serde_json::json;
use zklora_artifacts::{activations::Activations, module_rows::ModuleRows};
use zklora_compiler::compile::OnnxModel;
use zklora_ezkl::{
    self as ezkl, EzklError, VERSION,
    child::{Cost, Ezkl},
    circuit::{Circuit, Proving, argument},
    circuit_options::Visibility,
    compile::{floats, interface, write_onnx},
    folder::{CIRCUIT, PK, SETTINGS, VK},
    interface::Interface,
    manifest::Module,
    rows,
    settings::Settings,
};

use super::{
    comparison::{ComparedStage, Figures, Outcome, SystemReport},
    measure::{measured, size},
    run::Run,
};
use crate::Error;

/// Runs all stages until one fails. Also returns the time that EZKL took to make its SRS.
pub(super) fn run(
    run: &mut Run<'_>,
    onnx: &Path,
    given: &Activations,
) -> Result<(SystemReport, Option<f64>), Error> {
    let mut side = SystemReport::new(format!("EZKL {VERSION}"));
    let bytes = zklora_files::read(onnx, zklora_files::MAX_FILE)?;
    let source =
        OnnxModel { name: run.options.module.into(), onnx: bytes, folder: None, scaling: None };
    let interface = interface(&source)?;
    let circuit = Circuit::new(run.folder.join("ezkl"), run.options.module)?;
    let mut srs_seconds = None;
    let mut stages =
        Stages { run, circuit: &circuit, interface: &interface, side: &mut side, given };
    let outcome = stages.all(&source, &mut srs_seconds);
    match outcome {
        Ok(()) | Err(Ended::ByStage) => {}
        Err(Ended::ByError(error)) => return Err(error),
    }
    Ok((side, srs_seconds))
}

/// Why no further stage runs.
enum Ended {
    /// A stage failed or hit a limit: the report says why.
    ByStage,
    /// An error of the input, or a cancellation.
    ByError(Error),
}

impl<E: Into<Error>> From<E> for Ended {
    fn from(error: E) -> Ended {
        Ended::ByError(error.into())
    }
}

struct Stages<'a, 'r> {
    run: &'a mut Run<'r>,
    circuit: &'a Circuit<'a>,
    interface: &'a Interface,
    side: &'a mut SystemReport,
    given: &'a Activations,
}

impl Stages<'_, '_> {
    /// Runs one stage in its own process, within the limits.
    fn stage<T>(
        &mut self,
        stage: ComparedStage,
        work: impl FnOnce(&mut Ezkl<'_>) -> Result<(T, Vec<Cost>), Error>,
    ) -> Result<T, Ended> {
        (self.run.progress)(&format!("EZKL: {}", stage.name()));
        let mut ezkl = Ezkl::start(self.run.python, self.run.folder)?;
        ezkl.limit_all();
        match work(&mut ezkl) {
            Ok((made, costs)) => {
                let sum = |of: fn(&Cost) -> f64| costs.iter().map(of).sum();
                let peak = costs.iter().map(|cost| cost.peak_bytes).max().filter(|peak| *peak > 0);
                let figures = Figures {
                    seconds: sum(|c| c.seconds),
                    cpu_seconds: sum(|c| c.cpu_seconds),
                    peak_bytes: peak,
                };
                self.side.set(stage, Outcome::Done(figures));
                Ok(made)
            }
            Err(Error::Ezkl(ezkl::Error::Ezkl(EzklError::Cancelled))) => {
                Err(Ended::ByError(EzklError::Cancelled.into()))
            }
            Err(error) => {
                let limit = self.run.python.timeout.as_secs();
                let why = match &error {
                    Error::Ezkl(ezkl::Error::Ezkl(EzklError::Timeout { .. })) => {
                        format!("hit the limit of {limit} s")
                    }
                    Error::Ezkl(ezkl::Error::Ezkl(EzklError::Memory { limit, .. })) => {
                        format!("hit the limit of {limit} MiB")
                    }
                    other => other.to_string(),
                };
                self.side.set(stage, Outcome::Stopped(why));
                Err(Ended::ByStage)
            }
        }
    }

    fn all(&mut self, source: &OnnxModel, srs_seconds: &mut Option<f64>) -> Result<(), Ended> {
        let (circuit, interface) = (self.circuit, self.interface);
        // The same export as the native proof's: both start from ONNX.
        let modules = [self.run.options.module.to_string()];
        let again = self.run.folder.join("onnx-again");
        zklora_files::create_folder(&again, zklora_files::Access::Private)?;
        let (_, took) =
            measured(|| Ok(zklora_models::export::export(self.run.adapter, &modules, &again)?))?;
        self.side.set(ComparedStage::Export, Outcome::Done(took));
        write_onnx(circuit, source)?;
        let empty = Vec::new();
        let inputs = self.given.modules.get(self.run.options.module).unwrap_or(&empty).clone();
        let calibration = floats(interface, &inputs, 4);
        let options = self.run.options.circuit.clone();
        let settings = self.stage(ComparedStage::Settings, |ezkl| {
            Ok(circuit.settings(ezkl, interface, &options, &calibration)?)
        })?;
        self.side.logrows = Some(settings.logrows);
        let srs = self.srs(&settings, srs_seconds)?;
        self.stage(ComparedStage::Setup, |ezkl| Ok(((), vec![circuit.setup(ezkl, &srs)?])))?;
        self.side.public_bytes =
            [SETTINGS, VK].iter().map(|file| size(&circuit.path(file), &[])).sum();
        self.side.private_bytes =
            [CIRCUIT, PK].iter().map(|file| size(&circuit.path(file), &[])).sum();
        let module = Module::described(self.run.options.module, interface, &settings);
        let mut rows = rows::quantized(&module, &inputs)?;
        rows.delta =
            self.stage(ComparedStage::Witness, |ezkl| witnesses(ezkl, circuit, &module, &rows))?;
        let scale = (-f64::from(module.output_scale)).exp2();
        let deltas: Vec<f64> = rows.delta.iter().map(|d| *d as f64 * scale).collect();
        self.side.accuracy = self.run.accuracy(&deltas, self.given);
        let proofs =
            self.stage(ComparedStage::Prove, |ezkl| proofs(ezkl, circuit, &module, &rows, &srs))?;
        self.side.proof_bytes = Some(proofs.iter().map(|proof| size(proof, &[])).sum());
        self.stage(ComparedStage::Verify, |ezkl| {
            let costs = proofs.iter().enumerate().map(|(row, proof)| {
                let args = json!({
                    "proof_path": argument(proof)?, "settings_path": argument(&circuit.path(SETTINGS))?,
                    "vk_path": argument(&circuit.path(VK))?, "srs_path": argument(&srs)?,
                });
                Ok(ezkl.call("verify", &format!("row {row}"), args)?)
            });
            Ok(((), costs.collect::<Result<Vec<_>, Error>>()?))
        })
    }

    /// Makes the SRS. It is not a stage, because one SRS serves many circuits.
    fn srs(&mut self, settings: &Settings, seconds: &mut Option<f64>) -> Result<PathBuf, Ended> {
        if let Some(file) = self.run.options.ezkl_srs {
            return Ok(std::path::absolute(file).map_err(|e| Error::file(file, e))?);
        }
        (self.run.progress)(&format!("EZKL: insecure SRS of 2^{} points", settings.logrows));
        let path = self.run.folder.join("bench.srs");
        let mut ezkl = Ezkl::start(self.run.python, self.run.folder)?;
        let args = json!({ "srs_path": argument(&path)?, "logrows": settings.logrows });
        match ezkl.call("gen_srs", "an insecure SRS", args) {
            Ok(cost) => *seconds = Some(cost.seconds),
            Err(EzklError::Cancelled) => return Err(EzklError::Cancelled.into()),
            Err(error) => {
                self.side.set(
                    ComparedStage::Setup,
                    Outcome::Stopped(format!("no SRS: {error}; name one with --ezkl-srs")),
                );
                return Err(Ended::ByStage);
            }
        }
        Ok(path)
    }
}

fn witnesses(
    ezkl: &mut Ezkl<'_>,
    circuit: &Circuit<'_>,
    module: &Module,
    rows: &ModuleRows,
) -> Result<(Vec<i64>, Vec<Cost>), Error> {
    let (mut deltas, mut costs) = (Vec::new(), Vec::new());
    for row in 0..rows.scales.len() {
        let input = rows::input_data(module, &rows::row(module, rows, row));
        let (what, compiled) = (format!("row {row}"), circuit.path(CIRCUIT));
        let (witness, cost) =
            circuit.witness(ezkl, &what, &input, &compiled, None, Visibility::Private)?;
        deltas.extend(witness.output);
        costs.push(cost);
    }
    Ok((deltas, costs))
}

fn proofs(
    ezkl: &mut Ezkl<'_>,
    circuit: &Circuit<'_>,
    module: &Module,
    rows: &ModuleRows,
    srs: &Path,
) -> Result<(Vec<PathBuf>, Vec<Cost>), Error> {
    let (mut proofs, mut costs) = (Vec::new(), Vec::new());
    let (compiled, pk, vk) = (circuit.path(CIRCUIT), circuit.path(PK), circuit.path(VK));
    for row in 0..rows.scales.len() {
        let (what, proof) = (format!("row {row}"), circuit.path(&format!("proof-{row}.json")));
        // The time of witnesses was counted in the previous stage. Commitments to parameters need
        // the keys.
        let input = rows::input_data(module, &rows::row(module, rows, row));
        let keys =
            (module.param_visibility == Visibility::Polycommit).then_some((vk.as_path(), srs));
        circuit.witness(ezkl, &what, &input, &compiled, keys, Visibility::Private)?;
        costs.push(circuit.prove(
            ezkl,
            &what,
            &Proving { circuit: &compiled, pk: &pk, srs, proof: &proof },
        )?);
        proofs.push(proof);
    }
    Ok((proofs, costs))
}
