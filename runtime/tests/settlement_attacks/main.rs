//! Evaluate, deliver, settle, with a small model: what a contributor gets away with (nothing that
//! the page does not name), and what a buyer can blame on an honest one (nothing).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bad_deliveries;
mod claims;
mod false_answers;
mod framing;
mod honest;
mod parties;
mod proofs;
mod sent_units;
