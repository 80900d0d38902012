//! Errors of ingesting: the reason, the place in the file, and what to do.

use thiserror::Error;

use crate::matrix::MatrixError;

/// Why an ONNX file is not accepted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The file could not be read, or is too large.
    #[error(transparent)]
    File(#[from] zklora_files::Error),
    /// The file or something in it is larger than ingesting allows.
    #[error("`{name}`: {what} exceeds the limit of {limit}")]
    TooLarge {
        /// The module.
        name: String,
        /// What is too large, and how large it is.
        what: String,
        /// The limit.
        limit: usize,
    },
    /// The file is not an ONNX model, or it contradicts itself.
    #[error("`{name}` is not a valid ONNX model: {what}")]
    Malformed {
        /// The module.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A tensor stored beside the model cannot be used.
    #[error("`{name}`: the external data of tensor `{tensor}` cannot be used: {what}")]
    External {
        /// The module.
        name: String,
        /// The tensor.
        tensor: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// The graph as a whole cannot be a module.
    #[error("`{name}`: {what}")]
    Graph {
        /// The module.
        name: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// A node is not linear in the graph's inputs, or linear in a way that is not supported.
    #[error("`{name}`: node `{node}` ({operator}) cannot be part of a linear adapter: {reason}")]
    NotLinear {
        /// The module.
        name: String,
        /// The node's name in the ONNX file.
        node: String,
        /// The node's ONNX operator.
        operator: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A node needs more memory or time than the limits allow.
    #[error("`{name}`: node `{node}` ({operator}) asks for too much: {reason}")]
    TooMuch {
        /// The module.
        name: String,
        /// The node's name in the ONNX file.
        node: String,
        /// The node's ONNX operator.
        operator: String,
        /// What is too much, and what to do.
        reason: String,
    },
    /// A weight is NaN or infinite.
    #[error(
        "`{name}`: `{tensor}` has a value that is NaN or infinite; repair the weights and export again"
    )]
    NonFinite {
        /// The module.
        name: String,
        /// The tensor or the node that makes it.
        tensor: String,
    },
    /// The typed graph could not be made from the file.
    #[error("`{name}`: the graph could not be analysed: {what}")]
    Analysis {
        /// The module.
        name: String,
        /// What tract said, with the node that it names.
        what: String,
    },
    /// tract or the compiler panicked.
    #[error(
        "`{name}`: analysing it failed unexpectedly: the file is damaged, or has a graph that tract cannot analyse; \
         export it again, and simplified (for example by onnxsim)"
    )]
    Panicked {
        /// The module.
        name: String,
    },
    /// A check of the compiler's own work failed.
    #[error(
        "`{name}`: internal error: {what}; this is a bug in zklora, please report it with the file"
    )]
    Internal {
        /// The module.
        name: String,
        /// Which check.
        what: String,
    },
}

/// Why an operator or an expression is refused; the caller adds the node.
#[derive(Debug, Clone)]
pub(super) enum Reason {
    /// The operator or the way it is used is not linear or not supported.
    NotLinear(String),
    /// Two values are multiplied that both depend on the input.
    Product,
    /// A limit on memory or time is exceeded; no other reading of the graph helps.
    TooMuch(String),
    /// The constant with this index among the node's inputs is not finite.
    NonFinite(usize),
    /// A check of the compiler's own work failed.
    Internal(String),
}

/// The reason of [`Reason::Product`].
pub(super) const PRODUCT: &str = "it multiplies two values that both depend on the input";

impl Reason {
    pub fn new(reason: impl Into<String>) -> Self {
        Self::NotLinear(reason.into())
    }

    pub fn too_much(reason: impl Into<String>) -> Self {
        Self::TooMuch(reason.into())
    }
}

impl From<MatrixError> for Reason {
    fn from(error: MatrixError) -> Self {
        match error {
            MatrixError::TooLarge { .. } => Self::TooMuch(error.to_string()),
            _ => Self::NotLinear(error.to_string()),
        }
    }
}
