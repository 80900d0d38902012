//! Counters and gauges that the server changes while it runs.

use std::sync::Arc;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
};
use tonic::Status;

use super::refusal_cause::RefusalCause;
use crate::Error;

/// Upper bounds of the histogram of proofs, in seconds.
const PROOF_SECONDS: [f64; 12] =
    [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 10800.0];

/// Counters and gauges.
pub(in crate::server) struct Metrics {
    pub registry: Registry,
    pub batches: IntCounter,
    pub received: IntCounter,
    pub sent: IntCounter,
    pub connections: IntGauge,
    refusals: IntCounterVec,
    proof_seconds: Histogram,
    proof_failures: IntCounter,
    /// Sessions that are open, proven, and failed.
    pub open: IntGauge,
    pub proven: IntGauge,
    pub failed: IntGauge,
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> Result<C, Error> {
    let failed =
        |e: prometheus::Error| Error::Internal(format!("the metrics cannot be registered: {e}"));
    let made = made.map_err(failed)?;
    registry.register(Box::new(made.clone())).map_err(failed)?;
    Ok(made)
}

impl Metrics {
    /// All zero.
    pub fn new() -> Result<Arc<Metrics>, Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| registered(&registry, IntCounter::new(name, help));
        // The page shows them with the other states.
        let apart = Registry::new();
        let state = |name: &str| registered(&apart, IntGauge::new(name, name));
        let refusals = IntCounterVec::new(
            Opts::new(
                "zklora_refusals_total",
                "Requests, streams and batches that were refused, by cause.",
            ),
            &["cause"],
        );
        let seconds = HistogramOpts::new(
            "zklora_proof_seconds",
            "Seconds that a proof took, without its time in the queue.",
        );
        let metrics = Metrics {
            batches: counter(
                "zklora_batches_total",
                "Batches that were answered, those sent again included.",
            )?,
            received: counter(
                "zklora_received_bytes_total",
                "Bytes that came over connections, as they are on the wire.",
            )?,
            sent: counter(
                "zklora_sent_bytes_total",
                "Bytes that left over connections, as they are on the wire.",
            )?,
            connections: registered(
                &registry,
                IntGauge::new("zklora_connections", "Open connections."),
            )?,
            refusals: registered(&registry, refusals)?,
            proof_seconds: registered(
                &registry,
                Histogram::with_opts(seconds.buckets(PROOF_SECONDS.to_vec())),
            )?,
            proof_failures: counter(
                "zklora_proof_failures_total",
                "Attempts to prove a session that failed.",
            )?,
            open: state("open")?,
            proven: state("proven")?,
            failed: state("failed")?,
            registry,
        };
        // Each has a line from the start, because rates need one.
        RefusalCause::ALL
            .iter()
            .for_each(|cause| drop(metrics.refusals.with_label_values(&[cause.name()])));
        Ok(Arc::new(metrics))
    }

    /// Counts a refusal.
    pub fn refused(&self, status: &Status) {
        self.refusals.with_label_values(&[RefusalCause::of_status(status).name()]).inc();
    }

    /// Counts a session that was proven.
    pub fn proved(&self, seconds: f64) {
        self.proof_seconds.observe(seconds);
        self.proven.inc();
    }

    /// Counts a failed attempt to prove a session; `is_final`: the next one follows after a
    /// restart.
    pub fn proof_failed(&self, is_final: bool) {
        self.proof_failures.inc();
        if is_final {
            self.failed.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn a_cause_is_the_mark_of_a_status_or_follows_from_its_code() {
        let status = Status::resource_exhausted("no");
        assert_eq!(RefusalCause::of_status(&status), RefusalCause::Limits);
        assert_eq!(
            RefusalCause::of_status(&RefusalCause::Budget.mark(status)),
            RefusalCause::Budget
        );
        let metrics = Metrics::new().unwrap();
        metrics.refused(&Status::unauthenticated("\"}\nzklora_forged 1"));
        let page = TextEncoder::new().encode_to_string(&metrics.registry.gather()).unwrap();
        assert!(
            page.contains("zklora_refusals_total{cause=\"identity\"} 1\n")
                && !page.contains("forged"),
            "{page}"
        );
        assert!(page.contains("zklora_refusals_total{cause=\"budget\"} 0\n"), "{page}");
    }
}
