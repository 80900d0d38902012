//! The two parties: a folder of artifacts that a server serves, and clients of it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use zklora_artifacts::{folder::Artifacts, module_rows::ModuleRows, srs_file, synthetic};
use zklora_evaluation::answering::Answering;
use zklora_proof::{
    checked_manifest::CheckedManifest, keys::KeyStore, manifest::AdapterId, srs::Srs,
    verifier::SrsPolicy,
};
use zklora_runtime::compile;
use zklora_session::{
    Error,
    client::{ClientTls, ContributorOptions, Finished, Network, Remote, UserSession},
    server::{self, Limits, RowService, ServerOptions},
};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}

/// The built-in SRS, from a cache of the tests' own.
pub fn srs() -> &'static Srs {
    static SRS: OnceLock<Srs> = OnceLock::new();
    SRS.get_or_init(|| srs_file::load(None).unwrap())
}

/// An adapter folder, compiled.
pub fn compiled(adapter: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let onnx = folder.path().join("onnx");
    std::fs::create_dir(&onnx).unwrap();
    let adapter = zklora_models::Adapter::load(adapter).unwrap();
    zklora_models::export(&adapter, &[], &onnx).unwrap();
    let options = compile::Options {
        paths: &[onnx],
        out: folder.path(),
        seed_file: None,
        calibrate: None,
        k: None,
        registered: false,
    };
    compile::compile(&options, srs(), &KeyStore::default()).unwrap();
    folder
}

/// The folder of one adapter that every test may serve from a copy of.
pub fn artifacts() -> tempfile::TempDir {
    static COMPILED: OnceLock<tempfile::TempDir> = OnceLock::new();
    copy_of(COMPILED.get_or_init(|| compiled(&fixture("adapters/llama_qv_r4"))))
}

/// The folder of another adapter: the same shapes, and every weight has the other sign on one side.
pub fn impostor() -> tempfile::TempDir {
    static COMPILED: OnceLock<tempfile::TempDir> = OnceLock::new();
    let source = COMPILED.get_or_init(|| {
        let peft = tempfile::tempdir().unwrap();
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            std::fs::copy(fixture("adapters/llama_qv_r4").join(name), peft.path().join(name))
                .unwrap();
        }
        let path = peft.path().join("adapter_model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let tensors: Vec<(String, usize, usize)> = {
            let (header, tensors) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
            let offsets = tensors.tensors().into_iter();
            offsets
                .map(|(name, t)| {
                    (name, 8 + header + t.data_offsets.0, 8 + header + t.data_offsets.1)
                })
                .collect()
        };
        for (name, from, to) in tensors {
            if name.ends_with("lora_A.weight") {
                bytes[from..to].chunks_exact_mut(4).for_each(|float| float[3] ^= 0x80);
            }
        }
        std::fs::write(&path, bytes).unwrap();
        compiled(peft.path())
    });
    copy_of(source)
}

fn copy_of(source: &tempfile::TempDir) -> tempfile::TempDir {
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

/// Limits with any number of rows.
pub fn limits() -> Limits {
    Limits { rows: RowService::Unlimited, ..Limits::default() }
}

/// Limits with this many rows of a module.
pub fn limited(rows: u64) -> Limits {
    Limits { rows: RowService::try_from(rows).unwrap(), ..Limits::default() }
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
            metrics: None,
            data: server::default_data(folder),
            limits: limits(),
        }
    }

    pub fn start(folder: &Path) -> Server {
        Server::with(folder, &Server::options(folder))
    }

    pub fn with(folder: &Path, options: &ServerOptions) -> Server {
        Server::evaluating(folder, options, None)
    }

    /// A server that also answers requests for evaluations.
    pub fn evaluating(
        folder: &Path,
        options: &ServerOptions,
        answering: Option<Answering>,
    ) -> Server {
        let (artifacts, srs, keys) = (load(folder), srs().clone(), KeyStore::default());
        let listening =
            server::start_with_evaluations(artifacts, srs, keys, options, answering).unwrap();
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
        proof_timeout: Duration::from_secs(60),
        moved: false,
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
    rows_of(&session.remote().manifest, rows, seed)
}

/// The same, without a session.
pub fn rows_of(
    manifest: &CheckedManifest,
    rows: usize,
    seed: usize,
) -> Vec<(usize, Arc<ModuleRows>)> {
    let modules = manifest.modules();
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
            let quantized = zklora_artifacts::row_quantizer::quantize_inputs(
                &inputs,
                module.x_bits,
                module.has_bias(),
            )
            .unwrap();
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

/// What the adapter computes for these calls, from its weights and nothing else.
pub fn expected(artifacts: &Artifacts, calls: &[(usize, Arc<ModuleRows>)]) -> Vec<Vec<i64>> {
    let modules = artifacts.manifest.modules();
    let of = |(m, rows): &(usize, Arc<ModuleRows>)| {
        let (module, pairs) = (&modules[*m], artifacts.weights.of_module(modules, *m));
        let mut delta = vec![0i64; rows.scales.len() * module.d_out];
        for (row, out) in delta.chunks_exact_mut(module.d_out).enumerate() {
            let inputs = rows.inputs.iter().zip(&module.inputs);
            let x: Vec<&[i32]> =
                inputs.map(|(x, input)| &x[row * input.dim..(row + 1) * input.dim]).collect();
            artifacts.weights.delta_row(
                module,
                pairs,
                &x,
                rows.ones.get(row).copied().unwrap_or(0),
                out,
            );
        }
        delta
    };
    calls.iter().map(of).collect()
}

/// An honest user has its session, with the right deltas and an accepted proof.
pub fn assert_serves(server: &Server, folder: &Path) {
    let user = tempfile::tempdir().unwrap();
    let artifacts = load(folder);
    let mut session = open(&server.url(), Some(artifacts.manifest.id()), user.path()).unwrap();
    let calls = calls(&session, 2, 1000);
    assert_eq!(session.deltas(&calls).unwrap(), expected(&artifacts, &calls));
    finish(&mut session).unwrap();
}
