//! Why an SRS, a manifest, a trace, weights or a proof is refused: one variant for each cause.

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The structured reference string is invalid.
    #[error("SRS refused: {0}")]
    Srs(String),
    /// The structured reference string is valid, but its ceremony is not one that the caller's
    /// [`SrsPolicy`](crate::verifier::SrsPolicy) accepts. Holds the name of the ceremony.
    #[error("SRS refused: {0}")]
    UntrustedSrs(String),
    /// The manifest is malformed or breaks a rule (docs/protocol.md, "Manifest and adapter id").
    #[error("manifest refused: {0}")]
    Manifest(String),
    /// The manifest is not the pinned one.
    #[error(
        "this manifest has adapter id {found}, but {pinned} was pinned: ask the contributor for the manifest that you pinned"
    )]
    Pin {
        /// The id that the user pinned.
        pinned: String,
        /// The id of the manifest at hand.
        found: String,
    },
    /// The text is not an adapter id.
    #[error("`{0}` is not an adapter id: an adapter id has 64 hex digits")]
    AdapterId(String),
    /// The manifest was made for another SRS.
    #[error(
        "the manifest was made for the SRS {manifest}, this side uses {own}: pass the same SRS on both sides"
    )]
    SrsMismatch {
        /// Digest that the manifest names.
        manifest: String,
        /// Digest of the SRS at hand.
        own: String,
    },
    /// The weights do not fit the manifest.
    #[error("weights refused: {0}")]
    Weights(String),
    /// The trace breaks a range or a shape, or its rows changed between two readings.
    #[error("trace refused: {0}")]
    Trace(String),
    /// A delta of the trace is beyond the bound that the manifest certifies: no adapter of that
    /// manifest computes it.
    #[error(
        "trace refused: module `{module}`: row {row}: delta {delta} is outside the certified bound 2^{delta_bits}"
    )]
    BeyondBound {
        /// Module name.
        module: String,
        /// Row within the module.
        row: usize,
        /// The delta in the trace.
        delta: i64,
        /// The manifest's bound, as a power of two.
        delta_bits: u32,
    },
    /// The prover was asked to prove a false statement. Nothing was published.
    #[error(
        "module {module}, row {row}, output {output}: the trace says delta {claimed}, the adapter computes {computed}: nothing is proven"
    )]
    FalseTrace {
        /// Module name.
        module: String,
        /// Row within the module.
        row: usize,
        /// Output feature.
        output: usize,
        /// The delta in the trace.
        claimed: i64,
        /// The delta that the adapter computes.
        computed: i64,
    },
    /// The bytes are not a proof of this layout.
    #[error("proof malformed at its part `{part}`: {why}")]
    Malformed {
        /// Which part of the proof.
        part: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The proof is well-formed and fails a check.
    #[error("proof rejected by the check `{0}`")]
    Rejected(Check),
    /// The proving library returned an error that no input should cause.
    #[error("the proving library failed: {0}")]
    Library(String),
    /// The program violates one of its own invariants: a bug, or a caller that skipped a check.
    ///
    /// Returned by [`Keys::generate`](crate::keys::Keys::generate) for a layout of another size
    /// than the SRS, by [`argument::verify`](crate::argument::verify) for public columns that do
    /// not fit the layout, by [`Srs::ethereum`](crate::srs::Srs::ethereum) if the embedded
    /// parameters are damaged, and where a manifest or settings cannot be serialised. Callers
    /// also use it for a panic that they caught in this crate.
    #[error("internal error: {0}; please report it")]
    Internal(String),
    /// The operating system gave no randomness.
    #[error("the operating system's random generator failed: {0}")]
    Randomness(String),
}

impl Error {
    /// Whether the error rejects a claim. Other errors mean an unusable input, or a failure of this
    /// program or of the machine.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Error::Pin { .. }
                | Error::SrsMismatch { .. }
                | Error::FalseTrace { .. }
                | Error::Malformed { .. }
                | Error::Rejected(_)
                | Error::BeyondBound { .. }
                | Error::Srs(_)
                | Error::UntrustedSrs(_)
        )
    }
}

/// The checks of the verifier that depend on every byte of a well-formed proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// The re-randomised columns differ from the manifest's combination on mask rows only
    /// (docs/protocol.md, "Mask span").
    MaskSpan,
    /// The relations hold for the committed columns (docs/protocol.md, "Relations" and "Circuit"):
    /// halo2's identities and the KZG opening, which the library decides together, in one pairing.
    Relations,
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Check::MaskSpan => {
                "mask span: the combined columns are the pinned manifest's, re-randomised"
            }
            Check::Relations => "relations: the deltas are what the committed adapter computes",
        })
    }
}

pub(crate) fn manifest(why: impl Into<String>) -> Error {
    Error::Manifest(why.into())
}
