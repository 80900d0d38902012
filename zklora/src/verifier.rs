//! The user's side: verifying a session.

use std::path::Path;

use zklora_artifacts::{
    activation_file::ActivationFile,
    activation_source::ActivationSource,
    folder::Public,
    own_session::OwnSession,
    srs_file,
    trace_reader::TraceReader,
    verify::{self, MAX_PROOF},
};
use zklora_proof::{keys::KeyStore, srs::Srs, verifier::SrsPolicy};

use crate::{AdapterId, Error, SessionId, error::Inner};

/// Verifies sessions. It keeps what is the same for all of them: make one, and use it from any
/// thread.
///
/// Calls block, and use all cores: in an async service, call from its pool for blocking work. A
/// verification reads the trace in pieces, so it needs little memory whatever its size. Checked
/// points of pinned manifests are kept in `$ZKLORA_CACHE_DIR` (`~/.cache/zklora`), which makes the
/// next verification of the same adapter faster.
///
/// ```
/// let verifier = zklora::Verifier::ethereum()?;
/// assert_eq!(verifier.ceremony(), zklora::Ceremony::Ethereum);
/// # Ok::<(), zklora::Error>(())
/// ```
pub struct Verifier {
    pub(crate) srs: Srs,
    pub(crate) keys: KeyStore,
    policy: SrsPolicy,
}

/// The ceremony whose secret the soundness of every proof rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ceremony {
    /// The Ethereum KZG ceremony of 2023: one honest contributor of 141,416 suffices.
    Ethereum,
    /// Another one. The party that knows its secret can prove any statement.
    Unknown,
}

impl std::fmt::Display for Ceremony {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Ceremony::Ethereum => "Ethereum KZG ceremony (2023, 141,416 contributors)",
            Ceremony::Unknown => "unknown ceremony: insecure unless you know who made its file",
        })
    }
}

/// What an accepted proof says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// The adapter that computed every delta of the trace.
    pub adapter: AdapterId,
    /// The session.
    pub session: SessionId,
    /// Rows of every module. Nothing is claimed about a module without rows.
    pub rows: Vec<(String, usize)>,
    /// The ceremony that the verdict rests on.
    pub ceremony: Ceremony,
}

impl Verdict {
    /// Rows of all modules together.
    pub fn total_rows(&self) -> usize {
        self.rows.iter().map(|(_, rows)| rows).sum()
    }
}

impl Verifier {
    /// Trusts the Ethereum KZG ceremony of 2023, which is part of this crate, and no other.
    ///
    /// # Errors
    /// The build is damaged.
    pub fn ethereum() -> Result<Verifier, Error> {
        Ok(Verifier {
            srs: srs_file::load(None).map_err(Inner::from)?,
            keys: KeyStore::default(),
            policy: SrsPolicy::TrustedOnly,
        })
    }

    /// Trusts the ceremony of a file, in the JSON format of Ethereum's consensus specifications.
    /// The party that knows its secret can prove anything.
    ///
    /// # Errors
    /// The file holds no valid ceremony.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = &dir.path().join("ceremony.json");
    /// std::fs::write(path, "{}").unwrap();
    /// assert!(zklora::Verifier::insecure_with_ceremony(path).is_err());
    /// ```
    pub fn insecure_with_ceremony(file: &Path) -> Result<Verifier, Error> {
        Ok(Verifier {
            srs: srs_file::load(Some(file)).map_err(Inner::from)?,
            keys: KeyStore::default(),
            policy: SrsPolicy::AllowUntrusted,
        })
    }

    /// The ceremony that verdicts rest on.
    pub fn ceremony(&self) -> Ceremony {
        if self.srs.provenance().is_trusted() { Ceremony::Ethereum } else { Ceremony::Unknown }
    }

