//! Verifies the proof of a session, as a service would: `cargo run --release -p zklora --example
//! verify -- ADAPTER_ID SESSION_ID PUBLIC TRACE PROOF`.
//!
//! Without arguments it verifies the small session in `examples/session`.
#![allow(clippy::print_stdout)]

use std::path::Path;

use zklora::{Error, Verdict, Verifier};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let verdict = match &arguments[..] {
        [] => verify_example(),
        [pin, session_id, public, trace, proof] => {
            verify(pin, session_id, public.as_ref(), trace.as_ref(), proof.as_ref())
        }
        _ => {
            eprintln!("usage: verify ADAPTER_ID SESSION_ID PUBLIC TRACE PROOF");
            std::process::exit(2);
        }
    };
    match verdict {
        Ok(verdict) => {
            println!("accepted: {} rows of adapter {}", verdict.total_rows(), verdict.adapter);
            println!("trusted ceremony: {}", verdict.ceremony);
        }
        Err(error) => {
            eprintln!("{}: {error}", if error.is_refusal() { "rejected" } else { "unusable" });
            std::process::exit(if error.is_refusal() { 1 } else { 2 });
        }
    }
}

fn verify(
    pin: &str,
    session_id: &str,
    public: &Path,
    trace: &Path,
    proof: &Path,
) -> Result<Verdict, Error> {
    let (pin, session_id) = (pin.parse()?, session_id.parse()?);
    Verifier::ethereum()?.verify(&pin, &session_id, public, trace, proof)
}

fn verify_example() -> Result<Verdict, Error> {
    let session = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/session");
    verify(
        "514cb3aaeb990f228033d3619571550e59cc0da546f6db3793c9ecfe4caae3e7",
        "ce4a8b2582d104f3d37c588b050dbfdfb848f9bc9e3864c1f3dd8bd4819577cc",
        &session.join("public"),
        &session.join("trace.safetensors"),
        &session.join("session.pf"),
    )
}
