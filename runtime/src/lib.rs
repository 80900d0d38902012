//! The work behind the commands of `zklora`, from PEFT folder to verdict. Nothing here prints.
//!
//! ```text
//! PEFT folder ─ pipeline ─ compile → artifacts ─ record → trace ─ prove → proof ─ verify → verdict
//! text ─ infer: a language model with the deltas of contributors → effect_report → report_page
//! delivered adapter + opening ─ audit → which modules differ
//! base model + artifacts ─ integer: scores as exact integers
//! artifacts + integer ─ evaluate: offers, answers, deliveries, settlements → evaluation_page
//! artifacts ─ registration: every weight is an integer of 16 bits
//! artifacts + text ─ leak → how much rows leak
//! ```

pub mod audit;
pub mod compile;
pub mod effect_report;
pub mod error;
pub mod evaluate;
pub mod evaluation_page;
pub mod html;
pub mod infer;
pub mod integer;
pub mod leak;
pub mod numbers;
pub mod pipeline;
pub mod precision;
pub mod process;
pub mod registration;
pub mod report_page;
pub mod svg;

pub use error::Error;
