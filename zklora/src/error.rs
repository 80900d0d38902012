//! One error for all of the crate.

/// Why something was not verified, proven or compiled. The text says what is wrong, where, and what
/// to do.
///
/// ```
/// let error = "not hex".parse::<zklora::SessionId>().unwrap_err();
/// assert_eq!(error.to_string(), "`not hex` is not a session id: that is 64 hex digits");
/// assert!(!error.is_refusal());
/// ```
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Inner);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Inner {
    #[error(transparent)]
    Artifact(#[from] zklora_artifacts::Error),
    #[cfg(feature = "prove")]
    #[error(transparent)]
    Session(#[from] zklora_session::Error),
    #[cfg(feature = "compile")]
    #[error(transparent)]
    Runtime(#[from] zklora_runtime::Error),
    #[error("`{0}` is not a session id: that is 64 hex digits")]
    SessionId(String),
    #[cfg(feature = "compile")]
    #[error("the opening is of adapter {found}, not of {pinned}: ask for the one of your adapter")]
    Opening {
        found: zklora_proof::manifest::AdapterId,
        manifest: zklora_proof::manifest::AdapterId,
    },
}

impl Error {
    /// Whether the answer is "no": a proof that does not verify, a manifest that is not the pinned
    /// one, a trace of another session, a false statement to prove. Otherwise an input cannot be
    /// used, such as a file that does not exist.
    pub fn is_refusal(&self) -> bool {
        match &self.0 {
            Inner::Artifact(error) => error.is_refusal(),
            #[cfg(feature = "prove")]
            Inner::Session(error) => error.is_refusal(),
            #[cfg(feature = "compile")]
            Inner::Runtime(error) => error.is_refusal(),
            Inner::SessionId(_) => false,
            #[cfg(feature = "compile")]
            Inner::Opening { .. } => true,
        }
    }
}

impl From<zklora_artifacts::Error> for Error {
    fn from(error: zklora_artifacts::Error) -> Error {
        Error(error.into())
    }
}

#[cfg(feature = "prove")]
impl From<zklora_session::Error> for Error {
    fn from(error: zklora_session::Error) -> Error {
        Error(error.into())
    }
}

#[cfg(feature = "compile")]
impl From<zklora_runtime::Error> for Error {
    fn from(error: zklora_runtime::Error) -> Error {
        Error(error.into())
    }
}

impl From<zklora_files::Error> for Error {
    fn from(error: zklora_files::Error) -> Error {
        zklora_artifacts::Error::from(error).into()
    }
}

impl From<zklora_proof::Error> for Error {
    fn from(error: zklora_proof::Error) -> Error {
        zklora_artifacts::Error::from(error).into()
    }
}

impl From<Inner> for Error {
    fn from(inner: Inner) -> Error {
        Error(inner)
    }
}
