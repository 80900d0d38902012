//! Proves a recorded session: one EZKL proof per row, in a folder.

use std::path::Path;

use zklora_artifacts::{module_rows::ModuleRows, session_rows::SessionRows};
use zklora_files::Access;
use zklora_session::ledger;

use super::{
    Check, EzklError, Python,
    child::Ezkl,
    circuit::{Circuit, Proving},
    circuit_options::Visibility,
    folder::{Artifacts, CIRCUIT, Keys, PK, Srs, Staging},
    manifest::Module,
    proof_file::proof_name,
    row_verifier::RowVerifier,
    rows,
};
use crate::Error;

/// Proves every row of a session that this folder served. Each proof is verified before the folder
/// of proofs appears at `out`. Returns the size of all proofs in bytes.
///
/// # Errors
/// [`zklora_session::Error::NotServed`] if the ledger does not have exactly these rows;
/// [`Check::Trace`] if a delta is not that of the circuit.
pub fn prove(
    artifacts: &Artifacts,
    trace: &SessionRows,
    srs: &Srs<'_>,
    out: &Path,
    python: &Python,
    progress: &mut dyn FnMut(&str),
) -> Result<u64, Error> {
    if out.exists() {
        return Err(Error::file(
            out,
            "already there: the proofs of a session are a folder of their own",
        ));
    }
    if !ledger::was_served(
        &ledger::index(&artifacts.ledger())?,
        &trace.session,
        rows::digest(trace),
    ) {
        return Err(zklora_session::Error::NotServed(format!(
            "these rows are not a session that {} served: only what `trace record` computed is proven",
            artifacts.ledger().display()
        )).into());
    }
    let staging = Staging::beside(out)?;
    let mut ezkl = Ezkl::start(python, staging.work())?;
    let mut bytes = 0;
    for (index, (module, rows)) in
        artifacts.public.manifest.modules().iter().zip(&trace.modules).enumerate()
    {
        if rows.scales.is_empty() {
            continue;
        }
        let keys = artifacts.public.keys(module)?;
        let (compiled, pk) = (artifacts.private(module, CIRCUIT)?, artifacts.private(module, PK)?);
        let srs = artifacts.public.srs(module, srs)?;
        let work = Circuit::new(staging.work().join(index.to_string()), &module.name)?;
        let prover =
            RowProver { module, keys: &keys, compiled: &compiled, pk: &pk, srs: &srs, work: &work };
        for row in 0..rows.scales.len() {
            progress(&format!("prove {}, row {row}", module.name));
            bytes += prover.prove(&mut ezkl, rows, row, &staging.out())?;
        }
    }
    drop(ezkl);
    if python.cancel.is_cancelled() {
        return Err(EzklError::Cancelled.into());
    }
    staging.publish(out)?;
    Ok(bytes)
}

struct RowProver<'a> {
    module: &'a Module,
    keys: &'a Keys,
    compiled: &'a Path,
    pk: &'a Path,
    srs: &'a Path,
    work: &'a Circuit<'a>,
}

impl RowProver<'_> {
    fn prove(
        &self,
        ezkl: &mut Ezkl<'_>,
        rows: &ModuleRows,
        row: usize,
        out: &Path,
    ) -> Result<u64, Error> {
        let module = self.module;
        let what = format!("{}, row {row}", module.name);
        let inputs = rows::row(module, rows, row);
        let vk = self.work.path("pinned-vk.key");
        zklora_files::write(&vk, &self.keys.vk, Access::Private)?;
        // The witness has the commitments to the parameters, which need the key and the SRS.
        let keys =
            (module.param_visibility == Visibility::Polycommit).then_some((vk.as_path(), self.srs));
        let input = rows::input_data(module, &inputs);
        let (witness, _) =
            self.work.witness(ezkl, &what, &input, self.compiled, keys, Visibility::Private)?;
        witness.check_row(&inputs, module.d_out, &what)?;
        if witness.output != rows.delta[row * module.d_out..(row + 1) * module.d_out] {
            let why = format!("{what}: the delta is not what the circuit computes");
            return Err(EzklError::refused(Check::Trace, why).into());
        }
        let proof = out.join(proof_name(&module.name, row));
        let files = Proving { circuit: self.compiled, pk: self.pk, srs: self.srs, proof: &proof };
        self.work.prove(ezkl, &what, &files)?;
        let verifier =
            RowVerifier { module, keys: self.keys, srs: self.srs, work: self.work.path("verify") };
        verifier.verify(ezkl, rows, row, &proof)?;
        Ok(std::fs::metadata(&proof).map_err(|e| Error::file(&proof, e))?.len())
    }
}
