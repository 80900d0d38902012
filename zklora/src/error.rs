//! One error for all of the crate.

/// Why something was not verified, proven or compiled. The text says what is wrong, where, and what
/// to do.
///
/// Any error of a verification means that nothing was shown. [`Error::is_refusal`] tells a "no"
/// from an input that cannot be used; only the latter is worth another try, with another input.
///
/// ```
/// let error = "not hex".parse::<zklora::SessionId>().unwrap_err();
/// assert_eq!(error.to_string(), "`not hex` is not an id: that is 64 hex digits");
/// assert!(!error.is_refusal());
/// ```
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] Inner);

/// What the crates below report, and what this one adds.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Inner {
    #[error(transparent)]
    File(#[from] zklora_files::Error),
    #[error(transparent)]
    Proof(#[from] zklora_proof::Error),
    #[error(transparent)]
    Artifact(#[from] zklora_artifacts::Error),
    #[cfg(feature = "prove")]
    #[error(transparent)]
    Session(#[from] zklora_session::Error),
    #[cfg(feature = "compile")]
    #[error(transparent)]
    Adapter(#[from] zklora_models::Error),
    #[cfg(feature = "compile")]
    #[error(transparent)]
    Runtime(#[from] zklora_runtime::Error),
    #[error("`{0}` is not an id: that is 64 hex digits")]
    Id(String),
    #[cfg(feature = "compile")]
    #[error(
        "the opening is of adapter {found}, not of {expected}: ask for the one of your adapter"
    )]
    Opening { found: String, expected: String },
}

impl Error {
    /// Whether the answer is "no": a proof that does not verify, a manifest that is not the pinned
    /// one, a trace of another session, a false statement to prove. Otherwise an input cannot be
    /// used, such as a file that does not exist.
    pub fn is_refusal(&self) -> bool {
        match &self.0 {
            Inner::Proof(error) => error.is_refusal(),
            Inner::Artifact(error) => error.is_refusal(),
            #[cfg(feature = "prove")]
            Inner::Session(error) => error.is_refusal(),
            #[cfg(feature = "compile")]
            Inner::Runtime(error) => error.is_refusal(),
            #[cfg(feature = "compile")]
            Inner::Opening { .. } => true,
            #[cfg(feature = "compile")]
            Inner::Adapter(_) => false,
            Inner::File(_) | Inner::Id(_) => false,
        }
    }
}
