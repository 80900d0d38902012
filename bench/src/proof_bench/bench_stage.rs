//! The stages of the proof benchmark. One process measures one stage.

use serde::{Deserialize, Serialize};

/// A part of the pipeline that one process measures. Later stages need the files of earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BenchStage {
    /// Integers to artifacts.
    Commit,
    /// The start of `zklora verify`, before it reads a proof.
    StartUp,
    /// Activations to a trace.
    Record,
    /// Digest and projection, of rows in memory.
    Pass,
    /// Digest and projection of a file that is read in pieces, as by the commands.
    Pieces,
    /// Keys, and the proof.
    Prove,
    /// Verifying in a process that has everything in memory.
    Verify,
    /// One delta row of a large module.
    Row,
    /// `zklora verify`.
    Process,
}

impl std::fmt::Display for BenchStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BenchStage::Commit => "commit",
            BenchStage::StartUp => "start up",
            BenchStage::Record => "record",
            BenchStage::Pass => "pass over the trace",
            BenchStage::Pieces => "pass in pieces",
            BenchStage::Prove => "prove",
            BenchStage::Verify => "verify",
            BenchStage::Row => "one row of a large module",
            BenchStage::Process => "zklora verify",
        })
    }
}

/// Every stage, in the order in which they need each other's files.
pub const ALL_STAGES: [BenchStage; 8] = [
    BenchStage::Commit,
    BenchStage::StartUp,
    BenchStage::Record,
    BenchStage::Pass,
    BenchStage::Pieces,
    BenchStage::Prove,
    BenchStage::Verify,
    BenchStage::Row,
];
