//! Evaluations: the calls of `proto/evaluation.proto`, and the thread that scores.
//!
//! ```text
//! Evaluate → service: known? → units → Answering::accept (charge, store) → jobs
//! jobs (one thread, one request of each client in turn) → Answering::answer → answer.json
//! ```

mod jobs;
mod service;

pub(super) use jobs::{Jobs, StopEvaluations};
pub(super) use service::EvaluationService;
