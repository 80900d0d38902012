//! The whole way of an adapter, with both parties in one process: `cargo run --release -p zklora
//! --features compile --example compile_and_prove -- OUT`.
//!
//! Exports and compiles the small PEFT adapter in `examples/adapter`, computes and proves the
//! deltas of the activations in `examples/session`, verifies them, and audits the delivered
//! adapter. Everything is written to the folder OUT.
#![allow(clippy::print_stdout)]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use zklora::{Adapter, Error, SessionId, Verifier};

fn main() -> ExitCode {
    let Some(out) = std::env::args().nth(1) else {
        eprintln!("usage: compile_and_prove OUT");
        return ExitCode::from(2);
    };
    match run(Path::new(&out)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(if error.is_refusal() { 1 } else { 2 })
        }
    }
}

/// Whether the audit found the committed adapter.
fn run(out: &Path) -> Result<bool, Error> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let (peft, inputs) = (examples.join("adapter"), examples.join("session/inputs.safetensors"));
    let (onnx, artifacts) = (out.join("onnx"), out.join("artifacts"));
    let (trace, proof) = (out.join("trace.safetensors"), out.join("session.pf"));

    // The contributor commits to the adapter, and users pin its id.
    Adapter::export(&peft, None, &onnx)?;
    let adapter = Adapter::compile(&[PathBuf::from(&onnx)], &artifacts)?;
    let pin = adapter.id();
    println!("adapter {pin}");

    // The user draws the session id. The contributor computes the deltas, and proves them.
    let session_id = SessionId::random()?;
    let rows = adapter.record(&session_id, &inputs, &trace)?;
    adapter.prove(&trace, &proof)?;
    println!("{rows} rows are proven");

    // The user verifies. The contributor recorded the trace, so the inputs are compared, too.
    let (verifier, public) = (Verifier::ethereum()?, adapter.public_folder());
    let verdict = verifier.verify_inputs(&pin, &session_id, &inputs, &public, &trace, &proof)?;
    println!("accepted: {} rows, trusting the {}", verdict.total_rows(), verdict.ceremony);

    // After payment, the user checks that the delivered adapter is the committed one.
    let opening = artifacts.join("private/opening");
    let audit = verifier.audit(&pin, &public, &peft, None, &opening)?;
    println!("{} modules compared, {} differ", audit.modules, audit.differences.len());
    if !audit.base_model_compared {
        println!("the base model was not compared: no fingerprint of one was committed to");
    }
    Ok(audit.is_committed())
}
