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
    /// File for the commitment [default: stdout]. Its nonce opens it: publish only the root.
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
    /// Row number, from 0: the innermost lists of the file in order, or runs of --columns values.
    #[arg(long, value_name = "R")]
    pub row: usize,
    /// Number of values in a row, if the rows are not the innermost lists.
    #[arg(long, value_name = "N")]
    pub columns: Option<usize>,
    /// File for the proof.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// `zklora trace check-row`
#[derive(ClapArgs)]
pub struct CheckRow {
    /// The proof.
    pub proof: PathBuf,
    /// The root that you received beforehand.
    #[arg(long, value_name = "HEX", value_parser = root)]
    pub root: Root,
    /// Number of values under the root, if you know it; without it, the number is the proof's own
    /// claim.
    #[arg(long, value_name = "N")]
    pub count: Option<usize>,
}