    /// Verifies the proof of a session of which this user recorded the trace.
    ///
    /// A trace from another party can hold rows that the user never sent: use
    /// [`Verifier::verify_inputs`] for it.
    ///
    /// * `pin`: the id that the user had before the session. A later id shows next to nothing: an
    ///   adapter for a few known rows is easily made.
    /// * `session_id`: the id that the user drew.
    /// * `public`: the folder `public` of the artifacts, or the folder that holds it.
    /// * `trace`: the user's own trace, `.safetensors`.
    /// * `proof`: the proof, `.pf`.
    ///
    /// # Errors
    /// [`Error::is_refusal`] tells a "no" from files that cannot be used.
    ///
    /// ```
    /// # use std::path::Path;
    /// # let session = &Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/session");
    /// let verifier = zklora::Verifier::ethereum()?;
    /// let (public, trace) = (session.join("public"), session.join("trace.safetensors"));
    /// let proof = session.join("session.pf");
    /// let pin = "514cb3aaeb990f228033d3619571550e59cc0da546f6db3793c9ecfe4caae3e7".parse()?;
    /// let id = "ce4a8b2582d104f3d37c588b050dbfdfb848f9bc9e3864c1f3dd8bd4819577cc".parse()?;
    ///
    /// let verdict = verifier.verify(&pin, &id, &public, &trace, &proof)?;
    /// assert_eq!(verdict.adapter, pin);
    ///
    /// // The same proof for another session is refused.
    /// let other = zklora::SessionId::random()?;
    /// let refused = verifier.verify(&pin, &other, &public, &trace, &proof).unwrap_err();
    /// assert!(refused.is_refusal());
    /// # Ok::<(), zklora::Error>(())
    /// ```
    pub fn verify(
        &self,
        pin: &AdapterId,
        session_id: &SessionId,
        public: &Path,
        trace: &Path,
        proof: &Path,
    ) -> Result<Verdict, Error> {
        self.verify_own(pin, session_id, None, public, trace, proof)
    }

    /// [`Verifier::verify`] for a trace that the contributor recorded: its activations must be
    /// those of `inputs`, a `.safetensors` file with a tensor `<module>.<input>` for each
    /// input.
    ///
    /// # Errors
    /// Those of [`Verifier::verify`], and a refusal if the activations differ.
    ///
    /// ```
    /// # use std::path::Path;
    /// # let session = &Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/session");
    /// # let pin = "514cb3aaeb990f228033d3619571550e59cc0da546f6db3793c9ecfe4caae3e7".parse()?;
    /// # let id = "ce4a8b2582d104f3d37c588b050dbfdfb848f9bc9e3864c1f3dd8bd4819577cc".parse()?;
    /// let verdict = zklora::Verifier::ethereum()?.verify_inputs(
    ///     &pin,
    ///     &id,
    ///     &session.join("inputs.safetensors"),
    ///     &session.join("public"),
    ///     &session.join("trace.safetensors"),
    ///     &session.join("session.pf"),
    /// )?;
    /// assert_eq!(verdict.adapter, pin);
    /// # Ok::<(), zklora::Error>(())
    /// ```
    pub fn verify_inputs(
        &self,
        pin: &AdapterId,
        session_id: &SessionId,
        inputs: &Path,
        public: &Path,
        trace: &Path,
        proof: &Path,
    ) -> Result<Verdict, Error> {
        self.verify_own(pin, session_id, Some(inputs), public, trace, proof)
    }

    fn verify_own(
        &self,
        pin: &AdapterId,
        session_id: &SessionId,
        inputs: Option<&Path>,
        public: &Path,
        trace: &Path,
        proof: &Path,
    ) -> Result<Verdict, Error> {
        let (pin, srs, keys) = (pin.inner(), &self.srs, &self.keys);
        let verified = || -> Result<_, zklora_artifacts::Error> {
            let Public { manifest } = Public::load(public, Some(&pin), srs, keys)?;
            let id = Some(session_id.to_bytes());
            let trace = TraceReader::trace(trace, &manifest)?;
            // A session of another id is refused before the inputs are read.
            OwnSession { id, inputs: None }.check_id(trace.context())?;
            let open = |path| ActivationFile::open(path, manifest.modules(), None);
            let inputs = inputs.map(open).transpose()?;
            let inputs = inputs.as_ref().map(|inputs| inputs as &dyn ActivationSource);
            let own = OwnSession { id, inputs };
            let proof = zklora_files::read(proof, MAX_PROOF)?;
            verify::verify(&manifest, &trace, &own, &proof, srs, keys, self.policy)
        };
        let verdict = verified().map_err(Inner::from)?;
        Ok(Verdict {
            adapter: verdict.adapter.0.into(),
            session: *session_id,
            rows: verdict.rows,
            ceremony: self.ceremony(),
        })
    }
}
