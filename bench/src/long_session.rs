//! Measures a session of very many rows of one narrow module (64×4×64): each part in a process of
//! its own, whose peak memory counts.
//!
//! Both ways are measured: rows from a source of activations to a trace file, its proof and its
//! verification; and a session over loopback, with the server's process and the user's.

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use zklora_artifacts::{
    activation_source::read_inputs,
    folder::{Artifacts, Public},
    module_quantizer::quantized_from,
    own_session::OwnSession,
    srs_file,
    synthetic::Synthetic,
    trace_reader::TraceReader,
    verify,
};
use zklora_files::Access;
use zklora_proof::{
    commit::commit, cost::best_k, keys::KeyStore, masks::Seed, srs::Srs, verifier::SrsPolicy,
};
use zklora_runtime::{compile, process::peak_memory};
use zklora_session::{
    client::{ClientTls, ContributorOptions, Network, Remote, UserSession},
    prove, record,
    server::{self, Limits, RowService, ServerOptions},
};

use crate::{
    Error,
    proof_bench::{Profile, synthetic_draft, synthetic_pairs},
};

/// Rows of a batch.
const BATCH: usize = 4096;
/// The file in which the server writes its address.
const URL: &str = "url";

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LongPart {
    /// Makes the adapter.
    Commit,
    /// Activations to a trace file, as `zklora trace record`.
    Record,
    /// The proof, as `zklora prove`.
    Prove,
    /// Verification with the user's own activations, as `zklora verify --inputs`.
    Verify,
    /// The server, as `zklora serve`, until its standard input ends.
    Serve,
    /// The user of that server: sends the rows, ends the session, and verifies its proof.
    Use,
}

impl LongPart {
    /// The parts that are measured, in the order in which they need each other's files.
    pub const MEASURED: [LongPart; 5] =
        [LongPart::Record, LongPart::Prove, LongPart::Verify, LongPart::Serve, LongPart::Use];
}

impl std::fmt::Display for LongPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            LongPart::Commit => "commit",
            LongPart::Record => "record",
            LongPart::Prove => "prove",
            LongPart::Verify => "verify",
            LongPart::Serve => "server",
            LongPart::Use => "user",
        })
    }
}

/// The work of one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LongTask {
    /// What it does.
    pub long: LongPart,
    /// Rows.
    pub rows: usize,
    /// The folder for the files of all parts.
    pub folder: PathBuf,
    /// An SRS file instead of the Ethereum ceremony.
    pub srs: Option<PathBuf>,
}

/// What a process measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LongFigures {
    /// Wall time of the part, without its start.
    pub seconds: f64,
    /// Largest resident memory of the process.
    pub peak_memory: Option<u64>,
}

impl LongTask {
    /// Does the work in this process.
    ///
    /// # Errors
    /// Those of the library calls.
    pub fn run(&self) -> Result<LongFigures, Error> {
        let srs = srs_file::load(self.srs.as_deref())?;
        let start = Instant::now();
        match self.long {
            LongPart::Commit => self.commit(&srs)?,
            LongPart::Record => self.record(&srs)?,
            LongPart::Prove => self.prove(&srs)?,
            LongPart::Verify => self.verify(&srs)?,
            LongPart::Serve => self.serve(srs)?,
            LongPart::Use => self.use_server(&srs)?,
        }
        Ok(LongFigures { seconds: start.elapsed().as_secs_f64(), peak_memory: peak_memory() })
    }

