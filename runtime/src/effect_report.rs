//! The content of `report.json`: the effect of adapters on a base model in one run, and its cost.
//!
//! `zklora infer` writes it, and `zklora report` shows it. This module must not depend on how it is
//! shown.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zklora_files::Access;

use crate::Error;

/// The `format` field of every report.
pub const FORMAT: &str = "zklora-report";
/// The `version` field of every report that this build reads and writes.
pub const VERSION: u32 = 1;
const MAX_REPORT: u64 = 1 << 28;

/// One run of `zklora infer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EffectReport {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// File name of the base model.
    pub base_model: String,
    /// `add-delta` or `replace`.
    pub mode: String,
    /// Losses on the text, if they were requested.
    pub loss: Option<Losses>,
    /// The generated text, if any.
    pub generated: Option<Generated>,
    /// One entry per contributor.
    pub contributors: Vec<ContributorReport>,
    /// One entry per injection point that was called, in the order of the model.
    pub points: Vec<PointReport>,
    /// Wall time of the adapted forward passes, in seconds.
    pub forward_seconds: f64,
    /// Forward passes with deltas.
    pub forward_passes: usize,
}

/// Mean negative log-likelihood of a text, in nats per token; perplexity is its exponential.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Losses {
    /// Of the base model alone.
    pub base: f64,
    /// With the deltas.
    pub adapted: f64,
    /// exp(base).
    pub base_perplexity: f64,
    /// exp(adapted).
    pub adapted_perplexity: f64,
    /// Tokens that were predicted.
    pub tokens: usize,
    /// Per window of text, in order: the same two losses, in nats per token.
    pub windows: Vec<WindowLoss>,
}

/// Losses of one window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowLoss {
    /// Tokens that were predicted in it.
    pub tokens: usize,
    /// Of the base model alone.
    pub base: f64,
    /// With the deltas.
    pub adapted: f64,
}

/// Text that the adapted model generated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generated {
    /// The prompt.
    pub prompt: String,
    /// The continuation by the adapted model.
    pub adapted: String,
    /// The continuation by the base model alone, sampled in the same way.
    pub base: Option<String>,
    /// Tokens of `adapted`.
    pub tokens: usize,
}

/// One contributor's session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContributorReport {
    /// The URL.
    pub url: String,
    /// Adapter id, hex.
    pub adapter_id: String,
    /// Whether the user pinned it beforehand.
    pub pinned: bool,
    /// Session id, hex.
    pub session_id: String,
    /// Modules of the adapter, and how many of them were called.
    pub modules: usize,
    /// See `modules`.
    pub modules_called: usize,
    /// Rows that were sent and answered.
    pub rows: usize,
    /// Rows that were answered from the user's record, because they were equal to earlier ones.
    pub rows_reused: usize,
    /// Calls over the network.
    pub calls: usize,
    /// Reconnections.
    pub reconnections: usize,
    /// Bytes of activations sent and of deltas received.
    pub bytes_sent: u64,
    /// See `bytes_sent`.
    pub bytes_received: u64,
    /// Latency of a call.
    pub latency: Option<Latency>,
    /// Seconds from the request to end the session to the arrival of the proof.
    pub proof_seconds: Option<f64>,
    /// Seconds of the verification.
    pub verify_seconds: Option<f64>,
    /// Bytes of the proof.
    pub proof_bytes: Option<usize>,
    /// `accepted`, `rejected`, or `failed` (no proof).
    pub verdict: Verdict,
    /// Why the session was not accepted, or why it ended early.
    pub why: Option<String>,
    /// Tensors of layers that were trained whole and that the adapter leaves out, as its manifest
    /// says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The proof was verified against the user's record.
    Accepted,
    /// There is a proof, but it does not verify against the user's record.
    Rejected,
    /// There is no proof.
    Failed,
}

/// Percentiles of the time of a call, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Latency {
    /// Percentiles (nearest rank) of times in seconds. `None` without times.
    pub fn of(mut seconds: Vec<f64>) -> Option<Latency> {
        seconds.sort_by(f64::total_cmp);
        let max = *seconds.last()?;
        let rank = |p: f64| {
            seconds[((p * seconds.len() as f64).ceil() as usize).clamp(1, seconds.len()) - 1] * 1e3
        };
        Some(Latency { p50: rank(0.5), p90: rank(0.9), p99: rank(0.99), max: max * 1e3 })
    }
}

/// The effect of the deltas at one injection point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointReport {
    /// Path of the module in the base model.
    pub module: String,
    /// Rows that went through.
    pub rows: usize,
    /// Root mean square of the base layer's output (of its input, where the delta is added to the
    /// input).
    pub base_rms: f64,
    /// Root mean square of the deltas, all contributors together.
    pub delta_rms: f64,
    /// ‖delta‖ / ‖base‖. `None` if the base is zero.
    pub relative: Option<f64>,
    /// Indices of the contributors that have this module.
    pub contributors: Vec<usize>,
}

impl EffectReport {
    /// Writes the report as JSON.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|e| Error::file(path, e))?;
        bytes.push(b'\n');
        // Private, because the report has the user's text.
        Ok(zklora_files::write(path, &bytes, Access::Private)?)
    }

    /// Reads a report.
    pub fn read(path: &Path) -> Result<EffectReport, Error> {
        let report: EffectReport =
            serde_json::from_slice(&zklora_files::read(path, MAX_REPORT)?)
                .map_err(|e| Error::file(path, format!("not a report of `zklora infer`: {e}")))?;
        if report.format != FORMAT || report.version != VERSION {
            return Err(Error::file(
                path,
                format!(
                    "format `{}` version {}: this build reads `{FORMAT}` version {VERSION}",
                    report.format, report.version
                ),
            ));
        }
        Ok(report)
    }
}
