//! Attacks on the verifier, each with the check that stops it. Test code: it works on the crate's
//! internals.
//!
//! [`cheat`] is a prover that lies where it is told to, [`variants`] are weakened protocols that
//! such a prover defeats, [`judge`] are the verifiers of both.
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
mod traces;
mod variants;
