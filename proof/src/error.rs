//! Why a statement, a manifest, a trace or a proof is refused: one variant a reason.

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The structured reference string is not one.
    #[error("SRS refused: {0}")]
    Srs(String),
    /// The manifest is malformed or breaks a rule of protocol section 4 or 5.
    #[error("manifest refused: {0}")]
    Manifest(String),
    /// The manifest is not the one that was pinned.
    #[error(
        "this manifest has adapter id {found}, but {pinned} was pinned: ask the contributor for the manifest that you pinned"
    )]
    Pin {
        /// The id that the user pinned.
        pinned: String,
        /// The id of the manifest at hand.
        found: String,
    },
    /// Not an adapter id.
    #[error("`{0}` is not an adapter id: that is 64 hex digits")]
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
    /// The trace breaks a range or a shape.
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
        /// What the trace says.
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
        /// What the trace says.
        claimed: i64,
        /// What the adapter computes.
        computed: i64,
    },
    /// The proof's bytes are not a proof.
    #[error("proof malformed at its part `{part}`: {why}")]
    Malformed {
        /// Which part of the proof.
        part: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The proof is well-formed and one of its checks says no.
    #[error("proof rejected by the check `{0}`")]
    Rejected(Check),
    /// An error of the proving library that no input should cause.
    #[error("the proving library failed: {0}")]
    Library(String),
    /// The operating system gave no randomness.
    #[error("the operating system's random generator failed: {0}")]
    Randomness(String),
}

impl Error {
    /// Whether this is a "no" about a claim rather than an unusable input or a failure here.
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
        )
    }
}

/// The checks of the verifier that depend on every byte of a well-formed proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// Protocol 5.6: the re-randomised columns differ from the manifest's combination on mask rows
    /// only.
    MaskSpan,
    /// Protocol 5.7 and 5.8: the relations hold of the committed columns (halo2's identities and
    /// the KZG opening, which the library decides together, in one pairing).
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