    /// Waits for the server of the same folder.
    ///
    /// # Errors
    /// It does not start within a minute.
    pub fn wait_for_server(&self) -> Result<(), Error> {
        let (path, start) = (self.folder.join(URL), Instant::now());
        while !path.exists() {
            if start.elapsed() > Duration::from_secs(60) {
                return Err(Error::input("the server does not start"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn artifacts(&self) -> PathBuf {
        self.folder.join("artifacts")
    }

    fn loaded(&self, srs: &Srs) -> Result<Artifacts, Error> {
        Ok(Artifacts::load(&self.artifacts(), srs, &KeyStore::default())?)
    }

    fn trace(&self) -> PathBuf {
        self.folder.join("trace.safetensors")
    }

    fn proof(&self) -> PathBuf {
        self.folder.join("session.pf")
    }

    fn activations(&self) -> Synthetic {
        Synthetic { rows: self.rows }
    }

    fn commit(&self, srs: &Srs) -> Result<(), Error> {
        let profile = Profile::narrow_module();
        let pairs = synthetic_pairs(&profile);
        let mut draft = synthetic_draft(&profile, &pairs, srs.k())?;
        draft.k = best_k(&draft, srs.k())?;
        let seed = Seed::generate()?;
        let committed = commit(srs, &draft, pairs, &seed)?;
        compile::write_committed(&self.artifacts(), committed, &seed, srs, &KeyStore::default())?;
        Ok(())
    }

    fn record(&self, srs: &Srs) -> Result<(), Error> {
        let artifacts = self.loaded(srs)?;
        record::record_to(&artifacts, &self.activations(), None, None, &self.trace())?;
        Ok(())
    }

    fn prove(&self, srs: &Srs) -> Result<(), Error> {
        let artifacts = self.loaded(srs)?;
        let trace = TraceReader::trace(&self.trace(), &artifacts.manifest)?;
        let proof = prove::prove(&artifacts, &trace, srs, &KeyStore::default())?;
        Ok(zklora_files::write(&self.proof(), &proof, Access::Public)?)
    }

    fn verify(&self, srs: &Srs) -> Result<(), Error> {
        let keys = KeyStore::default();
        let public = Public::load(&self.artifacts().join("public"), None, srs, &keys)?;
        let trace = TraceReader::trace(&self.trace(), &public.manifest)?;
        let proof = zklora_files::read(&self.proof(), verify::MAX_PROOF)?;
        let activations = self.activations();
        let own = OwnSession { id: None, inputs: Some(&activations) };
        let policy = SrsPolicy::AllowUntrusted;
        verify::verify(&public.manifest, &trace, &own, &proof, srs, &keys, policy)?;
        Ok(())
    }

    fn serve(&self, srs: Srs) -> Result<(), Error> {
        let options = ServerOptions {
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            tokens: None,
            insecure: false,
            metrics: None,
            data: self.folder.join("data"),
            limits: Limits { rows: RowService::Unlimited, ..Limits::default() },
        };
        let artifacts = self.loaded(&srs)?;
        let listening = server::start(artifacts, srs, KeyStore::default(), &options)?;
        let url = format!("http://{}", listening.address);
        zklora_files::write(&self.folder.join(URL), url.as_bytes(), Access::Private)?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            // Ends with the process that started this one, too.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = stop.send(());
        });
        listening.run_until(async {
            let _ = stopped.await;
        })?;
        Ok(())
    }

    fn use_server(&self, srs: &Srs) -> Result<(), Error> {
        let url = String::from_utf8(zklora_files::read(&self.folder.join(URL), 1 << 10)?)
            .map_err(|_| Error::input("the server's address is not text"))?;
        let options = ContributorOptions {
            url,
            pin: None,
            token_file: None,
            tls: ClientTls::default(),
            insecure: false,
            call_timeout: Duration::from_secs(60),
            patience: Duration::ZERO,
            proof_timeout: Duration::from_secs(3600),
            moved: false,
        };
        let remote = Remote::connect(options, &Arc::new(Network::start()?))?;
        let mut session = UserSession::open(remote, &self.folder.join("session"))?;
        let module = session.remote().manifest.modules()[0].clone();
        let activations = self.activations();
        for first in (0..self.rows).step_by(BATCH) {
            let rows = first..self.rows.min(first + BATCH);
            let inputs = read_inputs(&activations, &module, &rows)?;
            let inputs: Vec<&[f32]> = inputs.iter().map(|values| &**values).collect();
            session.deltas(&[(0, Arc::new(quantized_from(&module, first, &inputs)?))])?;
        }
        let (keys, policy) = (KeyStore::default(), SrsPolicy::AllowUntrusted);
        let finished = session.finish(srs, &keys, policy, &mut |_| {})?;
        match finished.verdict.rows.iter().map(|(_, rows)| rows).sum::<usize>() {
            rows if rows == self.rows => Ok(()),
            rows => Err(Error::input(format!("{rows} rows were proven of {}", self.rows))),
        }
    }
}

/// Removes the files of a session, but for the adapter.
///
/// # Errors
/// A file cannot be removed.
pub fn forget_session(folder: &Path) -> Result<(), Error> {
    for name in [URL, "trace.safetensors", "session.pf"] {
        zklora_files::remove(&folder.join(name))?;
    }
    for name in ["session", "data"] {
        let path = folder.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(|e| Error::file(&path, e))?;
        }
    }
    Ok(())
}
