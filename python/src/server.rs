//! Runs a contributor's gRPC server in this process.

use std::{
    net::ToSocketAddrs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use pyo3::prelude::*;
use tokio::sync::oneshot;
use zklora_artifacts::folder as artifacts;
use zklora_proof::checked_manifest::CheckedManifest;
use zklora_session::{
    server as serving,
    server::{Limits, RowService, ServerOptions, ServerTls, Tokens},
};

use crate::{adapters::Manifest, error::Failure, globals, process, worker};

/// How many rows a server serves: a number, or `"unlimited"`.
#[derive(FromPyObject)]
enum MaxRows {
    Number(u64),
    Word(String),
}

impl MaxRows {
    fn service(self) -> Result<RowService, Failure> {
        let service = match self {
            MaxRows::Number(rows) => RowService::try_from(rows),
            MaxRows::Word(word) => word.parse(),
        };
        service.map_err(|why| Failure::Input(format!("max_rows: {why}")))
    }
}

/// A server that listens.
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), zklora_session::Error>>,
}

/// Serves the deltas of an artifact folder until it is stopped or dropped.
#[pyclass(frozen, module = "zklora._native")]
pub struct Server {
    running: Mutex<Option<Running>>,
    address: std::net::SocketAddr,
    scheme: &'static str,
    manifest: Arc<CheckedManifest>,
}

#[pymethods]
impl Server {
    /// Starts to listen; port 0 picks any free port. Without `max_rows`, a number or `"unlimited"`,
    /// it serves no rows.
    #[new]
    #[pyo3(signature = (
        artifacts, host, port, *, data=None, max_rows=None, token_file=None, tls_cert=None,
        tls_key=None, client_ca=None, insecure=false
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        artifacts: PathBuf,
        host: String,
        port: u16,
        data: Option<PathBuf>,
        max_rows: Option<MaxRows>,
        token_file: Option<PathBuf>,
        tls_cert: Option<PathBuf>,
        tls_key: Option<PathBuf>,
        client_ca: Option<PathBuf>,
        insecure: bool,
    ) -> Result<Server, Failure> {
        worker::run(py, None, move |_| {
            let unknown = |why: String| {
                Failure::Input(format!("{host}:{port} is not an address to listen on: {why}"))
            };
            let mut addresses =
                (host.as_str(), port).to_socket_addrs().map_err(|e| unknown(e.to_string()))?;
            let listen = addresses.next().ok_or_else(|| unknown("it has no address".into()))?;
            let tls = match (tls_cert, tls_key) {
                (Some(certificate), Some(key)) => Some(ServerTls { certificate, key, client_ca }),
                (None, None) if client_ca.is_none() => None,
                _ => return Err(Failure::Input("TLS needs both tls_cert and tls_key".into())),
            };
            let rows = max_rows.map(MaxRows::service).transpose()?.unwrap_or_default();
            let scheme = if tls.is_some() { "https" } else { "http" };
            let options = ServerOptions {
                listen,
                tls,
                tokens: token_file.as_deref().map(Tokens::read).transpose()?,
                insecure,
                metrics: None,
                data: data.unwrap_or_else(|| serving::default_data(&artifacts)),
                limits: Limits { rows, ..Limits::default() },
            };
            let srs = globals::srs()?;
            let artifacts = artifacts::Artifacts::load(&artifacts, &srs, globals::keys())?;
            let manifest = Arc::new(artifacts.manifest.clone());
            let listening =
                serving::start(artifacts, (*srs).clone(), Default::default(), &options)?;
            let address = listening.address;
            let (stop, stopped) = oneshot::channel();
            let thread =
                std::thread::Builder::new().name("zklora-server".into()).spawn(move || {
                    listening.run_until(async move {
                        // Dropping the sender stops the server, too.
                        let _ = stopped.await;
                    })
                });
            let thread =
                thread.map_err(|e| Failure::Input(format!("cannot start a thread: {e}")))?;
            Ok(Server {
                running: Mutex::new(Some(Running { stop, thread })),
                address,
                scheme,
                manifest,
            })
        })
    }

    /// Stops listening and waits until streams have ended. A second call does nothing.
    fn stop(&self, py: Python<'_>) -> Result<(), Failure> {
        process::check_process()?;
        let Some(Running { stop, thread }) = self.take() else { return Ok(()) };
        let _ = stop.send(());
        worker::run(py, None, move |_| Ok(thread.join().map_err(|_| Failure::Lost)??))
    }

    /// Whether the server listens.
    #[getter]
    fn is_running(&self) -> bool {
        if process::is_forked() {
            return false;
        }
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().is_some_and(|running| !running.thread.is_finished())
    }

    /// The port that the server listens on.
    #[getter]
    fn port(&self) -> u16 {
        self.address.port()
    }

    /// The URL at which users reach the server.
    #[getter]
    fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The adapter's manifest.
    #[getter]
    fn manifest(&self) -> Manifest {
        Arc::clone(&self.manifest).into()
    }

    fn __repr__(&self) -> String {
        format!("Server({}, adapter {})", self.url(), self.manifest.id())
    }
}

impl Server {
    fn take(&self) -> Option<Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if process::is_forked() {
            // The parent's thread does not exist here, so do not wait for it.
            std::mem::forget(self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        } else {
            // Dropping the sender ends the thread.
            drop(self.take());
        }
    }
}
