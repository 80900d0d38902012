//! Verifies a folder of EZKL proofs against the user's pin and the user's own trace.
//!
//! The verifier trusts nothing that comes with the proofs: settings and keys must have the digests
//! of the pinned manifest, the SRS is the user's file with the pinned digest, and the proof file
//! that EZKL verifies is built from the user's trace and the bytes of the proof.
//!
//! This module reads the folder and checks it against the trace. `row_verifier` verifies the proof
//! of one row: it has the Python process of `child`, which runs `driver.py`, call EZKL.

use std::{collections::BTreeSet, path::Path};

use zklora_artifacts::{
    activations::Activations, own_session::OwnSession, session_rows::SessionRows,
};

use super::{
    Check, EzklError, Python,
    child::Ezkl,
    folder::{Public, Srs},
    manifest::Module,
    proof_file::proof_name,
    row_verifier::RowVerifier,
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
    /// Whether the maker of an SRS can forge proofs with it.
    pub srs_insecure: bool,
    /// Digests of the SRS files.
    pub srs: BTreeSet<String>,
    /// Bytes of all proofs.
    pub proof_bytes: u64,
}

/// Verifies one proof for every row of the trace.
///
/// `expected` is what the user knows about the session without the trace.
///
/// # Errors
/// [`EzklError::Refused`] names the check. [`zklora_artifacts::Error::NotYours`] if the trace has
/// another session id or other activations.
pub fn verify(
    public: &Public,
    trace: &SessionRows,
    expected: &OwnSession<'_>,
    proofs: &Path,
    srs: &Srs<'_>,
    python: &Python,
    progress: &mut dyn FnMut(&str),
) -> Result<Verdict, Error> {
    expected.check_id(&trace.session)?;
    if let Some(activations) = expected.inputs {
        // EZKL proves each row for itself, so its sessions are short.
        let activations = Activations::of(activations, &public.manifest.shapes())?;
        rows::check_inputs(&public.manifest, trace, &activations)?;
    }
    let modules = public.manifest.modules();
    if trace.rows() == 0 {
        return Err(Error::input("the trace has no rows: there is nothing to verify"));
    }
    rows::check_scales(&public.manifest, trace)?;
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
    for (index, (module, rows)) in modules.iter().zip(&trace.modules).enumerate() {
        if rows.scales.is_empty() {
            continue;
        }
        let (keys, srs_path) =
            (public.keys(module)?, public.copied_srs(module, srs, scratch.path())?);
        let verifier = RowVerifier {
            module,
            keys: &keys,
            srs: &srs_path,
            work: scratch.path().join(index.to_string()),
        };
        for row in 0..rows.scales.len() {
            progress(&format!("verify {}, row {row}", module.name));
            verdict.proof_bytes += verifier.verify(
                &mut ezkl,
                rows,
                row,
                &proofs.join(proof_name(&module.name, row)),
            )?;
        }
        if !module.param_visibility.binds() {
            verdict.unbound.push(module.name.clone());
        }
        verdict.srs_insecure |= module.srs_insecure;
        verdict.srs.insert(module.srs_digest.clone());
    }
    Ok(verdict)
}

/// Checks that the folder has one file for each row of the trace, and no other file.
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
