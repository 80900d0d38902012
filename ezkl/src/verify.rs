//! Verifying a folder of EZKL proofs against the user's pin and the user's own trace.
//!
//! Nothing that comes with the proofs is believed: settings and keys have the digests of the pinned
//! manifest, the SRS is the user's file with the pinned digest, and what EZKL is given to verify
//! holds the public values of the user's trace and the bytes of the proof.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::json;
use zklora_artifacts::{
    module_rows::ModuleRows, own_session::OwnSession, session_rows::SessionRows,
};
use zklora_files::Access;

use super::{
    Check, EzklError, Python,
    child::Ezkl,
    circuit::argument,
    folder::{Keys, Public, SETTINGS, Srs, VK},
    manifest::Module,
    proof_file::{self, ProofFile, Statement},
    prove::proof_name,
    rows,
};
use crate::Error;

/// What was verified.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Rows of each module, in the manifest's order.
    pub rows: Vec<(String, usize)>,
    /// Modules with rows whose weights nothing fixes.
    pub unbound: Vec<String>,
    /// Whether an SRS was used that its maker can forge proofs with.
    pub srs_insecure: bool,
    /// Digests of the SRS files.
    pub srs: BTreeSet<String>,
    /// Bytes of all proofs.
    pub proof_bytes: u64,
}

/// Verifies one proof for every row of the trace.
///
/// `own` is what the user knows of the session without the trace.
///
/// # Errors
/// [`EzklError::Refused`] names the check; [`zklora_artifacts::Error::NotYours`] if the trace is of
/// another session or of other activations.
pub fn verify(
    public: &Public,
    trace: &SessionRows,
    own: &OwnSession<'_>,
    proofs: &Path,
    srs: &Srs<'_>,
    python: &Python,
    progress: &mut dyn FnMut(&str),
) -> Result<Verdict, Error> {
    own.check_id(&trace.session)?;
    if let Some(activations) = own.inputs {
        rows::check_inputs(&public.pinned, trace, activations)?;
    }
    let modules = public.pinned.modules();
    if trace.rows() == 0 {
        return Err(Error::input("the trace has no rows: there is nothing to verify"));
    }
    rows::check_scales(&public.pinned, trace)?;
    require_exactly(proofs, modules, trace)?;
    let mut verdict = Verdict {
        rows: modules
            .iter()
            .zip(&trace.modules)
            .map(|(m, rows)| (m.name.clone(), rows.scales.len()))
            .collect(),
        unbound: Vec::new(),
        srs_insecure: false,
        srs: BTreeSet::new(),
        proof_bytes: 0,
    };
    let scratch = zklora_files::scratch()?;
    let mut ezkl = Ezkl::start(python, scratch.path())?;
    for (place, (module, rows)) in modules.iter().zip(&trace.modules).enumerate() {
        if rows.scales.is_empty() {
            continue;
        }
        let (keys, srs_path) =
            (public.keys(module)?, public.copied_srs(module, srs, scratch.path())?);
        let circuit = Circuit {
            module,
            keys: &keys,
            srs: &srs_path,
            work: scratch.path().join(place.to_string()),
        };
        for row in 0..rows.scales.len() {
            progress(&format!("verify {}, row {row}", module.name));
            verdict.proof_bytes +=
                circuit.row(&mut ezkl, rows, row, &proofs.join(proof_name(&module.name, row)))?;
        }
        if !module.param_visibility.binds() {
            verdict.unbound.push(module.name.clone());
        }
        verdict.srs_insecure |= module.srs_insecure;
        verdict.srs.insert(module.srs_digest.clone());
    }
    Ok(verdict)
}

/// Whether the folder holds one file for each row of the trace, and nothing else.
fn require_exactly(proofs: &Path, modules: &[Module], trace: &SessionRows) -> Result<(), Error> {
    let mut expected = BTreeSet::new();
    for (module, rows) in modules.iter().zip(&trace.modules) {
        expected.extend((0..rows.scales.len()).map(|row| proof_name(&module.name, row)));
    }
    let failed = |e| Error::file(proofs, e);
    if !std::fs::metadata(proofs).map_err(failed)?.is_dir() {
        return Err(Error::file(
            proofs,
            "proofs of the EZKL backend are a folder with one file a row",
        ));
    }
    let refused = |why: String| Err(EzklError::refused(Check::Rows, why).into());
    for entry in std::fs::read_dir(proofs).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if !expected.remove(&name) {
            return refused(format!("`{name:.300}` belongs to no row of your trace"));
        }
    }
    match expected.first() {
        Some(missing) => refused(format!(
            "{} rows of your trace have no proof, the first is {missing}",
            expected.len()
        )),
        None => Ok(()),
    }
}

/// A module's circuit, from checked files.
pub(super) struct Circuit<'a> {
    pub module: &'a Module,
    pub keys: &'a Keys,
    pub srs: &'a Path,
    /// A folder for what EZKL is given.
    pub work: PathBuf,
}

impl Circuit<'_> {
    /// Verifies the proof of a row, and gives back its size in bytes.
    pub fn row(
        &self,
        ezkl: &mut Ezkl<'_>,
        rows: &ModuleRows,
        row: usize,
        path: &Path,
    ) -> Result<u64, Error> {
        let module = self.module;
        let what = format!("{}, row {row}", module.name);
        let bytes = zklora_files::read(path, proof_file::MAX_BYTES)?;
        let proof = ProofFile::parse(&bytes)
            .map_err(|why| EzklError::refused(Check::Proof, format!("{what}: {why}")))?;
        let delta = &rows.delta[row * module.d_out..(row + 1) * module.d_out];
        let statement = Statement { module, inputs: rows::row(module, rows, row), delta };
        let named = |e| match e {
            EzklError::Refused { check, why } => {
                EzklError::Refused { check, why: format!("{what}: {why}") }
            }
            e => e,
        };
        let given = proof.for_row(&statement).map_err(named)?;
        zklora_files::create_folder(&self.work, Access::Private)?;
        let file = |name: &str| self.work.join(name);
        zklora_files::write(&file("proof.json"), given.to_string().as_bytes(), Access::Private)?;
        // Once a circuit.
        if row == 0 || !file(VK).is_file() {
            zklora_files::write(&file(SETTINGS), &self.keys.settings, Access::Private)?;
            zklora_files::write(&file(VK), &self.keys.vk, Access::Private)?;
        }
        let args = json!({
            "proof_path": argument(&file("proof.json"))?,
            "settings_path": argument(&file(SETTINGS))?,
            "vk_path": argument(&file(VK))?,
            "srs_path": argument(self.srs)?,
        });
        match ezkl.call("verify", &what, args) {
            Ok(_) => Ok(bytes.len() as u64),
            // It was given checked files; what it does not accept is the proof.
            Err(EzklError::Failed { why, .. }) => Err(EzklError::refused(
                Check::Proof,
                format!("{what}: EZKL does not accept this proof ({why})"),
            )
            .into()),
            Err(e) => Err(e.into()),
        }
    }
}
