//! Records, proves, verifies, and audits after payment.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use pyo3::{prelude::*, types::PyBytes};
use zklora_artifacts::{
    own_session::OwnSession,
    secret_files,
    verify::{self as verification, MAX_PROOF},
};
use zklora_files::Access;
use zklora_proof::{proof::Proof, verifier::SrsPolicy};
use zklora_runtime::audit as auditing;
use zklora_session::{prove as proving, record as recording};

use crate::{
    adapters::{Artifacts, Manifest},
    error::Failure,
    given_activations::Given,
    globals,
    trace::Trace,
    worker,
};

fn bytes32(what: &str, text: &str) -> Result<[u8; 32], Failure> {
    let mut bytes = [0u8; 32];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| Failure::Input(format!("{what} is 64 hex digits")))?;
    Ok(bytes)
}

/// Runs the quantised adapter on activations, and counts the rows in the artifacts' ledger. With
/// `out` the rows go to that file in pieces, else the trace is in memory.
#[pyfunction]
#[pyo3(signature = (artifacts, activations, session_id=None, max_rows=None, out=None))]
pub fn record(
    py: Python<'_>,
    artifacts: &Artifacts,
    activations: Given<'_>,
    session_id: Option<&str>,
    max_rows: Option<u64>,
    out: Option<PathBuf>,
) -> Result<Trace, Failure> {
    let artifacts = Arc::clone(&artifacts.0);
    let session = session_id.map(|text| bytes32("session_id", text)).transpose()?;
    let manifest = Arc::new(artifacts.manifest.clone());
    let Some(out) = out else {
        let activations = activations.to_memory(&manifest)?;
        return worker::run(py, None, move |_| {
            let (file, _) = recording::record(&artifacts, &activations, session, max_rows)?;
            Ok(Trace::in_memory(file, manifest))
        });
    };
    let activations = activations.to_source(&manifest)?;
    worker::run(py, None, move |_| {
        recording::record_to(&artifacts, &*activations, session, max_rows, &out)?;
        Trace::in_file(&out, manifest)
    })
}

/// Proves a session that these artifacts served.
#[pyfunction]
#[pyo3(signature = (artifacts, trace, progress=None))]
pub fn prove<'py>(
    py: Python<'py>,
    artifacts: &Artifacts,
    trace: &Trace,
    progress: Option<Py<PyAny>>,
) -> Result<Bound<'py, PyBytes>, Failure> {
    let (artifacts, storage) = (Arc::clone(&artifacts.0), Arc::clone(&trace.storage));
    let proof = worker::run(py, progress.as_ref(), move |told| {
        told.step("prove", 0, 1);
        let srs = globals::srs()?;
        let proof = storage.with_trace(&artifacts.manifest, |rows| {
            Ok(proving::prove(&artifacts, rows, &srs, globals::keys())?)
        })?;
        told.step("proven", 1, 1);
        Ok(proof)
    })?;
    Ok(PyBytes::new(py, &proof))
}

/// Verifies a proof against a manifest and the verifier's own trace; returns the number of rows of
/// every module. The caller checks the pin when it loads the manifest.
#[pyfunction]
#[pyo3(signature = (manifest, trace, proof, session_id=None, activations=None))]
pub fn verify(
    py: Python<'_>,
    manifest: &Manifest,
    trace: &Trace,
    proof: Vec<u8>,
    session_id: Option<&str>,
    activations: Option<Given<'_>>,
) -> Result<BTreeMap<String, usize>, Failure> {
    let (manifest, storage) = (Arc::clone(&manifest.manifest), Arc::clone(&trace.storage));
    let own = session_id.map(|text| bytes32("session_id", text)).transpose()?;
    let activations = activations.map(|given| given.to_source(&manifest)).transpose()?;
    worker::run(py, None, move |_| {
        let own = OwnSession { id: own, inputs: activations.as_deref() };
        // A session of another id is refused before its rows are read.
        own.check_id(storage.session())?;
        let (srs, keys) = (globals::srs()?, globals::keys());
        let verdict = storage.with_trace(&manifest, |rows| {
            let policy = SrsPolicy::TrustedOnly;
            Ok(verification::verify(&manifest, rows, &own, &proof, &srs, keys, policy)?)
        })?;
        Ok(verdict.rows.into_iter().collect())
    })
}

/// The bytes of a proof file.
#[pyfunction]
pub fn read_proof<'py>(py: Python<'py>, path: PathBuf) -> Result<Bound<'py, PyBytes>, Failure> {
    let proof = worker::run(py, None, move |_| Ok(zklora_files::read(&path, MAX_PROOF)?))?;
    Ok(PyBytes::new(py, &proof))
}

/// Writes a proof file atomically.
#[pyfunction]
pub fn write_proof(py: Python<'_>, path: PathBuf, proof: Vec<u8>) -> Result<(), Failure> {
    worker::run(py, None, move |_| Ok(zklora_files::write(&path, &proof, Access::Public)?))
}

/// Checks that bytes have the form of a proof of this adapter. Proves nothing about any row.
#[pyfunction]
pub fn check_proof_format(
    py: Python<'_>,
    manifest: &Manifest,
    proof: Vec<u8>,
) -> Result<(), Failure> {
    let manifest = Arc::clone(&manifest.manifest);
    worker::run(py, None, move |_| {
        Proof::parse(&proof, &manifest.layout()).map_err(Failure::from)?;
        Ok(())
    })
}

/// Compares a delivered adapter with the committed one; returns module and reason of every
/// difference, and whether the base models were compared.
#[pyfunction]
#[pyo3(signature = (manifest, delivered, opening, base=None))]
pub fn audit(
    py: Python<'_>,
    manifest: &Manifest,
    delivered: PathBuf,
    opening: PathBuf,
    base: Option<PathBuf>,
) -> Result<(Vec<(String, String)>, bool), Failure> {
    let manifest = Arc::clone(&manifest.manifest);
    worker::run(py, None, move |_| {
        let (adapter, key) = secret_files::read_opening(&opening)?;
        if adapter != manifest.id() {
            tracing::warn!(
                "the opening says that it is for adapter {adapter}, but this manifest is of {}",
                manifest.id()
            );
        }
        let report =
            auditing::audit(&delivered, base.as_deref(), &manifest, &key, &*globals::srs()?)?;
        let not_compared = report.base_model.not_compared();
        if let Some(why) = not_compared {
            tracing::warn!("{}: base model: {why}", delivered.display());
        }
        let compared = not_compared.is_none();
        let differences =
            report.differences.into_iter().map(|difference| (difference.module, difference.why));
        Ok((differences.collect(), compared))
    })
}
