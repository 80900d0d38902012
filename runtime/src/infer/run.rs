//! One run: connect, load, measure, generate, prove, report.

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
    base,
    mixture::{Mixture, Mode},
    points::{Point, points},
};
use crate::{
    Error,
    effect_report::{
        ContributorReport, EffectReport, FORMAT, Generated, Latency, Losses, PointReport, VERSION,
        Verdict, WindowLoss,
    },
};

/// Names within the folder of a run.
pub const REPORT: &str = "report.json";

/// Text to go on with.
#[derive(Debug, Clone)]
pub struct Generation {
    /// What comes before.
    pub prompt: String,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Also let the base model alone go on, to compare.
    pub compare: bool,
}

/// What to run.
pub struct InferOptions {
    /// The base model, ONNX.
    pub base: PathBuf,
    /// Its tokenizer; none: `tokenizer.json` beside the base model.
    pub tokenizer: Option<PathBuf>,
    /// The folder of its weights, to compare fingerprints.
    pub base_weights: Option<PathBuf>,
    /// Go on with another base model than the adapters are for.
    pub allow_other_base: bool,
    /// Who serves deltas.
    pub contributors: Vec<ContributorOptions>,
    /// What becomes of the base layer's output.
    pub mode: Mode,
    /// Layers that are not found by their names: module and ONNX tensor.
    pub maps: Vec<(String, String)>,
    /// Text whose loss is measured.
    pub text: Option<String>,
    /// Tokens that the model sees at once.
    pub context: usize,
    /// Text that is generated.
    pub generation: Option<Generation>,
    /// Where everything is kept.
    pub out: PathBuf,
    /// Accept an SRS file of a ceremony that this program does not know.
    pub policy: SrsPolicy,
}

/// What the user may want to see while it runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A step began.
    Step(String),
    /// What the user should know.
    Warning(String),
    /// How far a proof is.
    Proof(String, Progress),
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The report, as it is in the folder.
    pub report: EffectReport,
    /// Why the run ended early, if it did. The sessions were proven all the same, as far as they
    /// went.
    pub interrupted: Option<Error>,
}

/// Runs everything.
///
/// # Errors
/// What went wrong before a session began. Later, errors are in the report, by contributor.
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
                remote.pinned.id(),
                contributor.url,
                remote.pinned.id()
            )));
        }
        remotes.push(remote);
    }
    let points = points_of(remotes.iter(), &options.maps)?;
    let injections: Vec<_> = points.iter().map(|point| point.injection.clone()).collect();
    // Nothing is sent before the first forward pass (but for a batch that an earlier run left
    // without its answer).
    let mut sessions = Vec::new();
    for (index, remote) in remotes.into_iter().enumerate() {
        let session =
            UserSession::open(remote, &options.out.join(format!("contributor-{}", index + 1)))?;
        if session.resumed > 0 {
            progress(Event::Step(format!(
                "{}: going on with a session of {} rows",
                session.url(),
                session.resumed
            )));
        }
        sessions.push(session);
    }
    let mixture = Arc::new(Mixture::new(options.mode, points, sessions));
    let tokenizer = tokenizer(&options.base, options.tokenizer.as_deref())?;
    progress(Event::Step(format!("load {}", options.base.display())));
    let model = LanguageModel::load(&options.base, &injections, Arc::clone(&mixture) as _)?;
    if !options.allow_other_base {
        let own = base::fingerprint(options.base_weights.as_deref(), model.metadata())?;
        for contributor in 0..mixture.contributors() {
            let seat = mixture.seat(contributor);
            base::compare(seat.session.url(), &seat.session.remote().pinned, own.as_deref())?;
        }
    }

    let mut run = Run { options, model, tokenizer, mixture, measured: Measured::default() };
    let interrupted = run.measure(progress).err();
    let contributors = run.finish(srs, keys, progress);
    let report = run.report(contributors);
    report.write(&options.out.join(REPORT))?;
    Ok(Outcome { report, interrupted })
}

/// The tokenizer of a base model: the file that was named, or `tokenizer.json` beside the model.
pub(crate) fn tokenizer(base: &Path, named: Option<&Path>) -> Result<Tokenizer, Error> {
    let path = named.map_or_else(|| base.with_file_name("tokenizer.json"), Path::to_path_buf);
    if named.is_none() && !path.exists() {
        return Err(Error::input(format!(
            "{} does not exist: name the tokenizer.json of the base model with --tokenizer",
            path.display()
        )));
    }
    Ok(Tokenizer::load(&path)?)
}

fn points_of<'a>(
    remotes: impl Iterator<Item = &'a Remote>,
    maps: &[(String, String)],
) -> Result<Vec<Point>, Error> {
    let known: Vec<_> =
        remotes.map(|remote| (remote.options.url.as_str(), &remote.pinned)).collect();
    points(&known, maps)
}

