//! What a server counts about itself, in the text format of Prometheus.
//!
//! Counting is an atomic addition. What the ledger knows is looked up when somebody asks, under its
//! lock for as long as it takes to add it up. Labels are names of modules, identities, and words of
//! this file: never text that a stranger chose.

pub(super) mod http;
mod metered;

use std::sync::Arc;

pub(super) use metered::{Metered, MeteredStream};
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};
use tonic::{Code, Status};

use super::{
    limits::Limits,
    prover::{Prover, Workshop},
};
use crate::Error;

/// Identities that have a line of their own: those that got the most rows. The others are one.
const MOST_CLIENTS: usize = 1000;

/// The label of the other identities. No token and no certificate is called so: names of tokens
/// have no spaces.
const OTHERS: &str = "(all others)";

/// Upper bounds of the histogram of proofs, in seconds.
const SECONDS: [f64; 12] =
    [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 10800.0];

/// Why a request, a stream or a batch was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The adapter would have served more rows than its owner allows.
    Budget,
    /// Too many rows or bytes, of a batch, a message or a session.
    Limits,
    /// No identity, or an unknown one.
    Identity,
    /// The session belongs to somebody else, or does not exist.
    NotYours,
    /// What came is not what the protocol says.
    Malformed,
    /// A session of this id was served before.
    ReusedId,
    /// Not now: out of order, ended, of another version or adapter, or another stream took over.
    State,
    /// Nothing came, or nothing was read, in time.
    Slow,
    /// No place, no room, a disk that is full, or the server shuts down: it may work later.
    Unavailable,
    /// The server failed.
    Internal,
}

impl Cause {
    const ALL: [Cause; 10] = [
        Cause::Budget,
        Cause::Limits,
        Cause::Identity,
        Cause::NotYours,
        Cause::Malformed,
        Cause::ReusedId,
        Cause::State,
        Cause::Slow,
        Cause::Unavailable,
        Cause::Internal,
    ];

