//! Options of the EZKL backend.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

/// The proof system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// The native proof: one for a whole session, bound to committed weights.
    Halo2,
    /// EZKL (the Python package): one proof per row. docs/ezkl.md says when to use it.
    Ezkl,
}

/// Named combinations of scales and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// EZKL's calibration chooses.
    Auto,
    /// The original ZKLoRA's: scales 7, 2^20 rows, no calibration.
    ZkloraPaper,
}

/// The goal of EZKL's calibration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// Small circuits.
    Resources,
    /// Small errors.
    Accuracy,
}

/// What EZKL's proofs reveal of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ParamVisibility {
    /// Nothing, and nothing binds them.
    Private,
    /// Their hash, which binds them.
    Hashed,
    /// A commitment, which binds them but is not hiding.
    Polycommit,
    /// Part of the verifying key, which binds them but is not hiding.
    Fixed,
}

/// How to run EZKL.
#[derive(ClapArgs)]
#[command(next_help_heading = "EZKL")]
pub struct Interpreter {
    /// Python interpreter with the package ezkl [default: $ZKLORA_EZKL_PYTHON, else python3].
    #[arg(long, value_name = "PYTHON")]
    pub ezkl_python: Option<PathBuf>,
    /// Seconds that one EZKL call may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub ezkl_timeout: u64,
    /// Memory that EZKL may use, in MiB (Linux) [default: nine tenths of this machine's memory].
    #[arg(long, value_name = "MIB")]
    pub ezkl_memory: Option<u64>,
}

/// Whether to allow an SRS that EZKL generated.
#[derive(ClapArgs)]
#[command(next_help_heading = "EZKL")]
pub struct InsecureDevSrs {
    /// Generate or accept an SRS of EZKL's gen_srs, whose maker can forge proofs. For experiments
    /// only.
    #[arg(long)]
    pub insecure_dev_srs: bool,
}

/// How EZKL builds circuits.
#[derive(ClapArgs)]
#[command(next_help_heading = "EZKL")]
pub struct Circuit {
    /// Settings for which no other option gives a value.
    #[arg(long, value_enum, default_value = "auto")]
    pub preset: Preset,
    /// log₂ of the rows of a circuit; with calibration, its upper limit.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(6..=28))]
    pub logrows: Option<u32>,
    /// Fixed-point bits of inputs and of weights; replaces calibration.
    #[arg(long, value_name = "INPUT,WEIGHTS", value_parser = scales)]
    pub scales: Option<(u32, u32)>,
    /// Calibrate towards this goal.
    #[arg(long, value_enum)]
    pub calibration_target: Option<Target>,
    /// Base and number of digits of EZKL's range checks: 2^logrows must exceed the base, and
    /// base^digits the values.
    #[arg(long, value_name = "BASE,DIGITS", value_parser = decomposition)]
    pub decomposition: Option<(u32, u32)>,
    /// What the proofs reveal of the weights; docs/ezkl.md explains the guarantees of each choice.
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
