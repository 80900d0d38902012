//! Metrics of a server, in the text format of Prometheus.
//!
//! Counting is an atomic addition. What the ledger knows is added up under its lock when a page is
//! asked for. Labels are names of modules, identities, and words of this folder: never text that a
//! client chose.

mod counted_service;
mod counters;
pub(super) mod http;
mod page;
mod refusal_cause;

pub(super) use counted_service::CountedService;
pub(super) use counters::Metrics;
pub(super) use page::MetricsPage;
pub(super) use refusal_cause::RefusalCause;
