//! `zklora trace commit`, `check`, `prove-row` and `check-row`

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// A BLAKE3 digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root(pub [u8; 32]);

fn root(text: &str) -> Result<Root, String> {
    zklora_artifacts::activation_commitment::hex32(text.trim())
        .map(Root)
        .ok_or_else(|| "a root is 64 hex digits, with or without 0x".into())
}

/// `zklora trace commit`
#[derive(ClapArgs)]
pub struct Commit {
    /// The values: JSON {"input_data": […]} with numbers in lists, nested or not.
    pub file: PathBuf,
    /// Where the commitment goes [default: stdout]. Its nonce opens it: show only the root.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `zklora trace check`
#[derive(ClapArgs)]
pub struct Check {
    /// The values.
    pub file: PathBuf,
    /// The commitment: a file, or the JSON itself (which other users of the machine may see).
    pub commitment: String,
}

/// `zklora trace prove-row`
#[derive(ClapArgs)]
pub struct ProveRow {
    /// The values.
    pub file: PathBuf,
    /// The commitment: a file, or the JSON itself (which other users of the machine may see).
    pub commitment: String,
    /// Which row, from 0 on: the innermost lists of the file in order, or pieces of --columns
    /// values.
    #[arg(long, value_name = "R")]
    pub row: usize,
    /// Values of a row, if it is not an innermost list.
    #[arg(long, value_name = "N")]
    pub columns: Option<usize>,
    /// Where the proof goes.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// `zklora trace check-row`
#[derive(ClapArgs)]
pub struct CheckRow {
    /// The proof.
    pub proof: PathBuf,
    /// The root that you were given beforehand.
    #[arg(long, value_name = "HEX", value_parser = root)]
    pub root: Root,
    /// How many values the root is over, if you know: without it, the number is as the proof says.
    #[arg(long, value_name = "N")]
    pub count: Option<usize>,
}
