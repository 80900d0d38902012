//! Why a proof cannot be made, or is refused.

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model, the adapter or the sizes are beyond what a proof can show.
    #[error("this cannot be proven: {0}")]
    Unsupported(String),
    /// The statement is malformed.
    #[error("statement refused: {0}")]
    Statement(String),
    /// A value leaves a range of the integer model, or a sum its bounds. It does not say where:
    /// that tells of the activations.
    #[error(
        "not provable: a value leaves a range of the integer model, or a sum is outside its bounds"
    )]
    OutOfRange,
    /// The bytes are no proof of this statement.
    #[error("proof malformed at its part `{part}`: {why}")]
    Malformed {
        /// The part.
        part: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The proof is well-formed, and a check fails.
    #[error("proof rejected: {0}")]
    Rejected(Check),
    /// The integer model refused.
    #[error(transparent)]
    Integer(#[from] zklora_integer::Error),
    /// The proof system refused.
    #[error(transparent)]
    Proof(zklora_proof::Error),
    /// The program violates one of its own invariants.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

/// The checks of the verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// The relations hold for the committed cells and columns: halo2's identities and the KZG
    /// opening, which the library decides together, in one pairing.
    Relations,
    /// A relation between public values only does not hold.
    Public,
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Check::Relations => {
                "relations: the committed values are those that the integer model computes with \
                 the committed adapter, and their sums lie within the bounds"
            }
            Check::Public => "public values: a challenge is zero",
        })
    }
}

impl Error {
    /// Whether a proof was checked and refused.
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::Malformed { .. } | Error::Rejected(_) => true,
            Error::Proof(error) => error.is_refusal(),
            _ => false,
        }
    }

    pub(crate) fn malformed(part: &'static str, why: impl Into<String>) -> Error {
        Error::Malformed { part, why: why.into() }
    }
}

impl From<zklora_proof::Error> for Error {
    fn from(error: zklora_proof::Error) -> Error {
        match error {
            zklora_proof::Error::Rejected(_) => Error::Rejected(Check::Relations),
            zklora_proof::Error::Malformed { part, why } => Error::Malformed { part, why },
            other => Error::Proof(other),
        }
    }
}
