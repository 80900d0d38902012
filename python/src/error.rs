//! Converts errors of the runtime to exceptions of `zklora.errors`.

use pyo3::prelude::*;
use zklora_artifacts::Error as Artifact;
use zklora_compiler::SourceError;
use zklora_files::text::shown;
use zklora_proof::Error as Proof;
use zklora_runtime::Error;
use zklora_session::Error as Session;

/// Why a call failed.
#[derive(Debug)]
pub enum Failure {
    /// An error of the runtime.
    Runtime(Error),
    /// An argument that was refused before the runtime was called.
    Input(String),
    /// The server or session is closed.
    Closed(&'static str),
    /// The process was forked after the threads were started.
    Forked,
    /// A thread ended without a result.
    Lost,
    /// An exception that Python raised: Ctrl-C, or one of a callback.
    Python(PyErr),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Runtime(error)
    }
}

impl From<Session> for Failure {
    fn from(error: Session) -> Failure {
        Failure::Runtime(error.into())
    }
}

impl From<Artifact> for Failure {
    fn from(error: Artifact) -> Failure {
        Failure::Runtime(error.into())
    }
}

impl From<zklora_files::Error> for Failure {
    fn from(error: zklora_files::Error) -> Failure {
        Failure::Runtime(error.into())
    }
}

impl From<zklora_evaluation::Error> for Failure {
    fn from(error: zklora_evaluation::Error) -> Failure {
        Failure::Runtime(error.into())
    }
}

impl From<Proof> for Failure {
    fn from(error: Proof) -> Failure {
        Failure::Runtime(error.into())
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Failure {
        Failure::Python(error)
    }
}

impl Failure {
    /// The class's name in `zklora.errors`, and the message.
    fn class(&self) -> (&'static str, String) {
        match self {
            Failure::Runtime(error) => (class_of(error), error.to_string()),
            Failure::Input(why) => ("InputError", why.clone()),
            Failure::Closed(what) => ("ClosedError", (*what).to_string()),
            Failure::Forked => (
                "ZkloraError",
                "this process was forked from one that had used zklora, and threads do not survive \
                 a fork: start processes with multiprocessing's `spawn` method, or use zklora only \
                 after the fork"
                    .into(),
            ),
            Failure::Lost => (
                "ZkloraError",
                "a thread of zklora ended without a result: please report this, with the message \
                 on standard error"
                    .into(),
            ),
            Failure::Python(error) => ("ZkloraError", error.to_string()),
        }
    }
}

fn class_of(error: &Error) -> &'static str {
    match error {
        Error::Session(Session::Budget(_)) => "InputError",
        Error::Session(Session::Contributor { .. }) | Error::Interrupted(_) => "NetworkError",
        _ if error.is_refusal() => "VerificationError",
        Error::Session(Session::Artifact(Artifact::File(_)))
        | Error::Source(SourceError::File(_)) => "FileError",
        Error::Session(
            Session::Internal(_)
            | Session::System(_)
            | Session::Artifact(Artifact::Proof(
                Proof::Internal(_) | Proof::Library(_) | Proof::Randomness(_),
            )),
        ) => "ZkloraError",
        _ => "InputError",
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> PyErr {
        let failure = match failure {
            Failure::Python(error) => return error,
            other => other,
        };
        let (class, message) = failure.class();
        // The message may quote files and peers: escaped, it is one line without terminal codes.
        let message = shown(message);
        Python::attach(|py| {
            let raised = || py.import("zklora.errors")?.getattr(class)?.call1((message,));
            match raised() {
                Ok(exception) => PyErr::from_value(exception),
                // The package cannot be imported, for example at the interpreter's end.
                Err(error) => error,
            }
        })
    }
}
