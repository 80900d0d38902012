//! One run of `zklora infer`: connect, load, measure, generate, prove, report.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use zklora_files::Access;
use zklora_models::language_model::{LanguageModel, Sampling, Tokenizer, generate, loss};
use zklora_proof::{keys::KeyStore, srs::Srs, verifier::SrsPolicy};
use zklora_session::client::{
    ContributorOptions, Finished, Network, Progress, Remote, UserSession,
};

use super::{
    base_model::{self, tokenizer},
    delta_injector::{DeltaInjector, Mode},
    injection_points::{Point, points},
};
use crate::{
    Error,
    effect_report::{
        ContributorReport, EffectReport, FORMAT, Generated, Latency, Losses, PointReport, VERSION,
        Verdict, WindowLoss,
    },
};

/// Name of the report in the folder of a run.
pub const REPORT: &str = "report.json";

/// Text to continue.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The prompt.
    pub prompt: String,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Whether the base model alone continues the prompt, too, for comparison.
    pub compare: bool,
}

/// What to run.
pub struct InferOptions {
    /// The base model, ONNX.
    pub base: PathBuf,
    /// Its tokenizer. `None` is `tokenizer.json` beside the base model.
    pub tokenizer: Option<PathBuf>,
    /// The folder of its weights, to compare fingerprints.
    pub base_weights: Option<PathBuf>,
    /// Accept another base model than the adapters are for.
    pub allow_other_base: bool,
    /// The contributors.
    pub contributors: Vec<ContributorOptions>,
    /// How deltas change the base layer's output.
    pub mode: Mode,
    /// Layers that are not found by name: module and ONNX tensor.
    pub maps: Vec<(String, String)>,
    /// Text whose loss is measured.
    pub text: Option<String>,
    /// Tokens per window.
    pub context: usize,
    /// Text that is generated.
    pub generation: Option<Generation>,
    /// The folder of the run.
    pub out: PathBuf,
    /// Accept an SRS file of a ceremony that this program does not know.
    pub policy: SrsPolicy,
}

/// Progress of a run, for the user.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A step began.
    Step(String),
    /// A warning.
    Warning(String),
    /// Progress of a proof, by URL.
    Proof(String, Progress),
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The report, as it is in the folder.
    pub report: EffectReport,
    /// Why the run ended early, if it did. The sessions are proven anyway, up to that point.
    pub interrupted: Option<Error>,
}

/// Runs everything.
///
/// # Errors
/// Errors before the sessions begin. Later errors are in the report, by contributor.
pub fn run(
    options: &InferOptions,
    srs: &Srs,
    keys: &KeyStore,
    progress: &mut dyn FnMut(Event),
) -> Result<Outcome, Error> {
    zklora_files::create_folder(&options.out, Access::Private)?;
    let network = Arc::new(Network::start()?);
    let mut remotes = Vec::new();
    for contributor in &options.contributors {
        progress(Event::Step(format!("connect to {}", contributor.url)));
        let remote = Remote::connect(contributor.clone(), &network)?;
        if contributor.pin.is_none() {
            progress(Event::Warning(format!(
                "{}: THE ADAPTER IS NOT PINNED. It serves {}. Without a pin from before the session, nothing shows that the adapter was \
                 fixed beforehand: write {}={} to pin it.",
                contributor.url,
                remote.manifest.id(),
                contributor.url,
                remote.manifest.id()
            )));
        }
        remotes.push(remote);
    }
    let points = points_of(remotes.iter(), &options.maps)?;
    let injections: Vec<_> = points.iter().map(|point| point.injection.clone()).collect();
    // Nothing is sent before the first forward pass, except a batch that an earlier run left
    // unanswered.
    let mut sessions = Vec::new();
    for (index, remote) in remotes.into_iter().enumerate() {
        let session =
            UserSession::open(remote, &options.out.join(format!("contributor-{}", index + 1)))?;
        if session.resumed > 0 {
            progress(Event::Step(format!(
                "{}: resuming a session of {} rows",
                session.url(),
                session.resumed
            )));
        }
        sessions.push(session);
    }
    let injector = Arc::new(DeltaInjector::new(options.mode, points, sessions));
    let tokenizer = tokenizer(&options.base, options.tokenizer.as_deref())?;
    progress(Event::Step(format!("load {}", options.base.display())));
    let model = LanguageModel::load(&options.base, &injections, Arc::clone(&injector) as _)?;
    if !options.allow_other_base {
        let fingerprint =
            base_model::fingerprint(options.base_weights.as_deref(), model.metadata())?;
        for contributor in 0..injector.contributor_count() {
            let entry = injector.contributor(contributor);
            base_model::compare(
                entry.session.url(),
                &entry.session.remote().manifest,
                fingerprint.as_deref(),
            )?;
        }
    }

    let mut run = Run { options, model, tokenizer, injector, measured: Measured::default() };
    let interrupted = run.measure(progress).err();
    let contributors = run.finish(srs, keys, progress);
    let report = run.report(contributors);
    report.write(&options.out.join(REPORT))?;
    Ok(Outcome { report, interrupted })
}