/// A base model whose layers get the deltas of these sessions, found by their names.
pub fn patched(
    base: &Path,
    mode: Mode,
    sessions: Vec<UserSession>,
) -> Result<(LanguageModel, Arc<Mixture>), Error> {
    let points = points_of(sessions.iter().map(UserSession::remote), &[])?;
    let injections: Vec<_> = points.iter().map(|point| point.injection.clone()).collect();
    let mixture = Arc::new(Mixture::new(mode, points, sessions));
    let model = LanguageModel::load(base, &injections, Arc::clone(&mixture) as _)?;
    Ok((model, mixture))
}

/// What the passes gave.
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
    mixture: Arc<Mixture>,
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
            self.mixture.turn(false);
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
                self.mixture.turn(false);
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

    /// Runs passes with deltas. If one ends because a contributor failed, the error is that
    /// contributor's.
    fn adapted<T>(&mut self, work: impl FnOnce(&Self) -> Result<T, Error>) -> Result<T, Error> {
        self.mixture.turn(true);
        let start = Instant::now();
        let result = work(self);
        self.measured.forward_seconds += start.elapsed().as_secs_f64();
        result.map_err(|error| {
            let failures = (0..self.mixture.contributors())
                .filter_map(|c| Some(self.mixture.seat(c).failure.as_ref()?.to_string()));
            match failures.collect::<Vec<_>>() {
                none if none.is_empty() => error,
                some => Error::Interrupted(some.join("; ")),
            }
        })
    }

    /// Ends every session that has rows and did not fail, all at the same time.
    fn finish(
        &self,
        srs: &Srs,
        keys: &KeyStore,
        progress: &mut dyn FnMut(Event),
    ) -> Vec<ContributorReport> {
        progress(Event::Step("wait for proofs".into()));
        let (said, heard) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let finishing: Vec<_> = (0..self.mixture.contributors())
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
            let mut seat = self.mixture.seat(contributor);
            let url = seat.session.url().to_string();
            let failure = seat.failure.as_ref().map(ToString::to_string);
            if failure.is_some() {
                // It was waited for already. What it served until then is proven if it is there (a
                // limit of rows was reached, say).
                seat.session.stop_retrying();
            }
            let finished = if seat.session.rows() == 0 {
                Err((
                    Verdict::Failed,
                    "no rows were answered: there is nothing to prove".to_string(),
                ))
            } else {
                let tell = &mut |progress| {
                    // The listener lives as long as this scope.
                    let _ = said.send(Event::Proof(url.clone(), progress));
                };
                seat.session.finish(srs, keys, self.options.policy, tell).map_err(|error| {
                    let verdict =
                        if error.is_refusal() { Verdict::Rejected } else { Verdict::Failed };
                    (verdict, error.to_string())
                })
            };
            match (finished, failure) {
                // The first failure says more than those that follow from it.
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
        let seat = self.mixture.seat(contributor);
        let (session, remote) = (&seat.session, seat.session.remote());
        let rows = session.rows_per_module();
        let (finished, refused) = match result {
            Ok(finished) => (Some(finished), None),
            Err(refused) => (None, Some(refused)),
        };
        let statistics = &session.statistics;
        let ended_early = seat.failure.as_ref().map(|failure| format!("it ended early: {failure}"));
        ContributorReport {
            url: session.url().to_string(),
            adapter_id: remote.pinned.id().to_string(),
            pinned: remote.options.pin.is_some(),
            session_id: hex::encode(session.id()),
            modules: rows.len(),
            modules_called: rows.iter().filter(|rows| **rows > 0).count(),
            rows: rows.iter().sum(),
            rows_reused: statistics.reused,
            calls: statistics.seconds.len(),
            reconnections: statistics.reconnections,
            bytes_sent: statistics.sent,
            bytes_received: statistics.received,
            latency: Latency::of(statistics.seconds.clone()),
            proof_seconds: finished.as_ref().map(|f| f.proof_time.as_secs_f64()),
            verify_seconds: finished.as_ref().map(|f| f.verify_time.as_secs_f64()),
            proof_bytes: finished.as_ref().map(|f| f.proof_bytes),
            verdict: refused.as_ref().map_or(Verdict::Accepted, |(verdict, _)| *verdict),
            why: refused.map(|(_, why)| why).or(ended_early),
        }
    }

    fn report(&mut self, contributors: Vec<ContributorReport>) -> EffectReport {
        let Measured { loss, generated, forward_seconds, forward_passes } =
            std::mem::take(&mut self.measured);
        let norms = self.mixture.norms();
        let points = self.model.points().iter().map(|found| {
            let (norms, point) = (norms[found.point], &self.mixture.points()[found.point]);
            let values = (norms.rows * point.injection.base_dim).max(1) as f64;
            PointReport {
                module: found.module.clone(),
                rows: norms.rows,
                base_rms: (norms.base / values).sqrt(),
                delta_rms: (norms.delta / values).sqrt(),
                relative: (norms.base > 0.0).then(|| (norms.delta / norms.base).sqrt()),
                contributors: point.parts.iter().map(|part| part.contributor).collect(),
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

/// The losses of all windows together, each token counted once.
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
