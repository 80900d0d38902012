//! Zero-knowledge proofs of what a private LoRA adapter computed.
//!
//! A **contributor** has a private adapter and publishes a manifest with commitments to its
//! weights. The **adapter id** is the manifest's hash. A **user** has the base model and records
//! the adapter id before a session. In the session the user sends activations and the contributor
//! answers with the adapter's deltas; both keep the **trace**: every row with its delta. At the end
//! the contributor proves, without showing the weights, that every delta of the trace came from the
//! adapter with that id.
//!
//! # Verifying
//!
//! The user needs the adapter id, pinned before the session; the session id that the user drew; the
//! folder with the public part of the artifacts; the trace; and the proof.
//!
//! ```
//! use std::path::Path;
//!
//! let session = Path::new("examples/session");
//! # let session = &Path::new(env!("CARGO_MANIFEST_DIR")).join(session);
//! let pin = "514cb3aaeb990f228033d3619571550e59cc0da546f6db3793c9ecfe4caae3e7".parse()?;
//! let session_id = "ce4a8b2582d104f3d37c588b050dbfdfb848f9bc9e3864c1f3dd8bd4819577cc".parse()?;
//!
//! let verdict = zklora::Verifier::ethereum()?.verify(
//!     &pin,
//!     &session_id,
//!     &session.join("public"),
//!     &session.join("trace.safetensors"),
//!     &session.join("session.pf"),
//! )?;
//! println!("{} rows of {} are proven", verdict.total_rows(), verdict.adapter);
//! # Ok::<(), zklora::Error>(())
//! ```
//!
//! What the verdict means, and what it does not, is in `docs/security.md` of the repository. In
//! short: every delta of the trace is what the pinned adapter computes on that row. The proof hides
//! the weights; the deltas do not, so rows are for users who may have what the adapter does.
//!
//! # Proving
//!
//! | feature | what it adds | what it builds |
//! |---|---|---|
//! | none | `Verifier` | no ONNX, no network |
//! | `prove` | `Adapter::open`, `record` and `prove` | no ONNX, no network |
//! | `compile` | `Adapter::export` and `compile`, `Verifier::audit` | tract |
//!
//! `examples/verify.rs` and `examples/compile_and_prove.rs` are whole programs. Serving an adapter
//! over a network is the `zklora` command's: its package is `zklora-cli`.

#[cfg(feature = "prove")]
mod adapter;
#[cfg(feature = "compile")]
mod audit;
mod error;
mod ids;
mod verifier;

#[cfg(feature = "prove")]
pub use adapter::Adapter;
#[cfg(feature = "compile")]
pub use audit::{Audit, Difference};
pub use error::Error;
pub use ids::{AdapterId, SessionId};
pub use verifier::{Ceremony, Verdict, Verifier};
