//! The measured figures, by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{bench_stage::BenchStage, profile::Profile};

/// Time of one piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Wall time.
    pub seconds: f64,
    /// CPU time of all threads, user and system.
    pub cpu_seconds: f64,
}

/// Work that takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// Committing to the integers.
    Commit,
    /// Writing the artifact folder, with the verifying key.
    WriteArtifacts,
    /// Loading the SRS.
    Srs,
    /// Parsing the manifest: every point is decompressed and checked.
    Manifest,
    /// Parsing the manifest with cached points.
    KnownManifest,
    /// Deriving the verifying key.
    VerifyingKey,
    /// Deriving the proving key.
    ProvingKey,
    /// Getting keys that this process already has.
    KeysAgain,
    /// Quantised activations to deltas: quantising, deltas, digest, ledger.
    Record,
    /// The integer deltas alone, a part of `Record`.
    Deltas,
    /// Range checks and digest of the trace.
    Digest,
    /// Random combinations of its rows.
    Projection,
    /// Digest and projection on one core.
    PassOneCore,
    /// Digest and projection of a file that is read in pieces.
    PassInPieces,
    /// Copying the same bytes on one core.
    MemcpyOneCore,
    /// Proving a session of one row per module: the cost that does not depend on the rows.
    ProveOneRow,
    /// Proving the session.
    Prove,
    /// Verifying a session of one row per module: the cost that does not depend on the rows.
    VerifyOneRow,
    /// Verifying the session.
    Verify,
    /// `zklora prove` in its own process, one row per module.
    ProveProcessOneRow,
    /// `zklora verify` in its own process, one row per module.
    ProcessOneRow,
    /// `zklora verify` in its own process.
    Process,
    /// One delta row of a module of 8192×16×8192 as integers, on one core.
    RowIntegers,
    /// The same product in `f32` by `ndarray`.
    RowFloats,
}

impl Item {
    /// All, in the order of the tables.
    pub const ALL: [Item; 24] = [
        Item::Commit,
        Item::WriteArtifacts,
        Item::Srs,
        Item::Manifest,
        Item::KnownManifest,
        Item::VerifyingKey,
        Item::ProvingKey,
        Item::KeysAgain,
        Item::Record,
        Item::Deltas,
        Item::Digest,
        Item::Projection,
        Item::PassOneCore,
        Item::PassInPieces,
        Item::MemcpyOneCore,
        Item::ProveOneRow,
        Item::Prove,
        Item::VerifyOneRow,
        Item::Verify,
        Item::ProveProcessOneRow,
        Item::ProcessOneRow,
        Item::Process,
        Item::RowIntegers,
        Item::RowFloats,
    ];

    /// Whether only another process can measure it.
    pub fn is_of_a_process(self) -> bool {
        matches!(self, Item::ProveProcessOneRow | Item::Process | Item::ProcessOneRow)
    }
}

impl std::fmt::Display for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Item::Commit => "commit",
            Item::WriteArtifacts => "write the artifacts",
            Item::Srs => "load the SRS",
            Item::Manifest => "parse the manifest",
            Item::KnownManifest => "parse it, points kept",
            Item::VerifyingKey => "verifying key",
            Item::ProvingKey => "proving key",
            Item::KeysAgain => "keys, again",
            Item::Record => "record",
            Item::Deltas => "of it deltas",
            Item::Digest => "digest of the trace",
            Item::Projection => "projection of the trace",
            Item::PassOneCore => "both on one core",
            Item::PassInPieces => "both, file in pieces",
            Item::MemcpyOneCore => "memcpy on one core",
            Item::ProveOneRow => "prove, one row a module",
            Item::Prove => "prove",
            Item::VerifyOneRow => "verify, one row a module",
            Item::Verify => "verify",
            Item::ProveProcessOneRow => "zklora prove, one row",
            Item::ProcessOneRow => "zklora verify, one row",
            Item::Process => "zklora verify",
            Item::RowIntegers => "a row of 8192×16×8192",
            Item::RowFloats => "the same in f32",
        })
    }
}

/// Data that takes space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// The manifest.
    Manifest,
    /// The verifying key.
    VerifyingKey,
    /// The private weights.
    Weights,
    /// The trace in memory: activations, scales and deltas.
    Trace,
    /// The proof.
    Proof,
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Size::Manifest => "manifest",
            Size::VerifyingKey => "verifying key",
            Size::Weights => "weights",
            Size::Trace => "trace",
            Size::Proof => "proof",
        })
    }
}

/// The figures of one stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    /// Times.
    pub costs: BTreeMap<Item, Cost>,
    /// Sizes.
    pub sizes: BTreeMap<Size, u64>,
    /// Largest resident memory of the process, in bytes, if the system reports it.
    pub peak_memory: Option<u64>,
}

/// One line of a table.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured.
    pub item: Item,
    /// The stage.
    pub stage: BenchStage,
    /// The time.
    #[serde(flatten)]
    pub cost: Cost,
}

/// All figures of one profile.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// Name of the profile.
    pub profile: String,
    /// Its shapes.
    pub shapes: String,
    /// Modules.
    pub modules: usize,
    /// Weights of all modules.
    pub parameters: usize,
    /// Rows per module.
    pub rows: usize,
    /// Times.
    pub figures: Vec<Figure>,
    /// Sizes in bytes.
    pub sizes: BTreeMap<Size, u64>,
    /// Peak memory of each stage's process.
    pub peak_memory: BTreeMap<BenchStage, u64>,
}

impl Measured {
    pub(super) fn of(profile: &Profile, rows: usize) -> Measured {
        Measured {
            profile: profile.name.clone(),
            shapes: profile.summary(),
            modules: profile.modules().count(),
            parameters: profile.parameters(),
            rows,
            figures: Vec::new(),
            sizes: BTreeMap::new(),
            peak_memory: BTreeMap::new(),
        }
    }

    /// Adds the figures of a stage.
    pub fn add(&mut self, stage: BenchStage, report: StageReport) {
        self.figures.extend(report.costs.into_iter().map(|(item, cost)| Figure {
            item,
            stage,
            cost,
        }));
        self.sizes.extend(report.sizes);
        self.peak_memory.extend(report.peak_memory.map(|peak| (stage, peak)));
    }

    /// The cost of `item`, if it was measured.
    pub fn cost(&self, item: Item) -> Option<Cost> {
        self.figures.iter().find(|figure| figure.item == item).map(|figure| figure.cost)
    }

    /// A size, if it is known.
    pub fn size(&self, size: Size) -> Option<u64> {
        self.sizes.get(&size).copied()
    }
}
