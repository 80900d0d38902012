//! Honest and cheating provers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adapters;
mod answers;
pub mod events;
mod forgeries;
mod hiding;
mod honest;
mod lookups;
mod messages;
mod plans;
mod proof_bytes;
mod registrations;
pub mod rules;
mod scores;
mod session;
mod squares;
mod statements;
mod transcripts;
mod witness;
