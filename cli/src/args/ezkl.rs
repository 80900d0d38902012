//! Options of the EZKL backend.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use zklora_ezkl::{circuit_options as circuit, circuit_options::CircuitOptions};

/// What proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// The native proof: one for a whole session, weights committed to.
    Halo2,
    /// EZKL (the Python package): one proof a row. docs/ezkl.md says when.
    Ezkl,
}

/// Scales and rows that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// EZKL calibrates.
    Auto,
    /// As the original ZKLoRA: scales 7, 2^20 rows, no calibration.
    ZkloraPaper,
}

/// What EZKL's calibration aims at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// Small circuits.
    Resources,
    /// Small errors.
    Accuracy,
}

/// What EZKL's proofs show of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ParamVisibility {
    /// Nothing, and nothing binds them.
    Private,
    /// Their hash, which binds them.
    Hashed,
    /// A commitment that is not hiding, which binds them.
    Polycommit,
    /// Part of the verifying key, which binds them and is not hiding.
    Fixed,
}

/// How EZKL runs.
#[derive(ClapArgs)]
#[command(next_help_heading = "EZKL")]
pub struct Interpreter {
    /// Python with the package ezkl [default: $ZKLORA_EZKL_PYTHON, else python3].
    #[arg(long, value_name = "PYTHON")]
    pub ezkl_python: Option<PathBuf>,
    /// Seconds that one call of EZKL may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub ezkl_timeout: u64,
    /// Memory that EZKL may use (Linux) [default: nine tenths of this machine's].
    #[arg(long, value_name = "MIB")]
    pub ezkl_memory: Option<u64>,
}

/// An SRS that EZKL made.
#[derive(ClapArgs)]
#[command(next_help_heading = "EZKL")]
pub struct InsecureDevSrs {
    /// Make or accept an SRS of EZKL's gen_srs: whoever ran it can forge proofs. For experiments
    /// only.
    #[arg(long)]
    pub insecure_dev_srs: bool,
}

/// How EZKL makes circuits.
#[derive(ClapArgs)]
#[command(next_help_heading = "EZKL")]
pub struct Circuit {
    /// What is not said otherwise.
    #[arg(long, value_enum, default_value = "auto")]
    pub preset: Preset,
    /// log₂ of the rows of a circuit; with calibration, the most that it may choose.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(6..=28))]
    pub logrows: Option<u32>,
    /// Fixed-point bits of inputs and of weights, instead of calibration.
    #[arg(long, value_name = "INPUT,WEIGHTS", value_parser = scales)]
    pub scales: Option<(u32, u32)>,
    /// Calibrate, for this.
    #[arg(long, value_enum)]
    pub calibration_target: Option<Target>,
    /// Base and number of digits of EZKL's range checks: 2^logrows must exceed the base,
    /// base^digits the values.
    #[arg(long, value_name = "BASE,DIGITS", value_parser = decomposition)]
    pub decomposition: Option<(u32, u32)>,
    /// What the proofs show of the weights: docs/ezkl.md says what each gives and does not give.
    #[arg(long, value_enum, default_value = "private")]
    pub param_visibility: ParamVisibility,
}

fn pair(
    text: &str,
    first: std::ops::RangeInclusive<u32>,
    second: std::ops::RangeInclusive<u32>,
) -> Result<(u32, u32), String> {
    let range = |r: &std::ops::RangeInclusive<u32>| format!("{} to {}", r.start(), r.end());
    let expected =
        || format!("expected two numbers: {}, a comma, {}", range(&first), range(&second));
    let (a, b) = text.split_once(',').ok_or_else(expected)?;
    match (a.trim().parse(), b.trim().parse()) {
        (Ok(a), Ok(b)) if first.contains(&a) && second.contains(&b) => Ok((a, b)),
        _ => Err(expected()),
    }
}

fn scales(text: &str) -> Result<(u32, u32), String> {
    pair(text, 0..=24, 0..=24)
}

fn decomposition(text: &str) -> Result<(u32, u32), String> {
    pair(text, 2..=1 << 20, 1..=32)
}

impl Circuit {
    /// As the library takes them.
    pub fn options(&self) -> CircuitOptions {
        CircuitOptions {
            preset: match self.preset {
                Preset::Auto => circuit::Preset::Auto,
                Preset::ZkloraPaper => circuit::Preset::ZkloraPaper,
            },
            logrows: self.logrows,
            scales: self.scales,
            target: self.calibration_target.map(|target| match target {
                Target::Resources => circuit::Target::Resources,
                Target::Accuracy => circuit::Target::Accuracy,
            }),
            decomposition: self.decomposition,
            visibility: match self.param_visibility {
                ParamVisibility::Private => circuit::Visibility::Private,
                ParamVisibility::Hashed => circuit::Visibility::Hashed,
                ParamVisibility::Polycommit => circuit::Visibility::Polycommit,
                ParamVisibility::Fixed => circuit::Visibility::Fixed,
            },
        }
    }
}
