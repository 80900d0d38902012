//! Tests of the `zklora` binary as a user runs it: output, files, exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod activation_commitment;
mod adapters;
mod artifacts;
mod audit;
mod bench;
mod ci;
mod documentation;
mod evaluation;
mod ezkl;
mod hostile_text;
mod inference;
mod integer;
mod killed;
mod leak;
mod operator;
mod pipeline;
mod refusals;
mod registration;
mod report;
mod soak;
mod tamper;
mod zklora;
