//! Runs the user's side of a session with one contributor.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use numpy::PyArray2;
use pyo3::{prelude::*, types::PyDict};
use zklora_artifacts::module_rows::ModuleRows;
use zklora_proof::{checked_manifest::CheckedManifest, verifier::SrsPolicy};
use zklora_session::client::{
    ClientTls, ContributorOptions, DeltaStep, Finished, Progress, Remote, UserSession,
};

use crate::{
    adapters::{Manifest, parse_id},
    arrays::{self, Rows},
    error::Failure,
    globals, process,
    trace::{self, Trace},
    worker::{self, Work},
};

/// A session that several threads may use.
struct Shared {
    /// The session, while it is open. A thread that uses it holds the lock.
    session: Mutex<Option<UserSession>>,
    /// Whether the session was closed, maybe while a thread uses it: that thread then drops it.
    closed: AtomicBool,
    /// The result of the verified proof. It is kept even if the call that waited for it was
    /// interrupted.
    finished: OnceLock<Finished>,
}

const CLOSED: &str = "this session is closed: open another one";

/// Sends rows to a contributor, receives deltas, records both, and verifies the proof.
#[pyclass(frozen, module = "zklora._native")]
pub struct Session {
    session: Arc<Shared>,
    manifest: Arc<CheckedManifest>,
    url: String,
    id: [u8; 32],
    folder: PathBuf,
}

impl Shared {
    /// Calls `work` with the open session.
    fn with<T>(
        &self,
        work: impl FnOnce(&mut UserSession) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match session.as_mut() {
            Some(open) if !self.closed.load(Ordering::Acquire) => work(open),
            _ => Err(Failure::Closed(CLOSED)),
        };
        if self.closed.load(Ordering::Acquire) {
            *session = None;
        }
        result
    }

    /// The deltas of these rows. Other threads use the session while this one waits.
    fn deltas(&self, calls: &[(usize, Arc<ModuleRows>)]) -> Result<Vec<Vec<i64>>, Failure> {
        let request = self.with(|session| Ok(session.request(calls)?))?;
        loop {
            match self.with(|session| Ok(session.advance(&request)?))? {
                DeltaStep::Deltas(deltas) => return Ok(deltas),
                DeltaStep::Waits(waiter) => waiter.wait(),
            }
        }
    }

    /// Closes the session without waiting for other threads.
    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Ok(mut session) = self.session.try_lock() {
            *session = None;
        }
    }
}

