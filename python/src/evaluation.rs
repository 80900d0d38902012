//! A buyer's side of an evaluation. Results are JSON text, which `zklora.evaluation` reads.

use std::{path::PathBuf, time::Duration};

use pyo3::prelude::*;
use serde::Serialize;
use serde_json::json;
use zklora_evaluation::{metric::Metric, offer::SignedOffer};
use zklora_files::Access;
use zklora_proof::verifier::SrsPolicy;
use zklora_runtime::{
    evaluate::{
        self as evaluating, BuyOptions, ClaimComparison, Folder, Memory, Report, SampleOptions,
        SentUnits, SettleOptions, Source, Step, TermsOptions,
    },
    integer::BaseModel,
};
use zklora_session::client::{ClientTls, ContributorOptions, Evaluator};

use crate::{error::Failure, globals, worker};

/// How a contributor is reached: URL, token file, authority, certificate and key, plaintext
/// allowed, timeout and patience in seconds.
type Reached =
    (String, Option<PathBuf>, Option<PathBuf>, Option<(PathBuf, PathBuf)>, bool, (f64, f64));

/// The buyer's model: base model, integer model, tokenizer, weights, whether another base model is
/// accepted, and layers that are not found by name.
type Own = (PathBuf, PathBuf, Option<PathBuf>, Option<PathBuf>, bool, Vec<(String, String)>);

fn seconds(value: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| Failure::Input(format!("{value}: expected seconds")))
}

fn contributor(reached: Reached) -> Result<ContributorOptions, Failure> {
    let (url, token_file, ca, identity, insecure, (timeout, patience)) = reached;
    Ok(ContributorOptions {
        url: url.trim_end_matches('/').to_string(),
        pin: None,
        token_file,
        tls: ClientTls { ca, identity },
        insecure,
        call_timeout: seconds(timeout)?,
        patience: seconds(patience)?,
        proof_timeout: Duration::ZERO,
        moved: false,
    })
}

fn terms(own: Own) -> TermsOptions {
    let (base, model, tokenizer, base_weights, allow_other_base, maps) = own;
    let base = BaseModel { base, base_weights, allow_other_base, maps, digest: None };
    TermsOptions { model, base, tokenizer, policy: SrsPolicy::TrustedOnly }
}

fn text(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::Input(error.to_string()))
}

/// Gets the offer that a contributor makes now, and writes it; returns it with its digest.
#[pyfunction]
pub fn fetch_offer(
    py: Python<'_>,
    reached: Reached,
    out: PathBuf,
    after: Option<PathBuf>,
    sent: Option<PathBuf>,
) -> Result<String, Failure> {
    let options = contributor(reached)?;
    worker::run(py, None, move |_| {
        let offered = Evaluator::new(&options, &*globals::network()?)?.offer()?;
        let signed = SignedOffer::parse(&offered.offer)?;
        evaluating::require_same_contributor(&signed, after.as_deref())?;
        if let Some(path) = Memory::usual(sent).sent {
            SentUnits::new(&path).saw(&signed)?;
        }
        zklora_files::write(&out, &offered.offer, Access::Public)?;
        let digest = signed.digest;
        text(&json!({ "digest": digest, "offer": signed.offer, "bits_left": offered.bits_left }))
    })
}

/// What is asked of a sample.
fn sample(units: u32, metric: Option<String>) -> Result<SampleOptions, Failure> {
    let named = |name: String| {
        let found = Metric::PROVABLE.into_iter().find(|metric| metric.name() == name);
        found.ok_or_else(|| {
            let names = Metric::PROVABLE.map(Metric::name).join(", ");
            Failure::Input(format!("prove_metric: name one of {names}"))
        })
    };
    Ok(SampleOptions { units, metric: metric.map(named).transpose()? })
}

