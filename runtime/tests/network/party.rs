//! The two parties: a folder of artifacts that a server serves, and clients of it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use zklora_circuit::{keys::KeyStore, manifest::AdapterId, srs::Srs, verifier::SrsPolicy};
use zklora_runtime::{
    Error,
    artifacts::Artifacts,
    client::{ClientTls, ContributorOptions, Finished, Network, Remote, UserSession},
    compile,
    server::{self, Limits, ServerOptions},
    srs_store, synthetic,
    trace_file::ModuleRows,
};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}

/// The built-in SRS, from a cache of the tests' own.
pub fn srs() -> &'static Srs {
    static SRS: OnceLock<Srs> = OnceLock::new();
    SRS.get_or_init(|| srs_store::load(None).unwrap())
}

/// An adapter folder, compiled.
pub fn compiled(adapter: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let onnx = folder.path().join("onnx");
    std::fs::create_dir(&onnx).unwrap();
    let adapter = zklora_models::Adapter::load(&fixture(adapter)).unwrap();
    zklora_models::export(&adapter, &[], &onnx).unwrap();
    let options = compile::Options { paths: &[onnx], out: folder.path(), seed_file: None, calibrate: None };
    compile::compile(&options, srs(), &KeyStore::default()).unwrap();
    folder
}

/// The folder of one adapter that every test may serve from a copy of.
pub fn artifacts() -> tempfile::TempDir {
    static COMPILED: OnceLock<tempfile::TempDir> = OnceLock::new();
    let source = COMPILED.get_or_init(|| compiled("adapters/llama_qv_r4"));
    let copy = tempfile::tempdir().unwrap();
    for part in ["public", "private"] {
        std::fs::create_dir(copy.path().join(part)).unwrap();
        for entry in std::fs::read_dir(source.path().join(part)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join(part).join(entry.file_name())).unwrap();
        }
    }
    copy
}

pub fn load(folder: &Path) -> Artifacts {
    Artifacts::load(folder, srs(), &KeyStore::default()).unwrap()
}

/// A server in a thread of this process.
pub struct Server {
    pub address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<Result<(), Error>>>,
}

impl Server {
    pub fn options(folder: &Path) -> ServerOptions {
        ServerOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            tls: None,
            tokens: None,
            insecure: false,
            data: server::default_data(folder),
            limits: Limits::default(),
        }
    }

    pub fn start(folder: &Path) -> Server {
        Server::with(folder, &Server::options(folder))
    }

    pub fn with(folder: &Path, options: &ServerOptions) -> Server {
        let listening = server::start(load(folder), srs().clone(), KeyStore::default(), options).unwrap();
        let address = listening.address;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            listening.run_until(async {
                let _ = stopped.await;
            })
        });
        Server { address, stop: Some(stop), thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops it and waits for it to end.
    pub fn stop(mut self) {
        self.end().unwrap();
    }

    fn end(&mut self) -> Result<(), Error> {
        let _ = self.stop.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.stop.is_some() {
            let _ = self.end();
        }
    }
}

pub fn network() -> Arc<Network> {
    static NETWORK: OnceLock<Arc<Network>> = OnceLock::new();
    Arc::clone(NETWORK.get_or_init(|| Arc::new(Network::start().unwrap())))
}

pub fn options(url: &str, pin: Option<AdapterId>) -> ContributorOptions {
    ContributorOptions {
        url: url.to_string(),
        pin,
        token_file: None,
        tls: ClientTls::default(),
        insecure: false,
        call_timeout: Duration::from_secs(20),
        patience: Duration::from_secs(10),
    }
}

pub fn connect(url: &str, pin: Option<AdapterId>) -> Result<Remote, Error> {
    Remote::connect(options(url, pin), &network())
}

pub fn open(url: &str, pin: Option<AdapterId>, folder: &Path) -> Result<UserSession, Error> {
    UserSession::open(connect(url, pin)?, folder)
}

/// Pseudo-random rows for every module, from a seed that makes them differ.
pub fn calls(session: &UserSession, rows: usize, seed: usize) -> Vec<(usize, Arc<ModuleRows>)> {
    let modules = session.remote().pinned.modules();
    let activations = synthetic::activations(modules, rows + seed);
    modules
        .iter()
        .enumerate()
        .map(|(m, module)| {
            let dims = module.inputs.iter().map(|input| input.dim);
            let inputs: Vec<(&[f32], usize)> = activations.modules[&module.name]
                .iter()
                .zip(dims)
                .map(|(values, dim)| (&values[seed * dim..], dim))
                .collect();
            let quantized =
                zklora_compiler::quantize::quantize_inputs(&inputs, module.x_bits, module.has_bias()).unwrap();
            let rows = ModuleRows {
                inputs: quantized.inputs,
                ones: quantized.ones.unwrap_or_default(),
                scales: quantized.scales,
                delta: Vec::new(),
            };
            (m, Arc::new(rows))
        })
        .collect()
}

pub fn finish(session: &mut UserSession) -> Result<Finished, Error> {
    session.finish(srs(), &KeyStore::default(), SrsPolicy::TrustedOnly, &mut |_| {})
}