#[pymethods]
impl Session {
    /// Connects, checks the manifest against the pin, and opens the session with its record in
    /// `folder`.
    #[new]
    #[pyo3(signature = (
        url, folder, *, adapter_id=None, token_file=None, tls_ca=None, tls_cert=None, tls_key=None,
        insecure=false, timeout=60.0, patience=30.0, proof_timeout=3600.0, moved=false
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        url: String,
        folder: PathBuf,
        adapter_id: Option<&str>,
        token_file: Option<PathBuf>,
        tls_ca: Option<PathBuf>,
        tls_cert: Option<PathBuf>,
        tls_key: Option<PathBuf>,
        insecure: bool,
        timeout: f64,
        patience: f64,
        proof_timeout: f64,
        moved: bool,
    ) -> Result<Session, Failure> {
        let seconds = |name: &str, value: f64| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| Failure::Input(format!("{name}={value}: expected seconds")))
        };
        if tls_cert.is_some() != tls_key.is_some() {
            return Err(Failure::Input(
                "a client certificate needs both tls_cert and tls_key".into(),
            ));
        }
        let options = ContributorOptions {
            url: url.clone(),
            pin: adapter_id.map(parse_id).transpose()?,
            token_file,
            tls: ClientTls { ca: tls_ca, identity: tls_cert.zip(tls_key) },
            insecure,
            call_timeout: seconds("timeout", timeout)?,
            patience: seconds("patience", patience)?,
            proof_timeout: seconds("proof_timeout", proof_timeout)?,
            moved,
        };
        worker::run(py, None, move |_| {
            let remote = Remote::connect(options, &globals::network()?)?;
            let manifest = Arc::new(remote.manifest.clone());
            let session = UserSession::open(remote, &folder)?;
            let id = *session.id();
            let shared = Shared {
                session: Mutex::new(Some(session)),
                closed: AtomicBool::new(false),
                finished: OnceLock::new(),
            };
            Ok(Session { session: Arc::new(shared), manifest, url, id, folder })
        })
    }

    /// Sends rows of several modules in one message; arrays that are the same object are sent once.
    /// Returns immediately: [`Pending::result`] waits for the answer.
    fn submit(
        &self,
        py: Python<'_>,
        calls: Vec<(String, Vec<Rows<'_>>)>,
    ) -> Result<Pending, Failure> {
        process::check_process()?;
        let calls = self.quantized(py, &calls)?;
        let (shared, manifest) = (Arc::clone(&self.session), Arc::clone(&self.manifest));
        let work = worker::start(move |_| {
            let deltas = shared.deltas(&calls)?;
            let each = calls.iter().zip(deltas).map(|((at, rows), delta)| {
                let (module, scales) = (&manifest.modules()[*at], &rows.scales);
                let values =
                    zklora_artifacts::module_quantizer::dequantized(module, scales, &delta);
                (values, module.d_out)
            });
            Ok(each.collect())
        })?;
        Ok(Pending(Mutex::new(Some(work))))
    }

    /// Ends the session: requests the contributor's proof of all rows, verifies it, and closes the
    /// session. A repeated call returns the same report, so that the verdict is not lost if
    /// `progress` raised an exception.
    ///
    /// If there is no proof, because the contributor is not reachable, the session stays open and
    /// the call can be repeated.
    #[pyo3(signature = (progress=None))]
    fn finish<'py>(
        &self,
        py: Python<'py>,
        progress: Option<Py<PyAny>>,
    ) -> Result<Bound<'py, PyDict>, Failure> {
        let shared = Arc::clone(&self.session);
        let finished = worker::run(py, progress.as_ref(), move |told| {
            let srs = globals::srs()?;
            let mut tell = |progress| match progress {
                Progress::Queued(ahead) => told.step(format!("{ahead} proofs before ours"), 0, 3),
                Progress::Proving => told.step("proving", 1, 3),
                Progress::Verifying => told.step("verifying", 2, 3),
            };
            let ended = shared.with(|session| {
                if shared.finished.get().is_none() {
                    let finished =
                        session.finish(&srs, globals::keys(), SrsPolicy::TrustedOnly, &mut tell)?;
                    let _ = shared.finished.set(finished);
                }
                Ok(())
            });
            // An earlier call may have verified the proof, maybe after it was interrupted.
            let Some(finished) = shared.finished.get().cloned() else {
                return Err(ended.err().unwrap_or(Failure::Closed(CLOSED)));
            };
            shared.close();
            told.step("verified", 3, 3);
            Ok(finished)
        })?;
        let report = PyDict::new(py);
        report.set_item("proof_bytes", finished.proof_bytes)?;
        report.set_item("proof_seconds", finished.proof_time.as_secs_f64())?;
        report.set_item("verify_seconds", finished.verify_time.as_secs_f64())?;
        report.set_item(
            "rows",
            finished.verdict.rows.into_iter().filter(|(_, rows)| *rows > 0).collect::<Vec<_>>(),
        )?;
        report.set_item("ceremony", finished.verdict.ceremony.to_string())?;
        Ok(report)
    }

    /// The user's record so far, in a file that is removed with it.
    fn trace(&self, py: Python<'_>) -> Result<Trace, Failure> {
        let (shared, manifest) = (Arc::clone(&self.session), Arc::clone(&self.manifest));
        worker::run(py, None, move |_| {
            shared.with(|session| Ok(Trace::read_by(session.trace_file()?, manifest)))
        })
    }

    /// Number of answered rows of all modules, which the proof will cover.
    #[getter]
    fn rows(&self, py: Python<'_>) -> Result<usize, Failure> {
        let shared = Arc::clone(&self.session);
        worker::run(py, None, move |_| shared.with(|session| Ok(session.rows())))
    }

    /// Calls, rows and bytes so far.
    fn statistics<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>, Failure> {
        let shared = Arc::clone(&self.session);
        let known =
            worker::run(py, None, move |_| shared.with(|session| Ok(session.statistics.clone())))?;
        let report = PyDict::new(py);
        report.set_item("calls", known.calls)?;
        report.set_item("rows", known.rows)?;
        report.set_item("rows_reused", known.reused)?;
        report.set_item("bytes_sent", known.sent)?;
        report.set_item("bytes_received", known.received)?;
        report.set_item("seconds", known.call_seconds)?;
        Ok(report)
    }

    /// Closes the session without a proof and without waiting for other threads. Its record stays
    /// in the folder, and a new session there resumes from it.
    fn close(&self, py: Python<'_>) -> Result<(), Failure> {
        process::check_process()?;
        py.detach(|| self.session.close());
        Ok(())
    }

    /// The manifest of the contributor's adapter.
    #[getter]
    fn manifest(&self) -> Manifest {
        Arc::clone(&self.manifest).into()
    }

    /// The session id, 64 hex digits.
    #[getter]
    fn session_id(&self) -> String {
        hex::encode(self.id)
    }

    /// The contributor's URL.
    #[getter]
    fn url(&self) -> &str {
        &self.url
    }

    /// The folder of the record.
    #[getter]
    fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    fn __repr__(&self) -> String {
        format!("Session({}, adapter {})", self.url, self.manifest.id())
    }
}

