//! `zklora trace`

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::{
    SrsFile, activation_commitment, ezkl,
    session_id::{SessionId, session_id},
};

/// `zklora trace`
#[derive(Subcommand)]
pub enum TraceCommand {
    /// Run the quantised adapter on given activations and record the rows.
    #[command(after_help = "Example: zklora trace record --artifacts artifacts \
--inputs activations.safetensors --out trace.safetensors")]
    Record(Record),
    /// Show what a trace file holds.
    #[command(after_help = "Example: zklora trace info trace.safetensors")]
    Info {
        /// The trace.
        file: PathBuf,
    },
    /// Commit to the activations of a JSON file: a root to publish, and a nonce that opens it.
    #[command(after_help = "Example: zklora trace commit activations.json --out commitment.json")]
    Commit(activation_commitment::Commit),
    /// Check that a commitment is to the activations of this file.
    #[command(after_help = "Example: zklora trace check activations.json commitment.json")]
    Check(activation_commitment::Check),
    /// Prove one row of committed activations without sending the others.
    #[command(
        after_help = "The proof contains the nonce and hashes of neighbouring values, which can be \
guessed: see docs/security.md.\n\n\
Example: zklora trace prove-row activations.json commitment.json --row 3 --columns 768 \
--out row.json"
    )]
    ProveRow(activation_commitment::ProveRow),
    /// Check that a row of activations is at its position under a root.
    #[command(after_help = "Example: zklora trace check-row row.json --root 0x3f… --count 98304")]
    CheckRow(activation_commitment::CheckRow),
}

/// `zklora trace record`
#[derive(ClapArgs)]
pub struct Record {
    /// Folder that compile wrote.
    #[arg(long, value_name = "DIR")]
    pub artifacts: PathBuf,
    /// Activations: .safetensors (`<module>.x`), or for a single module .npy or .json
    /// ({"input_data": [[…]]}). They are read in pieces and may be larger than memory.
    #[arg(long, value_name = "FILE")]
    pub inputs: PathBuf,
    /// The module that a .npy or .json file is for.
    #[arg(long, value_name = "NAME")]
    pub module: Option<String>,
    /// The user's session id, 64 hex digits [default: fresh random bytes].
    #[arg(long, value_name = "HEX", value_parser = session_id)]
    pub session_id: Option<SessionId>,
    /// Serve at most this many rows of a module, over all sessions of the folder [default: no
    /// limit]. A few rows reveal most of what an adapter does (zklora leak), so the limit is no
    /// protection before payment.
    #[arg(long, value_name = "N")]
    pub max_rows: Option<u64>,
    /// File for the trace.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub srs: SrsFile,
    #[command(flatten)]
    pub python: ezkl::Interpreter,
}
