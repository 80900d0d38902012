//! Errors of the integer model: one variant per cause.

use std::path::PathBuf;

use zklora_files::text;

/// Why an integer model cannot be made or evaluated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] zklora_files::Error),
    /// The base model's file is no language model.
    #[error(transparent)]
    Model(#[from] zklora_models::Error),
    /// The base model does something that the integer model cannot.
    #[error(
        "{}: node {} ({}): {}; docs/integer-model.md lists what an integer model can do",
        .path.display(), shown(.node), shown(.operator), shown(.why)
    )]
    Unsupported {
        /// The ONNX file.
        path: PathBuf,
        /// The node.
        node: String,
        /// Its operator.
        operator: String,
        /// What it does.
        why: String,
    },
    /// A unit cannot be evaluated.
    #[error("unit {unit}: {why}")]
    Unit {
        /// Its index, counted from 0.
        unit: usize,
        /// Why, and what to do.
        why: String,
    },
    /// A line of a file of units is no unit.
    #[error("line {line}: {why}")]
    UnitLine {
        /// The line, counted from 1.
        line: usize,
        /// Why, and what to do.
        why: String,
    },
    /// A module of an adapter does not fit.
    #[error("module {}: {}", shown(.module), shown(.why))]
    Adapter {
        /// The module.
        module: String,
        /// Why.
        why: String,
    },
    /// A value could become larger than its type.
    #[error(
        "operator {operator} ({name}) could exceed {what}: the base model, or the bits of the \
         adapter, are too large for exact evaluation"
    )]
    Bound {
        /// Index of the operator.
        operator: usize,
        /// Its name.
        name: &'static str,
        /// What it could exceed.
        what: &'static str,
    },
    /// `integer-model.json` cannot be used.
    #[error("{}: {why}", .path.display())]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// A check of zklora's own work failed.
    #[error("internal error: {0}; this is a bug in zklora, please report it")]
    Internal(String),
}

impl Error {
    pub(crate) fn bound(operator: usize, of: &crate::graph::Operator, what: &'static str) -> Error {
        Error::Bound { operator, name: of.name(), what }
    }
}

/// `text`, escaped and cut to a length that fits a message.
pub(crate) fn shown(text: &str) -> String {
    text::shortened(text, 160)
}