fn points_of<'a>(
    remotes: impl Iterator<Item = &'a Remote>,
    maps: &[(String, String)],
) -> Result<Vec<Point>, Error> {
    let known: Vec<_> =
        remotes.map(|remote| (remote.options.url.as_str(), &remote.manifest)).collect();
    points(&known, maps)
}

/// Loads a base model whose layers get the deltas of these sessions. Layers are found by name.
pub fn patched(
    base: &Path,
    mode: Mode,
    sessions: Vec<UserSession>,
) -> Result<(LanguageModel, Arc<DeltaInjector>), Error> {
    let points = points_of(sessions.iter().map(UserSession::remote), &[])?;
    let injections: Vec<_> = points.iter().map(|point| point.injection.clone()).collect();
    let injector = Arc::new(DeltaInjector::new(mode, points, sessions));
    let model = LanguageModel::load(base, &injections, Arc::clone(&injector) as _)?;
    Ok((model, injector))
}

/// The results of the passes.
#[derive(Default)]
struct Measured {
    loss: Option<Losses>,
    generated: Option<Generated>,
    forward_seconds: f64,
    forward_passes: usize,
}

struct Run<'a> {
    options: &'a InferOptions,
    model: LanguageModel,
    tokenizer: Tokenizer,
    injector: Arc<DeltaInjector>,
    measured: Measured,
}