    fn name(self) -> &'static str {
        match self {
            Cause::Budget => "budget",
            Cause::Limits => "limits",
            Cause::Identity => "identity",
            Cause::NotYours => "not_yours",
            Cause::Malformed => "malformed",
            Cause::ReusedId => "reused_id",
            Cause::State => "state",
            Cause::Slow => "slow",
            Cause::Unavailable => "unavailable",
            Cause::Internal => "internal",
        }
    }

    /// A status that says this to the metrics. Its user sees nothing of it.
    pub fn of(self, mut status: Status) -> Status {
        status.set_source(Arc::new(self));
        status
    }

    /// What a status was sent for: as it says itself, else by its code.
    fn behind(status: &Status) -> Cause {
        if let Some(cause) =
            std::error::Error::source(status).and_then(|source| source.downcast_ref::<Cause>())
        {
            return *cause;
        }
        match status.code() {
            // The library says so of messages that are too long.
            Code::ResourceExhausted | Code::OutOfRange => Cause::Limits,
            Code::Unauthenticated => Cause::Identity,
            Code::PermissionDenied | Code::NotFound => Cause::NotYours,
            Code::InvalidArgument | Code::Unimplemented => Cause::Malformed,
            Code::FailedPrecondition | Code::Aborted | Code::AlreadyExists => Cause::State,
            Code::DeadlineExceeded => Cause::Slow,
            Code::Unavailable | Code::Cancelled => Cause::Unavailable,
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => Cause::Internal,
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Cause {}

/// What is counted while the server runs.
pub(super) struct Metrics {
    registry: Registry,
    pub batches: IntCounter,
    pub received: IntCounter,
    pub sent: IntCounter,
    pub connections: IntGauge,
    refusals: IntCounterVec,
    proof_seconds: Histogram,
    proof_failures: IntCounter,
    /// Sessions that take batches, that are proven, and that cannot be.
    pub open: IntGauge,
    pub proven: IntGauge,
    pub failed: IntGauge,
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> Result<C, Error> {
    let failed =
        |e: prometheus::Error| Error::input(format!("the server's metrics cannot be set up: {e}"));
    let made = made.map_err(failed)?;
    registry.register(Box::new(made.clone())).map_err(failed)?;
    Ok(made)
}

impl Metrics {
    /// All zero.
    pub fn new() -> Result<Arc<Metrics>, Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| registered(&registry, IntCounter::new(name, help));
        // Shown with the other states.
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
                Histogram::with_opts(seconds.buckets(SECONDS.to_vec())),
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
        // A line each from the start: rates need one.
        Cause::ALL
            .iter()
            .for_each(|cause| drop(metrics.refusals.with_label_values(&[cause.name()])));
        Ok(Arc::new(metrics))
    }

    /// Something was refused with this status.
    pub fn refused(&self, status: &Status) {
        self.refusals.with_label_values(&[Cause::behind(status).name()]).inc();
    }

    /// A session was proven.
    pub fn proved(&self, seconds: f64) {
        self.proof_seconds.observe(seconds);
        self.proven.inc();
    }

    /// An attempt to prove a session failed; `for_good`: no other follows before the next start.
    pub fn proof_failed(&self, for_good: bool) {
        self.proof_failures.inc();
        if for_good {
            self.failed.inc();
        }
    }
}

/// What a page is made from.
pub(super) struct Source {
    pub workshop: Arc<Workshop>,
    pub prover: Arc<Prover>,
    pub limits: Limits,
}

impl Source {
    /// The page that Prometheus reads.
    pub fn page(&self) -> prometheus::Result<String> {
        let (artifacts, counts) = (&self.workshop.artifacts, &self.workshop.sessions.counts);
        let (totals, clients) = counts.sums();
        let names: Vec<&str> =
            artifacts.manifest.modules().iter().map(|module| module.name.as_str()).collect();
        let now = Registry::new();
        let family = |name: &str, help: &str, labels: &[&str]| {
            let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
            now.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let set = |family: &IntGaugeVec, labels: &[&str], value: u64| {
            family.with_label_values(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        let served = family(
            "zklora_rows_served",
            "Rows of a module that left, over all sessions and users.",
            &["module"],
        )?;
        names.iter().zip(&totals).for_each(|(name, rows)| set(&served, &[name], *rows));
        if let Some(limit) = self.limits.max_rows {
            let left = family(
                "zklora_rows_left",
                "Rows of a module that --max-rows has left.",
                &["module"],
            )?;
            names
                .iter()
                .zip(&totals)
                .for_each(|(name, rows)| set(&left, &[name], limit.saturating_sub(*rows)));
        }
        let to =
            family("zklora_client_rows", "Rows of all modules that an identity got.", &["client"])?;
        top(clients).iter().for_each(|(client, rows)| set(&to, &[client], *rows));
        let (waiting, proving) = self.prover.length();
        let metrics = &counts.metrics;
        let state = family("zklora_sessions", "Sessions by state.", &["state"])?;
        let gauge = |gauge: &IntGauge| u64::try_from(gauge.get()).unwrap_or(0);
        for (name, value) in [
            ("open", gauge(&metrics.open)),
            ("queued", waiting as u64),
            ("proving", u64::from(proving)),
            ("proven", gauge(&metrics.proven)),
            ("failed", gauge(&metrics.failed)),
        ] {
            set(&state, &[name], value);
        }
        let single = |name: &str, help: &str, value: u64| {
            let gauge = IntGauge::new(name, help)?;
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            now.register(Box::new(gauge))
        };
        single("zklora_proof_queue_length", "Sessions that wait for their proof.", waiting as u64)?;
        let info = family(
            "zklora_adapter_info",
            "The adapter and this program.",
            &["adapter", "version"],
        )?;
        set(&info, &[&artifacts.manifest.id().to_string(), env!("CARGO_PKG_VERSION")], 1);
        if let Some(bytes) = resident_memory() {
            single("process_resident_memory_bytes", "Memory of this process.", bytes)?;
        }
        let mut families = metrics.registry.gather();
        families.extend(now.gather());
        TextEncoder::new().encode_to_string(&families)
    }
}

/// Those with the most rows, and one for all others.
fn top(mut clients: Vec<(String, u64)>) -> Vec<(String, u64)> {
    if clients.len() > MOST_CLIENTS {
        clients.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let others = clients
            .split_off(MOST_CLIENTS)
            .iter()
            .fold(0, |all: u64, (_, rows)| all.saturating_add(*rows));
        clients.push((OTHERS.into(), others));
    }
    clients
}

/// Memory that this process has now (Linux).
fn resident_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_cause_is_what_the_status_says_of_itself_and_else_its_code() {
        let status = Status::resource_exhausted("no");
        assert_eq!(Cause::behind(&status), Cause::Limits);
        assert_eq!(Cause::behind(&Cause::Budget.of(status)), Cause::Budget);
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

    #[test]
    fn many_identities_share_a_line() {
        let many = (0..MOST_CLIENTS as u64 + 50).map(|i| (format!("client {i}"), i)).collect();
        let shown = top(many);
        assert_eq!(shown.len(), MOST_CLIENTS + 1);
        assert_eq!(shown.last().unwrap(), &(OTHERS.to_string(), (0..50).sum()));
        assert_eq!(top(vec![("a".into(), 1)]), [("a".into(), 1)]);
    }

    #[test]
    fn hostile_names_stay_within_their_labels() {
        let registry = Registry::new();
        let family = IntGaugeVec::new(Opts::new("rows", "Rows."), &["module"]).unwrap();
        registry.register(Box::new(family.clone())).unwrap();
        family.with_label_values(&["a\"} 1\nforged{x=\"\\"]).set(7);
        let page = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert_eq!(
            page,
            "# HELP rows Rows.\n# TYPE rows gauge\nrows{module=\"a\\\"} 1\\nforged{x=\\\"\\\\\"} 7\n"
        );
    }
}
