//! The contributor's side: an adapter with its private part.

use std::path::{Path, PathBuf};

use zklora_artifacts::{
    activation_file::ActivationFile, folder::Artifacts, srs_file, trace_reader::TraceReader,
};
use zklora_files::Access;
use zklora_proof::{keys::KeyStore, srs::Srs};
use zklora_session::{prove, record};

use crate::{AdapterId, Error, SessionId, error::Inner};

/// An adapter in an artifact folder: the public part that users get, and the private weights and
/// masks.
///
/// ```no_run
/// # use std::path::Path;
/// let adapter = zklora::Adapter::open(Path::new("artifacts"))?;
/// println!("users pin {}", adapter.id());
/// # Ok::<(), zklora::Error>(())
/// ```
pub struct Adapter {
    artifacts: Artifacts,
    srs: Srs,
    keys: KeyStore,
}

impl Adapter {
    /// Opens a folder that [`Adapter::compile`] or `zklora compile` wrote.
    ///
    /// # Errors
    /// A file is missing or damaged, or the parts belong to different adapters.
    pub fn open(folder: &Path) -> Result<Adapter, Error> {
        let (srs, keys) = (srs_file::load(None).map_err(Inner::from)?, KeyStore::default());
        let artifacts = Artifacts::load(folder, &srs, &keys).map_err(Inner::from)?;
        Ok(Adapter { artifacts, srs, keys })
    }

    /// Writes a PEFT folder as ONNX, one file for each submodule. `base` is the folder of the base
    /// model, which DoRA and VeRA need.
    ///
    /// # Errors
    /// The adapter cannot be read, or is of a kind that is not supported.
    #[cfg(feature = "compile")]
    pub fn export(peft: &Path, base: Option<&Path>, onnx: &Path) -> Result<(), Error> {
        let adapter = zklora_models::Adapter::load_with_base(peft, base).map_err(Inner::from)?;
        zklora_models::export(&adapter, &[], onnx).map_err(Inner::from)?;
        Ok(())
    }

    /// Compiles ONNX files, or folders that [`Adapter::export`] wrote, and commits to the adapter.
    /// Writes `public/` and `private/` to `out`. The same inputs in the same folder give the same
    /// adapter id.
    ///
    /// # Errors
    /// A graph is not linear in its inputs, or the folder holds another adapter that has served
    /// rows.
    ///
    /// ```no_run
    /// # use std::path::{Path, PathBuf};
    /// use zklora::Adapter;
    ///
    /// Adapter::export(Path::new("my-lora"), None, Path::new("onnx"))?;
    /// let adapter = Adapter::compile(&[PathBuf::from("onnx")], Path::new("artifacts"))?;
    /// println!("users pin {}", adapter.id());
    /// # Ok::<(), zklora::Error>(())
    /// ```
    #[cfg(feature = "compile")]
    pub fn compile(onnx: &[PathBuf], out: &Path) -> Result<Adapter, Error> {
        use zklora_runtime::compile::{Options, compile};
        let (srs, keys) = (srs_file::load(None).map_err(Inner::from)?, KeyStore::default());
        let options = Options {
            paths: onnx,
            out,
            seed_file: None,
            calibrate: None,
            registered: false,
            k: None,
        };
        let artifacts = compile(&options, &srs, &keys).map_err(Inner::from)?.artifacts;
        Ok(Adapter { artifacts, srs, keys })
    }

    /// The adapter id, which users pin before a session.
    pub fn id(&self) -> AdapterId {
        self.artifacts.manifest.id().0.into()
    }

    /// The folder that users get.
    pub fn public_folder(&self) -> PathBuf {
        self.artifacts.folder.join("public")
    }

    /// Computes the deltas of a session's activations and writes the trace. The rows are counted in
    /// the adapter's ledger before it is written. Returns the number of rows.
    ///
    /// # Errors
    /// The activations do not fit the adapter, or the ledger has this session id already.
    pub fn record(
        &self,
        session_id: &SessionId,
        inputs: &Path,
        trace: &Path,
    ) -> Result<usize, Error> {
        let record = || -> Result<usize, zklora_session::Error> {
            zklora_files::require_folder_of(trace)?;
            let inputs = ActivationFile::open(inputs, self.artifacts.manifest.modules(), None)?;
            let session = Some(session_id.to_bytes());
            let recorded = record::record_to(&self.artifacts, &inputs, session, None, trace)?;
            Ok(recorded.counts.iter().sum())
        };
        Ok(record().map_err(Inner::from)?)
    }

    /// Proves a session that this adapter served, and writes the proof.
    ///
    /// # Errors
    /// The ledger does not have exactly these rows.
    ///
    /// ```no_run
    /// # use std::path::Path;
    /// # let adapter = zklora::Adapter::open(Path::new("artifacts"))?;
    /// # let session_id = zklora::SessionId::random()?;
    /// let (trace, proof) = (Path::new("trace.safetensors"), Path::new("session.pf"));
    /// adapter.record(&session_id, Path::new("activations.safetensors"), trace)?;
    /// adapter.prove(trace, proof)?;
    /// # Ok::<(), zklora::Error>(())
    /// ```
    pub fn prove(&self, trace: &Path, proof: &Path) -> Result<(), Error> {
        let prove = || -> Result<(), zklora_session::Error> {
            zklora_files::require_folder_of(proof)?;
            let trace = TraceReader::trace(trace, &self.artifacts.manifest)?;
            let bytes = prove::prove(&self.artifacts, &trace, &self.srs, &self.keys)?;
            Ok(zklora_files::write(proof, &bytes, Access::Public)?)
        };
        Ok(prove().map_err(Inner::from)?)
    }
}