impl Session {
    /// The rows as integers. Modules that read the same array with the same widths share them.
    fn quantized(
        &self,
        py: Python<'_>,
        calls: &[(String, Vec<Rows<'_>>)],
    ) -> Result<Vec<(usize, Arc<ModuleRows>)>, Failure> {
        let mut known: Vec<(InputKey, Arc<ModuleRows>)> = Vec::new();
        let mut quantized = Vec::with_capacity(calls.len());
        for (name, inputs) in calls {
            let at = trace::index(&self.manifest, name)?;
            let module = &self.manifest.modules()[at];
            arrays::check(module, inputs)?;
            let slices = inputs
                .iter()
                .map(|rows| arrays::values(name, rows))
                .collect::<Result<Vec<_>, _>>()?;
            let slices_of_inputs = slices
                .iter()
                .zip(&module.inputs)
                .map(|(slice, input)| (slice.as_ptr(), slice.len(), input.dim));
            let key = (slices_of_inputs.collect(), module.x_bits, module.has_bias());
            let rows = match known.iter().find(|(other, _)| *other == key) {
                Some((_, rows)) => Arc::clone(rows),
                None => {
                    let rows = Arc::new(py.detach(|| {
                        zklora_artifacts::module_quantizer::quantized(module, &slices)
                    })?);
                    known.push((key, Arc::clone(&rows)));
                    rows
                }
            };
            quantized.push((at, rows));
        }
        Ok(quantized)
    }
}

/// Identifies quantised rows: address, number of values and features of each input, and how they
/// are quantised. (Arrays with the same address may have different lengths.)
type InputKey = (Vec<(*const f32, usize, usize)>, u32, bool);

impl Drop for Session {
    fn drop(&mut self) {
        if process::is_forked() {
            // The session belongs to threads of the parent, so do not wait for them.
            std::mem::forget(Arc::clone(&self.session));
        }
    }
}

/// The deltas of each call, with their number of features.
type Deltas = Vec<(Vec<f32>, usize)>;

/// Rows that were sent, and the deltas to come.
#[pyclass(frozen, module = "zklora._native")]
pub struct Pending(Mutex<Option<Work<Deltas>>>);

#[pymethods]
impl Pending {
    /// Waits for the deltas, float32 `[rows, d_out]` for each call. Can be called once.
    fn result<'py>(&self, py: Python<'py>) -> Result<Vec<Bound<'py, PyArray2<f32>>>, Failure> {
        let work = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let work = work.ok_or(Failure::Closed("the result was taken already"))?;
        let deltas = work.wait(py, None)?;
        Ok(deltas
            .into_iter()
            .map(|(values, width)| arrays::to_python(py, values, width))
            .collect::<PyResult<_>>()?)
    }
}
