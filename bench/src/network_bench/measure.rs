//! Runs the measurement: a contributor's server and a user's model in one process.

use std::{path::Path, sync::Arc, time::Duration};

use zklora_artifacts::folder::Artifacts;
use zklora_files::Access;
use zklora_models::{
    Adapter,
    language_model::{Identity, LanguageModel},
};
use zklora_proof::{keys::KeyStore, srs::Srs};
use zklora_runtime::{
    compile,
    infer::{self, Mode},
};
use zklora_session::{
    client::{ClientTls, ContributorOptions, Network, Remote, UserSession},
    server::{self, Limits, RowService, ServerOptions},
};

use super::echo;
use crate::{
    Error,
    compared::{Compared, timed},
    integer_vs_float,
};

/// What to measure.
pub struct Options<'a> {
    /// The PEFT folder that a contributor serves.
    pub adapter: &'a Path,
    /// The folder of the base model, which DoRA and VeRA need.
    pub base: Option<&'a Path>,
    /// The base model, ONNX.
    pub model: &'a Path,
    /// Tokens of a pass.
    pub tokens: usize,
    /// Passes of each kind.
    pub repetitions: usize,
    /// A folder for files. The caller removes it.
    pub scratch: &'a Path,
}

/// The result.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Measured {
    /// Tokens of a pass.
    pub tokens: usize,
    /// Modules of the adapter.
    pub modules: usize,
    /// A forward pass with remote deltas, against one without.
    pub forward: Compared,
    /// A call, against an echo of as many bytes.
    pub call: Compared,
    /// Bytes of the activations and deltas of a pass.
    pub bytes: (u64, u64),
    /// The integer deltas of a pass on one thread, against `f32` by `ndarray`.
    pub deltas: Compared,
}

/// Measures. The kinds of passes take turns, so that a busy machine slows all of them.
pub fn measure(
    options: &Options<'_>,
    srs: &Srs,
    progress: &mut dyn FnMut(&str),
) -> Result<Measured, Error> {
    progress("compile");
    let keys = KeyStore::default();
    let adapter = Adapter::load_with_base(options.adapter, options.base)?;
    let onnx = options.scratch.join("onnx");
    zklora_files::create_folder(&onnx, Access::Private)?;
    zklora_models::export(&adapter, &[], &onnx)?;
    let paths = [onnx];
    let compile_options = compile::Options {
        paths: &paths,
        out: options.scratch,
        seed_file: None,
        calibrate: None,
        k: None,
        registered: false,
    };
    let artifacts = compile::compile(&compile_options, srs, &keys)?.artifacts;

    progress("deltas");
    let deltas = integer_vs_float::compare(&artifacts, options.tokens, options.repetitions * 20)?;

    let modules = artifacts.manifest.modules().len();
    let server = Serving::start(artifacts, srs, &options.scratch.join("sessions"))?;
    let network = Arc::new(Network::start()?);
    let remote = Remote::connect(server.contributor(), &network)?;
    let session = UserSession::open(remote, &options.scratch.join("user"))?;
    progress("load the base model");
    let alone = LanguageModel::load(options.model, &[], Arc::new(Identity))?;
    let (model, injector) = infer::patched(options.model, Mode::AddDelta, vec![session])?;

    let (mut with, mut without) = (Vec::new(), Vec::new());
    let limit = alone.max_tokens().map_or(options.tokens, |most| most.min(options.tokens));
    let mut bytes = (0, 0);
    for repetition in 0..=options.repetitions {
        progress(&format!("pass {repetition} of {}", options.repetitions));
        // Each pass has other tokens, because rows that were answered before are not sent again.
        let ids = tokens(limit, alone.vocabulary(), repetition);
        let before = injector.traffic();
        let adapted = timed(|| model.logits(&ids))?;
        let base = timed(|| alone.logits(&ids))?;
        let after = injector.traffic();
        bytes = (after.0 - before.0, after.1 - before.1);
        // The first pass is a warm-up.
        if repetition > 0 {
            with.push(adapted);
            without.push(base);
        }
    }
    progress("echo");
    let figures = injector.calls();
    let sizes: Vec<(usize, usize)> =
        figures.iter().map(|call| (call.sent, call.received)).collect();
    let calls = figures.iter().map(|call| call.seconds).collect();
    let echoes = echo::measure(&sizes)?;
    server.stop()?;
    Ok(Measured {
        tokens: limit,
        modules,
        forward: Compared::of(with, without),
        call: Compared::of(calls, echoes),
        bytes,
        deltas,
    })
}

/// Pseudo-random tokens (a linear congruential generator).
fn tokens(count: usize, vocabulary: usize, seed: usize) -> Vec<u32> {
    let mut state = seed as u64 + 1;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % vocabulary as u64) as u32
        })
        .collect()
}

/// A server in a thread.
struct Serving {
    address: std::net::SocketAddr,
    stop: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<Result<(), zklora_session::Error>>,
}

impl Serving {
    fn start(artifacts: Artifacts, srs: &Srs, data: &Path) -> Result<Serving, Error> {
        let options = ServerOptions {
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            tokens: None,
            insecure: false,
            metrics: None,
            data: data.to_path_buf(),
            limits: Limits { rows: RowService::Unlimited, ..Limits::default() },
        };
        let listening = server::start(artifacts, srs.clone(), KeyStore::default(), &options)?;
        let address = listening.address;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            listening.run_until(async {
                let _ = stopped.await;
            })
        });
        Ok(Serving { address, stop, thread })
    }

    fn contributor(&self) -> ContributorOptions {
        ContributorOptions {
            url: format!("http://{}", self.address),
            pin: None,
            token_file: None,
            tls: ClientTls::default(),
            insecure: false,
            call_timeout: Duration::from_secs(60),
            patience: Duration::ZERO,
            proof_timeout: Duration::from_secs(600),
            moved: false,
        }
    }

    fn stop(self) -> Result<(), Error> {
        let _ = self.stop.send(());
        let served = self.thread.join();
        Ok(served.map_err(|_| Error::input("the server's thread failed"))??)
    }
}
