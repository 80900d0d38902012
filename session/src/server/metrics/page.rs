//! The page of metrics: the counters, and what the ledger and the queue say now.

use std::sync::Arc;

use prometheus::{IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::server::{
    evaluation::Jobs, limits::Limits, proof_queue::ProofQueue, state::ServerState,
};

/// Clients with their own line: those that got the most rows. The others share one line.
const MAX_CLIENTS: usize = 1000;

/// The label of the other clients. It contains a space, which no name of a token or certificate
/// does.
const OTHERS: &str = "(all others)";

/// The page, rendered for each request.
pub(in crate::server) struct MetricsPage {
    pub state: Arc<ServerState>,
    pub proof_queue: Arc<ProofQueue>,
    pub limits: Limits,
    pub evaluations: Option<Arc<Jobs>>,
}

impl MetricsPage {
    /// The page in the text format of Prometheus.
    pub fn render(&self) -> prometheus::Result<String> {
        let (adapter, row_counter) = (&self.state.adapter, &self.state.sessions.row_counter);
        let (totals, clients) = row_counter.totals();
        let names: Vec<&str> =
            adapter.manifest.modules().iter().map(|module| module.name.as_str()).collect();
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
        if let Some(limit) = self.limits.rows.limit() {
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
        let (waiting, proving) = self.proof_queue.length();
        let metrics = &row_counter.metrics;
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
        if let Some(jobs) = &self.evaluations {
            let budget = jobs.answering.offer.offer.budget;
            single("zklora_bits_granted", "Bits that answers may tell.", budget.bits)?;
            // A ledger that cannot be read has no number here: its reason is in the log.
            if let Ok(spent) = jobs.answering.spent() {
                single("zklora_bits_spent", "Bits that answers told.", spent.bits())?;
                let to = family("zklora_client_bits", "Bits told to an identity.", &["client"])?;
                top(spent.clients()).iter().for_each(|(client, bits)| set(&to, &[client], *bits));
            }
            let (waiting, scoring) = jobs.length();
            let all = waiting as u64 + u64::from(scoring);
            single("zklora_evaluations", "Requests that wait for their answer.", all)?;
        }
        let info = family(
            "zklora_adapter_info",
            "The adapter and this program.",
            &["adapter", "version"],
        )?;
        set(&info, &[&adapter.manifest.id().to_string(), env!("CARGO_PKG_VERSION")], 1);
        if let Some(bytes) = resident_memory() {
            single("process_resident_memory_bytes", "Memory of this process.", bytes)?;
        }
        let mut families = metrics.registry.gather();
        families.extend(now.gather());
        TextEncoder::new().encode_to_string(&families)
    }
}

/// The clients with the most, and one entry for all others.
fn top(mut clients: Vec<(String, u64)>) -> Vec<(String, u64)> {
    if clients.len() > MAX_CLIENTS {
        clients.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let others = clients
            .split_off(MAX_CLIENTS)
            .iter()
            .fold(0, |all: u64, (_, rows)| all.saturating_add(*rows));
        clients.push((OTHERS.into(), others));
    }
    clients
}

/// Resident memory of this process (Linux).
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
    fn clients_beyond_the_limit_share_a_line() {
        let many = (0..MAX_CLIENTS as u64 + 50).map(|i| (format!("client {i}"), i)).collect();
        let shown = top(many);
        assert_eq!(shown.len(), MAX_CLIENTS + 1);
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
