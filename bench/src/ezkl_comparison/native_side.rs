//! Runs the native proof's stages, in this process.

use std::path::PathBuf;

use zklora_artifacts::{
    activations::Activations, folder::Public, own_session::OwnSession, srs_file,
    trace_reader::TraceReader, verify,
};
use zklora_files::Access;
use zklora_proof::{keys::KeyStore, verifier::SrsPolicy};
use zklora_runtime::compile;
use zklora_session::{prove, record};

use super::{
    comparison::{ComparedStage, Figures, Outcome, SystemReport},
    measure::{measured, size},
    run::Run,
};
use crate::Error;

/// Runs all stages. Returns their costs and the path of the exported ONNX file.
pub(super) fn run(run: &mut Run<'_>, rows: &Activations) -> Result<(SystemReport, PathBuf), Error> {
    let mut side = SystemReport::new(concat!("zklora ", env!("CARGO_PKG_VERSION")).into());
    let limit = run.python.timeout.as_secs_f64();
    let mut done = |stage: ComparedStage, figures: Figures| {
        let late = figures.seconds > limit;
        let outcome = if late {
            Outcome::Stopped(format!("took {:.1} s", figures.seconds))
        } else {
            Outcome::Done(figures)
        };
        side.set(stage, outcome);
    };
    let out = run.folder.join("native");
    let onnx = run.folder.join("onnx");
    let srs = srs_file::load(run.options.srs)?;
    let step = |run: &mut Run<'_>, what: &str| (run.progress)(&format!("zklora: {what}"));

    step(run, "export");
    let modules = [run.options.module.to_string()];
    let (index, took) =
        measured(|| Ok(zklora_models::export::export(run.adapter, &modules, &onnx)?))?;
    done(ComparedStage::Export, took);
    done(ComparedStage::Settings, Figures::default());
    step(run, "setup");
    zklora_files::create_folder(&out, Access::Private)?;
    let keys = KeyStore::default();
    let paths = [onnx.clone()];
    let options = compile::Options {
        paths: &paths,
        out: &out,
        seed_file: None,
        calibrate: None,
        k: None,
        registered: false,
    };
    let (compiled, took) = measured(|| Ok(compile::compile(&options, &srs, &keys)?))?;
    done(ComparedStage::Setup, took);
    let artifacts = compiled.artifacts;
    step(run, "witness");
    let ((trace, _), took) = measured(|| Ok(record::record(&artifacts, rows, None, None)?))?;
    done(ComparedStage::Witness, took);
    let trace_path = run.folder.join("native.safetensors");
    trace.write(&trace_path, &artifacts.manifest)?;
    step(run, "prove");
    let (proof, took) = measured(|| {
        trace.with_trace(&artifacts.manifest, |rows| {
            Ok(prove::prove(&artifacts, rows, &srs, &keys)?)
        })
    })?;
    done(ComparedStage::Prove, took);
    step(run, "verify");
    let pin = artifacts.manifest.id();
    let (_, took) = measured(|| {
        // As the user: keys are derived again, and everything is read again.
        let keys = KeyStore::default();
        let public = Public::load(&out, Some(&pin), &srs, &keys)?;
        let trace = TraceReader::trace(&trace_path, &public.manifest)?;
        let (expected, policy) = (OwnSession::default(), SrsPolicy::AllowUntrusted);
        Ok(verify::verify(&public.manifest, &trace, &expected, &proof, &srs, &keys, policy)?)
    })?;
    done(ComparedStage::Verify, took);

    side.set(ComparedStage::Settings, Outcome::InNext);
    side.public_bytes = size(&out.join("public"), &[]);
    side.private_bytes = size(&out.join("private"), &[zklora_artifacts::folder::LEDGER]);
    side.proof_bytes = Some(proof.len() as u64);
    side.logrows = Some(artifacts.manifest.layout().k);
    let module = &artifacts.manifest.modules()[0];
    let scaled = trace.modules[0].delta.chunks_exact(module.d_out).zip(&trace.modules[0].scales);
    let deltas: Vec<f64> = scaled
        .flat_map(|(row, scale)| {
            row.iter().map(move |d| *d as f64 * f64::from(*scale) * module.output_scale())
        })
        .collect();
    side.accuracy = run.accuracy(&deltas, rows);
    let file = index.modules.first().map(|module| onnx.join(&module.file));
    Ok((side, file.unwrap_or(onnx)))
}
