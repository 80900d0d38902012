//! The files of one circuit in the making, and EZKL's steps on them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use zklora_files::Access;

use super::{
    EzklError,
    child::{Cost, Ezkl},
    circuit_options::{CircuitOptions, Visibility},
    folder::{CIRCUIT, PK, SETTINGS, VK},
    interface::Interface,
    settings::{self, Settings},
    witness::{self, Witness},
};
use crate::Error;

/// Name of the graph in the folder.
pub const ONNX: &str = "model.onnx";
const INPUT: &str = "input.json";
const WITNESS: &str = "witness.json";
const CALIBRATION: &str = "calibration.json";

/// A circuit's folder.
pub struct Circuit<'a> {
    folder: PathBuf,
    name: &'a str,
}

/// Converts a path to an argument of EZKL's functions.
pub fn argument(path: &Path) -> Result<&str, Error> {
    path.to_str()
        .ok_or_else(|| Error::file(path, "EZKL takes only names that are UTF-8: choose another"))
}

impl<'a> Circuit<'a> {
    /// An empty circuit in this folder, which is created if it does not exist.
    pub fn new(folder: PathBuf, name: &'a str) -> Result<Circuit<'a>, Error> {
        zklora_files::create_folder(&folder, Access::Private)?;
        Ok(Circuit { folder, name })
    }

    /// The module's name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Path of a file in the folder.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    fn args<const N: usize>(&self, files: [(&str, &str); N]) -> Result<Value, Error> {
        let mut args = json!({});
        for (key, file) in files {
            args[key] = argument(&self.path(file))?.into();
        }
        Ok(args)
    }

    fn write(&self, file: &str, value: &Value) -> Result<(), Error> {
        let bytes = value.to_string();
        Ok(zklora_files::write(&self.path(file), bytes.as_bytes(), Access::Private)?)
    }

    /// Makes the settings, calibrated on rows if the options say so, and compiles the circuit.
    /// `calibration` is EZKL's input file.
    pub fn settings(
        &self,
        ezkl: &mut Ezkl<'_>,
        interface: &Interface,
        options: &CircuitOptions,
        calibration: &Value,
    ) -> Result<(Settings, Vec<Cost>), Error> {
        let mut args = self.args([("model", ONNX), ("output", SETTINGS)])?;
        args["py_run_args"] = options.run_args(interface.symbols.iter());
        let mut costs = vec![ezkl.call("gen_settings", self.name, args)?];
        if let Some(target) = options.calibration() {
            self.write(CALIBRATION, calibration)?;
            let mut args =
                self.args([("data", CALIBRATION), ("model", ONNX), ("settings", SETTINGS)])?;
            args["target"] = target.into();
            if let Some(logrows) = options.logrows {
                args["max_logrows"] = logrows.into();
            }
            costs.push(ezkl.call("calibrate_settings", self.name, args)?);
        }
        let args = self.args([
            ("model", ONNX),
            ("compiled_circuit", CIRCUIT),
            ("settings_path", SETTINGS),
        ])?;
        costs.push(ezkl.call("compile_circuit", self.name, args)?);
        Ok((self.read_settings()?, costs))
    }

    /// Reads the settings that EZKL wrote.
    pub fn read_settings(&self) -> Result<Settings, Error> {
        let bytes = zklora_files::read(&self.path(SETTINGS), settings::MAX_BYTES)?;
        Settings::parse(&bytes)
            .map_err(|why| EzklError::answer(format!("{SETTINGS} of `{}`", self.name), why).into())
    }

    /// Makes the proving and the verifying key.
    pub fn setup(&self, ezkl: &mut Ezkl<'_>, srs: &Path) -> Result<Cost, Error> {
        let mut args = self.args([("model", CIRCUIT), ("vk_path", VK), ("pk_path", PK)])?;
        args["srs_path"] = argument(srs)?.into();
        Ok(ezkl.call("setup", self.name, args)?)
    }

    /// Computes the witness of a row. With `keys`, the witness also has the public values of the
    /// parameters.
    pub fn witness(
        &self,
        ezkl: &mut Ezkl<'_>,
        what: &str,
        input: &Value,
        circuit: &Path,
        keys: Option<(&Path, &Path)>,
        visibility: Visibility,
    ) -> Result<(Witness, Cost), Error> {
        self.write(INPUT, input)?;
        let mut args = self.args([("data", INPUT), ("output", WITNESS)])?;
        args["model"] = argument(circuit)?.into();
        if let Some((vk, srs)) = keys {
            args["vk_path"] = argument(vk)?.into();
            args["srs_path"] = argument(srs)?.into();
        }
        let cost = ezkl.call("gen_witness", what, args)?;
        let bytes = zklora_files::read(&self.path(WITNESS), witness::MAX_BYTES)?;
        let witness = Witness::parse(&bytes, visibility)
            .map_err(|why| EzklError::answer(format!("EZKL's witness of {what}"), why))?;
        Ok((witness, cost))
    }

    /// Checks that the last witness satisfies the circuit. Needs no keys.
    pub fn mock(&self, ezkl: &mut Ezkl<'_>) -> Result<Cost, Error> {
        let args = self.args([("witness", WITNESS), ("model", CIRCUIT)])?;
        Ok(ezkl.call("mock", self.name, args)?)
    }

    /// Proves the last witness and writes the proof to `proof`.
    pub fn prove(
        &self,
        ezkl: &mut Ezkl<'_>,
        what: &str,
        files: &Proving<'_>,
    ) -> Result<Cost, Error> {
        let mut args = self.args([("witness", WITNESS)])?;
        args["model"] = argument(files.circuit)?.into();
        args["pk_path"] = argument(files.pk)?.into();
        args["proof_path"] = argument(files.proof)?.into();
        args["srs_path"] = argument(files.srs)?.into();
        Ok(ezkl.call("prove", what, args)?)
    }
}

/// The files that proving reads, and the file that it writes.
pub struct Proving<'a> {
    /// The compiled circuit.
    pub circuit: &'a Path,
    /// The proving key.
    pub pk: &'a Path,
    /// The SRS.
    pub srs: &'a Path,
    /// The proof.
    pub proof: &'a Path,
}
