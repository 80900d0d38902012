//! The result of a comparison: the stages of both systems, and the ratios.

use serde::Serialize;
use zklora_ezkl::circuit_options::CircuitOptions;

/// The stages that both systems go through, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ComparedStage {
    /// PEFT folder to ONNX.
    Export,
    /// Choice of scales and of the circuit.
    Settings,
    /// Keys (and, for the native proof, the commitment to the weights).
    Setup,
    /// Deltas of all rows.
    Witness,
    /// Proofs of all rows.
    Prove,
    /// Verification of all rows.
    Verify,
}

impl ComparedStage {
    /// All of them.
    pub const ALL: [ComparedStage; 6] = [
        ComparedStage::Export,
        ComparedStage::Settings,
        ComparedStage::Setup,
        ComparedStage::Witness,
        ComparedStage::Prove,
        ComparedStage::Verify,
    ];

    /// Its name for users.
    pub fn name(self) -> &'static str {
        match self {
            ComparedStage::Export => "export",
            ComparedStage::Settings => "settings",
            ComparedStage::Setup => "setup",
            ComparedStage::Witness => "witness",
            ComparedStage::Prove => "prove",
            ComparedStage::Verify => "verify",
        }
    }
}

/// The cost of a stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Wall time, in seconds.
    pub seconds: f64,
    /// Processor time of all threads, in seconds.
    pub cpu_seconds: f64,
    /// Largest memory of the process during the stage, in bytes, if the system reports it.
    pub peak_bytes: Option<u64>,
}

/// How a stage ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It finished.
    Done(Figures),
    /// The system has no such stage. The work is part of the next one.
    InNext,
    /// It hit a limit or failed: why.
    Stopped(String),
    /// An earlier stage did not finish.
    NotRun,
}

impl Outcome {
    /// Its figures, if it finished.
    pub fn figures(&self) -> Option<&Figures> {
        if let Outcome::Done(figures) = self { Some(figures) } else { None }
    }
}

/// Errors of the deltas, relative to the float adapter's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Accuracy {
    /// `√(Σ (delta − float)² / Σ float²)`.
    pub relative_rms: f64,
    /// The largest difference, relative to the root mean square of the float deltas.
    pub largest: f64,
}

/// What one of the two systems took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SystemReport {
    /// Name and version.
    pub name: String,
    /// Every stage.
    pub stages: Vec<(ComparedStage, Outcome)>,
    /// Files that users get before the session, without the SRS, in bytes.
    pub public_bytes: u64,
    /// Files that the contributor keeps, in bytes.
    pub private_bytes: u64,
    /// All proofs of the session, in bytes.
    pub proof_bytes: Option<u64>,
    /// Errors of the deltas.
    pub accuracy: Option<Accuracy>,
    /// log₂ of the circuit's rows.
    pub logrows: Option<u32>,
}

impl SystemReport {
    pub(super) fn new(name: String) -> SystemReport {
        let stages = ComparedStage::ALL.map(|stage| (stage, Outcome::NotRun)).to_vec();
        let (public_bytes, private_bytes) = (0, 0);
        SystemReport {
            name,
            stages,
            public_bytes,
            private_bytes,
            proof_bytes: None,
            accuracy: None,
            logrows: None,
        }
    }

    pub(super) fn set(&mut self, stage: ComparedStage, outcome: Outcome) {
        self.stages
            .iter_mut()
            .filter(|(known, _)| *known == stage)
            .for_each(|(_, current)| *current = outcome.clone());
    }

    /// How a stage ended.
    pub fn stage(&self, stage: ComparedStage) -> &Outcome {
        self.stages
            .iter()
            .find(|(known, _)| *known == stage)
            .map_or(&Outcome::NotRun, |(_, outcome)| outcome)
    }

    /// Wall time of all stages, if all finished.
    pub fn seconds(&self) -> Option<f64> {
        self.stages
            .iter()
            .map(|(_, outcome)| match outcome {
                Outcome::InNext => Some(0.0),
                other => other.figures().map(|figures| figures.seconds),
            })
            .sum()
    }

    /// Largest memory of any stage, in bytes.
    pub fn peak_bytes(&self) -> Option<u64> {
        self.stages.iter().filter_map(|(_, outcome)| outcome.figures()?.peak_bytes).max()
    }
}

/// A ratio of EZKL's figure to the native proof's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    /// Of what.
    pub what: String,
    /// EZKL's figure over the native proof's.
    pub ratio: f64,
}

/// Both systems on the same module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The module's name and shape.
    pub module: String,
    /// Rows of the session.
    pub rows: usize,
    /// Cores of the machine.
    pub cores: usize,
    /// Limit of each stage, in seconds.
    pub limit_seconds: f64,
    /// Options of EZKL's circuit.
    pub circuit: CircuitOptions,
    /// The native proof.
    pub native: SystemReport,
    /// EZKL.
    pub ezkl: SystemReport,
    /// Time to make EZKL's insecure SRS, in seconds. It is not a stage, because one SRS serves
    /// many circuits.
    pub ezkl_srs_seconds: Option<f64>,
    /// Ratios of everything that both systems finished.
    pub ratios: Vec<Ratio>,
}

/// How many times as much EZKL takes, for everything that both systems finished.
pub(super) fn ratios(native: &SystemReport, ezkl: &SystemReport) -> Vec<Ratio> {
    let mut out = Vec::new();
    let mut add = |what: String, native: Option<f64>, ezkl: Option<f64>| {
        if let (Some(native), Some(ezkl)) = (native, ezkl)
            && native > 0.0
        {
            out.push(Ratio { what, ratio: ezkl / native });
        }
    };
    for stage in ComparedStage::ALL {
        let seconds =
            |side: &SystemReport| side.stage(stage).figures().map(|figures| figures.seconds);
        add(format!("{}, wall time", stage.name()), seconds(native), seconds(ezkl));
    }
    add("all stages, wall time".into(), native.seconds(), ezkl.seconds());
    let bytes = |count: Option<u64>| count.map(|count| count as f64);
    add("peak memory".into(), bytes(native.peak_bytes()), bytes(ezkl.peak_bytes()));
    add("proofs, bytes".into(), bytes(native.proof_bytes), bytes(ezkl.proof_bytes));
    let ended = |side: &SystemReport, bytes: u64| {
        side.stage(ComparedStage::Setup).figures().map(|_| bytes as f64)
    };
    add(
        "public files, bytes".into(),
        ended(native, native.public_bytes),
        ended(ezkl, ezkl.public_bytes),
    );
    add(
        "private files, bytes".into(),
        ended(native, native.private_bytes),
        ended(ezkl, ezkl.private_bytes),
    );
    let rms = |side: &SystemReport| side.accuracy.map(|accuracy| accuracy.relative_rms);
    add("relative RMS error".into(), rms(native), rms(ezkl));
    out
}
