//! Attacks on the verifier, each with the check that stops it. Test code, which works on the
//! crate's internals.
//!
//! [`cheat`] is a prover that lies at chosen steps. [`variants`] are weakened protocols that such a
//! prover defeats. [`judge`] has the verifiers of the protocol and of its variants.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accumulator;
mod adapters;
mod changing;
mod cheat;
mod columns;
mod encodings;
mod fiat_shamir;
mod forgeries;
mod hiding;
mod honest;
mod hostile;
mod judge;
mod known_answer;
mod manifests;
mod mask_use;
mod masks;
mod mixtures;
mod proof_bytes;
mod properties;
mod provers;
mod shorter;
mod traces;
mod variants;