/// Evaluates units, given as lines of JSON.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn evaluate(
    py: Python<'_>,
    units: String,
    reached: Reached,
    own: Own,
    offer: PathBuf,
    out: PathBuf,
    asked: (bool, u32, bool, Option<(u32, Option<String>)>),
    kept: (Vec<PathBuf>, Option<PathBuf>),
    progress: Option<Py<PyAny>>,
) -> Result<String, Failure> {
    let ((per_unit, list_unscored, check_base, prove), (claims, sent)) = (asked, kept);
    let prove = prove.map(|(units, metric)| sample(units, metric)).transpose()?;
    let connection = contributor(reached)?;
    let source = Source::Lines(units);
    let terms = terms(own);
    let options = BuyOptions {
        offer,
        terms,
        source,
        per_unit,
        list_unscored,
        check_base,
        prove,
        claims,
        memory: Memory::usual(sent),
        out,
    };
    worker::run(py, progress.as_ref(), move |reporter| {
        let (srs, network) = (globals::srs()?, globals::network()?);
        let mut contributor = Evaluator::new(&connection, &network)?;
        let bought = evaluating::buy(&mut contributor, &srs, &options, &mut |step| match step {
            Step::Local(what) => reporter.step(what, 0, 0),
            Step::Price { bits, left } => {
                reporter.step(format!("the request costs {bits} of {left} bits"), 0, 0);
            }
            Step::Sending => reporter.step("send the units", 0, 0),
            Step::Waiting(ahead) => {
                reporter.step(format!("{ahead} requests before this one"), 0, 0)
            }
            Step::Scoring(scored, units) => {
                let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
                reporter.step("score", number(scored), number(units));
            }
            Step::Proving(proven, parts) => {
                let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
                reporter.step("prove", number(proven), number(parts));
            }
            Step::Retrying => reporter.step("the contributor is not reachable", 0, 0),
        })?;
        let contradicted: Vec<&ClaimComparison> = bought
            .claims
            .iter()
            .map(|(_, comparison)| comparison)
            .filter(|comparison| matches!(comparison, ClaimComparison::Contradicts(_)))
            .collect();
        // With its grade: an answer whose proof did not come is not only claimed.
        let report = bought.report(&Folder::new(&options.out, &options.memory))?;
        text(&json!({
            "report": report,
            "per_unit": bought.per_unit(),
            "score_bits": bought.terms.offer.offer.score_bits,
            "base_checked": bought.base_checked,
            "proven": bought.proven,
            "registered": bought.terms.registration.is_registered(),
            "sent_before": bought.earlier,
            "samples_before": bought.earlier_samples,
            "contradicted": !contradicted.is_empty(),
        }))
    })
}

/// Settles a folder, or judges evidence.
#[pyfunction]
pub fn settle(
    py: Python<'_>,
    what: (Option<PathBuf>, Option<PathBuf>),
    own: Own,
    delivered: (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>),
    signer: Option<String>,
    progress: Option<Py<PyAny>>,
) -> Result<String, Failure> {
    let ((folder, evidence), (delivery, key, adapter_out)) = (what, delivered);
    let signer = signer.map(|key| key.parse().map_err(Failure::Input)).transpose()?;
    let (terms, memory) = (terms(own), Memory::usual(None));
    let options = SettleOptions { terms, delivery, key, adapter_out, signer, memory };
    worker::run(py, progress.as_ref(), move |reporter| {
        let srs = globals::srs()?;
        let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let mut told = |scored, units| reporter.step("score", number(scored), number(units));
        let found = match (&folder, &evidence) {
            (Some(folder), None) => evaluating::settle(folder, &srs, &options, &mut told)?,
            (None, Some(file)) => evaluating::settle_evidence(file, &srs, &options, &mut told)?,
            _ => return Err(Failure::Input("name a folder, or evidence".into())),
        };
        text(&found)
    })
}

/// The report of a folder.
#[pyfunction]
pub fn evaluation_report(py: Python<'_>, folder: PathBuf) -> Result<String, Failure> {
    worker::run(py, None, move |_| text(&Report::of(&Folder::new(&folder, &Memory::usual(None)))?))
}
