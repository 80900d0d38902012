//! The native module of the Python package `zklora`: a thin layer over the library crates.
//!
//! ```text
//! adapters: export, compile → Artifacts, Manifest ─ proofs: record → Trace, prove, verify, audit
//! server: a contributor's gRPC server
//! evaluation: a buyer's side of an evaluation: offer, units, answer, settlement
//! session: the user's side: rows in, deltas out, a verified proof at the end
//! ```
//!
//! Heavy work runs in its own thread without the interpreter's lock (`worker`). Such a thread never
//! calls Python: its progress and log records wait in a queue until a Python thread takes them.

mod activation_commitment;
mod adapters;
mod arrays;
mod error;
mod evaluation;
mod given_activations;
mod globals;
mod logging;
mod process;
mod proofs;
mod server;
mod session;
mod trace;
mod worker;

use pyo3::prelude::*;

/// The native module; `zklora/_native.pyi` has its types.
#[pymodule]
mod _native {
    use super::*;
    #[pymodule_export]
    use crate::{
        activation_commitment::{commit_activations, verify_commitment},
        adapters::{Artifacts, Manifest, Module, base_fingerprint, compile, export_adapter, shown},
        evaluation::{evaluate, evaluation_report, fetch_offer, settle},
        logging::drain_log,
        process::{check_process, not_inherited},
        proofs::{audit, check_proof_format, prove, read_proof, record, verify, write_proof},
        server::Server,
        session::{Pending, Session},
        trace::{Trace, log_info},
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::logging::install();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
