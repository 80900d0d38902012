//! Runs the whole pipeline on one adapter, through the files that the two parties exchange: `zklora
//! run`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use zklora_artifacts::{
    activation_file::ActivationFile, activation_source::ActivationSource, folder::Public,
    own_session::OwnSession, srs_file, synthetic::Synthetic, trace_reader::TraceReader, verify,
};
use zklora_files::Access;
use zklora_models::Adapter;
use zklora_proof::{
    keys::KeyStore,
    srs::{Provenance, Srs},
    verifier::{SrsPolicy, Verdict},
};
use zklora_session::{prove, record};

use crate::{
    Error, compile,
    precision::{Precision, precision},
    process::peak_memory,
};

/// The steps of the pipeline, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PipelineStep {
    /// Loading the SRS (from the cache after the first run).
    Srs,
    /// PEFT folder to ONNX files.
    Export,
    /// ONNX files to artifacts: tract, quantisation, keys, commitments.
    Compile,
    /// Activations to integer deltas.
    Record,
    /// The proof.
    Prove,
    /// Reading all files as a user, and verifying.
    Verify,
}

impl std::fmt::Display for PipelineStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PipelineStep::Srs => "load the SRS",
            PipelineStep::Export => "export to ONNX",
            PipelineStep::Compile => "compile and commit",
            PipelineStep::Record => "run on activations",
            PipelineStep::Prove => "prove",
            PipelineStep::Verify => "verify",
        })
    }
}

/// Where the activations come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunRows {
    /// A file that [`ActivationFile::open`] takes.
    File(PathBuf),
    /// This many pseudo-random rows for every module.
    Synthetic(usize),
}

/// What to run.
pub struct Options<'a> {
    /// The PEFT folder.
    pub adapter: &'a Path,
    /// The folder of the base model. Its fingerprint goes into the manifest, and DoRA and VeRA
    /// need its weights.
    pub base: Option<&'a Path>,
    /// The activations.
    pub rows: RunRows,
    /// The folder for `onnx/`, `public/`, `private/`, `trace.safetensors` and `session.pf`.
    pub out: &'a Path,
    /// An SRS file instead of the Ethereum ceremony.
    pub srs: Option<&'a Path>,
    /// Accept an SRS file of a ceremony that this program does not know.
    pub policy: SrsPolicy,
}

/// The result of a run.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Name of the base model, as the adapter's configuration has it.
    pub base_model: String,
    /// Modules, and how many of them have rows.
    pub modules: (usize, usize),
    /// Rows of all modules together.
    pub rows: usize,
    /// Parameters of the adapter.
    pub parameters: usize,
    /// Errors of the quantised deltas against the float adapter.
    pub precision: Precision,
    /// Wall time of each step.
    pub times: Vec<(PipelineStep, Duration)>,
    /// Bytes of the proof.
    pub proof_bytes: usize,
    /// Bytes of the manifest.
    pub manifest_bytes: usize,
    /// The verdict.
    pub verdict: Verdict,
    /// The ceremony of the SRS.
    pub ceremony: Provenance,
    /// Largest resident memory of this process so far, in bytes, if the system reports it.
    pub peak_memory: Option<u64>,
}

/// Runs every step. `progress` gets each step before it runs.
pub fn run(
    options: &Options<'_>,
    progress: &mut dyn FnMut(PipelineStep),
) -> Result<Summary, Error> {
    let mut times = Vec::new();
    let mut timed = Timed { times: &mut times, progress };
    let out = options.out;
    zklora_files::create_folder(out, Access::Public)?;
    let (onnx, trace_path, proof_path) =
        (out.join("onnx"), out.join("trace.safetensors"), out.join("session.pf"));

    let srs: Srs = timed.stage(PipelineStep::Srs, || Ok(srs_file::load(options.srs)?))?;
    let adapter = timed.stage(PipelineStep::Export, || {
        let adapter = Adapter::load_with_base(options.adapter, options.base)?;
        zklora_files::create_folder(&onnx, Access::Private)?;
        zklora_models::export::export(&adapter, &[], &onnx)?;
        Ok(adapter)
    })?;
    let keys = KeyStore::default();
    let artifacts = timed.stage(PipelineStep::Compile, || {
        let paths = [onnx.clone()];
        Ok(compile::compile(
            &compile::Options {
                paths: &paths,
                out,
                seed_file: None,
                calibrate: None,
                k: None,
                registered: false,
            },
            &srs,
            &keys,
        )?
        .artifacts)
    })?;
    let modules = artifacts.manifest.modules();
    let activations: Box<dyn ActivationSource> = match &options.rows {
        RunRows::File(path) => Box::new(ActivationFile::open(path, modules, None)?),
        RunRows::Synthetic(rows) => Box::new(Synthetic { rows: *rows }),
    };
    let recorded = timed.stage(PipelineStep::Record, || {
        Ok(record::record_to(&artifacts, &*activations, None, None, &trace_path)?)
    })?;
    let written = TraceReader::open(&trace_path, artifacts.manifest.id(), modules)?;
    let precision = precision(&adapter, &artifacts.manifest, &*activations, &written)?;
    drop((activations, written));
    let called = recorded.counts.iter().filter(|rows| **rows > 0).count();
    let proof = timed.stage(PipelineStep::Prove, || {
        let trace = TraceReader::trace(&trace_path, &artifacts.manifest)?;
        let proof = prove::prove(&artifacts, &trace, &srs, &keys)?;
        zklora_files::write(&proof_path, &proof, Access::Public)?;
        Ok(proof)
    })?;
    let pin = artifacts.manifest.id();
    let verdict = timed.stage(PipelineStep::Verify, || {
        // As the user: only the pin, the public folder, the user's trace and the proof file, with
        // newly derived keys.
        let keys = KeyStore::default();
        let public = Public::load(out, Some(&pin), &srs, &keys)?;
        let trace = TraceReader::trace(&trace_path, &public.manifest)?;
        let proof = zklora_files::read(&proof_path, verify::MAX_PROOF)?;
        let expected = OwnSession::default();
        Ok(verify::verify(
            &public.manifest,
            &trace,
            &expected,
            &proof,
            &srs,
            &keys,
            options.policy,
        )?)
    })?;
    Ok(Summary {
        base_model: adapter.base_model.name.clone(),
        modules: (recorded.counts.len(), called),
        rows: recorded.counts.iter().sum(),
        parameters: adapter.parameters(),
        precision,
        proof_bytes: proof.len(),
        manifest_bytes: artifacts.manifest.contents().to_bytes()?.len(),
        ceremony: verdict.ceremony,
        verdict,
        times,
        peak_memory: peak_memory(),
    })
}

struct Timed<'a> {
    times: &'a mut Vec<(PipelineStep, Duration)>,
    progress: &'a mut dyn FnMut(PipelineStep),
}

impl Timed<'_> {
    fn stage<T>(
        &mut self,
        stage: PipelineStep,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        (self.progress)(stage);
        let start = Instant::now();
        let result = work()?;
        self.times.push((stage, start.elapsed()));
        Ok(result)
    }
}