impl Run<'_> {
    fn measure(&mut self, progress: &mut dyn FnMut(Event)) -> Result<(), Error> {
        if let Some(text) = &self.options.text {
            progress(Event::Step("loss of the base model".into()));
            let tokens = self.tokenizer.encode(text)?;
            let context = self
                .model
                .max_tokens()
                .map_or(self.options.context, |most| most.min(self.options.context));
            self.injector.turn(false);
            let base = loss(&self.model, &tokens, context)?;
            progress(Event::Step("loss with the adapters".into()));
            let adapted = self.adapted(|run| Ok(loss(&run.model, &tokens, context)?))?;
            let windows: Vec<WindowLoss> = base
                .iter()
                .zip(&adapted)
                .map(|(base, adapted)| WindowLoss {
                    tokens: base.tokens,
                    base: base.nll / base.tokens as f64,
                    adapted: adapted.nll / adapted.tokens as f64,
                })
                .collect();
            self.measured.forward_passes += windows.len();
            self.measured.loss = Some(total(windows));
        }
        if let Some(generation) = &self.options.generation {
            let prompt = self.tokenizer.encode(&generation.prompt)?;
            let stop = self.tokenizer.end_of_text();
            let base = if generation.compare {
                progress(Event::Step("text of the base model".into()));
                self.injector.turn(false);
                let (tokens, _) =
                    generate(&self.model, &prompt, &generation.sampling, &stop, |_| true)?;
                Some(self.tokenizer.decode(&tokens)?)
            } else {
                None
            };
            progress(Event::Step("text with the adapters".into()));
            let mut so_far = Vec::new();
            let (tokens, _) = self.adapted(|run| {
                Ok(generate(&run.model, &prompt, &generation.sampling, &stop, |token| {
                    so_far.push(token);
                    progress(Event::Step(format!(
                        "text with the adapters: {} tokens",
                        so_far.len()
                    )));
                    true
                })?)
            })?;
            self.measured.forward_passes += tokens.len();
            self.measured.generated = Some(Generated {
                prompt: generation.prompt.clone(),
                adapted: self.tokenizer.decode(&tokens)?,
                base,
                tokens: tokens.len(),
            });
        }
        Ok(())
    }

    /// Runs passes with deltas. If a pass ends because contributors failed, the error is theirs.
    fn adapted<T>(&mut self, work: impl FnOnce(&Self) -> Result<T, Error>) -> Result<T, Error> {
        self.injector.turn(true);
        let start = Instant::now();
        let result = work(self);
        self.measured.forward_seconds += start.elapsed().as_secs_f64();
        result.map_err(|error| {
            let failures = (0..self.injector.contributor_count())
                .filter_map(|c| Some(self.injector.contributor(c).failure.as_ref()?.to_string()));
            match failures.collect::<Vec<_>>() {
                none if none.is_empty() => error,
                some => Error::Interrupted(some.join("; ")),
            }
        })
    }

    /// Ends all sessions at the same time.
    fn finish(
        &self,
        srs: &Srs,
        keys: &KeyStore,
        progress: &mut dyn FnMut(Event),
    ) -> Vec<ContributorReport> {
        progress(Event::Step("wait for proofs".into()));
        let (said, heard) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let finishing: Vec<_> = (0..self.injector.contributor_count())
                .map(|contributor| {
                    let said = said.clone();
                    scope.spawn(move || self.finish_one(contributor, srs, keys, &said))
                })
                .collect();
            drop(said);
            for event in heard {
                progress(event);
            }
            finishing
                .into_iter()
                .enumerate()
                .map(|(contributor, thread)| {
                    thread.join().unwrap_or_else(|_| {
                        self.contributor(
                            contributor,
                            Err((Verdict::Failed, "its thread failed".into())),
                        )
                    })
                })
                .collect()
        })
    }

    fn finish_one(
        &self,
        contributor: usize,
        srs: &Srs,
        keys: &KeyStore,
        said: &std::sync::mpsc::Sender<Event>,
    ) -> ContributorReport {
        let result = {
            let mut entry = self.injector.contributor(contributor);
            let url = entry.session.url().to_string();
            let failure = entry.failure.as_ref().map(ToString::to_string);
            if failure.is_some() {
                // The run has waited for this contributor before. If it still answers, for example
                // because a row limit was reached, it proves the rows that it served.
                entry.session.stop_retrying();
            }
            let finished = if entry.session.rows() == 0 {
                Err((
                    Verdict::Failed,
                    "no rows were answered: there is nothing to prove".to_string(),
                ))
            } else {
                let tell = &mut |progress| {
                    // The receiver lives as long as this scope.
                    let _ = said.send(Event::Proof(url.clone(), progress));
                };
                entry.session.finish(srs, keys, self.options.policy, tell).map_err(|error| {
                    let verdict =
                        if error.is_refusal() { Verdict::Rejected } else { Verdict::Failed };
                    (verdict, error.to_string())
                })
            };
            match (finished, failure) {
                // The first failure says more than those that it causes.
                (Err((Verdict::Failed, _)), Some(failure)) => Err((Verdict::Failed, failure)),
                (finished, _) => finished,
            }
        };
        self.contributor(contributor, result)
    }

    fn contributor(
        &self,
        contributor: usize,
        result: Result<Finished, (Verdict, String)>,
    ) -> ContributorReport {
        let entry = self.injector.contributor(contributor);
        let (session, remote) = (&entry.session, entry.session.remote());
        let rows = session.rows_per_module();
        let (finished, refused) = match result {
            Ok(finished) => (Some(finished), None),
            Err(refused) => (None, Some(refused)),
        };
        let statistics = &session.statistics;
        let ended_early =
            entry.failure.as_ref().map(|failure| format!("it ended early: {failure}"));
        ContributorReport {
            url: session.url().to_string(),
            adapter_id: remote.manifest.id().to_string(),
            pinned: remote.options.pin.is_some(),
            session_id: hex::encode(session.id()),
            modules: rows.len(),
            modules_called: rows.iter().filter(|rows| **rows > 0).count(),
            rows: rows.iter().sum(),
            rows_reused: statistics.reused,
            calls: statistics.calls,
            reconnections: statistics.reconnections,
            bytes_sent: statistics.sent,
            bytes_received: statistics.received,
            latency: Latency::of(statistics.latest.iter().map(|call| call.seconds).collect()),
            proof_seconds: finished.as_ref().map(|f| f.proof_time.as_secs_f64()),
            verify_seconds: finished.as_ref().map(|f| f.verify_time.as_secs_f64()),
            proof_bytes: finished.as_ref().map(|f| f.proof_bytes),
            verdict: refused.as_ref().map_or(Verdict::Accepted, |(verdict, _)| *verdict),
            why: refused.map(|(_, why)| why).or(ended_early),
            left_out: remote.manifest.contents().left_out.clone(),
        }
    }

    fn report(&mut self, contributors: Vec<ContributorReport>) -> EffectReport {
        let Measured { loss, generated, forward_seconds, forward_passes } =
            std::mem::take(&mut self.measured);
        let norms = self.injector.norms();
        let points = self.model.points().iter().map(|found| {
            let (norms, point) = (norms[found.point], &self.injector.points()[found.point]);
            let values = (norms.rows * point.injection.base_dim).max(1) as f64;
            PointReport {
                module: found.module.clone(),
                rows: norms.rows,
                base_rms: (norms.base / values).sqrt(),
                delta_rms: (norms.delta / values).sqrt(),
                relative: (norms.base > 0.0).then(|| (norms.delta / norms.base).sqrt()),
                contributors: point.modules.iter().map(|module| module.contributor).collect(),
            }
        });
        let points = points.filter(|point| point.rows > 0).collect();
        EffectReport {
            format: FORMAT.into(),
            version: VERSION,
            base_model: name(&self.options.base),
            mode: self.options.mode.to_string(),
            loss,
            generated,
            contributors,
            points,
            forward_seconds,
            forward_passes,
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name()
        .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// The losses of all windows together, weighted by tokens.
fn total(windows: Vec<WindowLoss>) -> Losses {
    let tokens: usize = windows.iter().map(|window| window.tokens).sum();
    let mean = |of: fn(&WindowLoss) -> f64| {
        windows.iter().map(|window| of(window) * window.tokens as f64).sum::<f64>()
            / tokens.max(1) as f64
    };
    let (base, adapted) = (mean(|w| w.base), mean(|w| w.adapted));
    Losses {
        base,
        adapted,
        base_perplexity: base.exp(),
        adapted_perplexity: adapted.exp(),
        tokens,
        windows,
    }
}
