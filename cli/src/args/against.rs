//! `zklora bench --against`

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::ezkl;

/// The system to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Other {
    /// EZKL, the Python package.
    Ezkl,
}

/// `zklora bench --against`
#[derive(ClapArgs)]
pub struct Against {
    /// Measure both systems on one module, with the same rows, on this machine (docs/ezkl.md).
    #[arg(long, value_enum, help_heading = "Comparison")]
    pub against: Option<Other>,
    /// The module: a shape (64x4x64: input features, rank, output features), or its name with
    /// --adapter.
    #[arg(long, value_name = "SHAPE|NAME", requires = "against", help_heading = "Comparison")]
    pub module: Option<String>,
    /// EZKL's SRS [default: one that EZKL generates, which is insecure and as fast].
    #[arg(long, value_name = "FILE", requires = "against", help_heading = "Comparison")]
    pub ezkl_srs: Option<PathBuf>,
    /// Also write an HTML page with bar charts: one file without external resources.
    #[arg(long, value_name = "FILE", requires = "against", help_heading = "Comparison")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub circuit: ezkl::Circuit,
    #[command(flatten)]
    pub python: ezkl::Interpreter,
}
