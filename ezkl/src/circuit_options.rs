//! How EZKL makes a circuit: presets, scales, rows, and what its proofs show about the parameters.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How a proof treats the parameters. `docs/ezkl.md` says what each choice shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Committed to in each proof anew, and bound to nothing.
    Private,
    /// Their Poseidon hash is a public value of every proof.
    Hashed,
    /// Every proof begins with a KZG commitment to them.
    Polycommit,
    /// Part of the verifying key.
    Fixed,
}

impl Visibility {
    /// EZKL's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Visibility::Private => "private",
            Visibility::Hashed => "hashed",
            Visibility::Polycommit => "polycommit",
            Visibility::Fixed => "fixed",
        }
    }

    /// A sentence for users: what ties the weights of a proof to the manifest.
    pub fn binding(self) -> &'static str {
        match self {
            Visibility::Private => "NOT BOUND: each row may have been proven with other weights",
            Visibility::Hashed => {
                "bound by the Poseidon hash in the manifest, which confirms a guess of all weights"
            }
            Visibility::Polycommit => {
                "bound by the KZG commitment in the manifest, which is not hiding"
            }
            Visibility::Fixed => "bound by the verifying key, which is not hiding",
        }
    }

    /// Whether the manifest fixes the weights.
    pub fn binds(self) -> bool {
        self != Visibility::Private
    }
}

/// Scales and rows that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// EZKL chooses scales and rows by calibration, to use few resources.
    Auto,
    /// What the original ZKLoRA did: scales of 7, 2^20 rows, no calibration.
    ZkloraPaper,
}

/// What EZKL's calibration aims at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Small circuits.
    Resources,
    /// Small errors.
    Accuracy,
}

/// How to make a circuit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CircuitOptions {
    /// The preset for everything that the other fields do not set.
    pub preset: Preset,
    /// log₂ of the rows of the circuit.
    pub logrows: Option<u32>,
    /// Fixed-point bits of inputs and of parameters. They turn calibration off, unless there is a
    /// target.
    pub scales: Option<(u32, u32)>,
    /// What calibration aims at.
    pub target: Option<Target>,
    /// Base and number of digits of EZKL's range checks; the table has as many rows as the base.
    pub decomposition: Option<(u32, u32)>,
    /// What proofs show about the parameters.
    pub visibility: Visibility,
}

impl Default for CircuitOptions {
    fn default() -> CircuitOptions {
        let (logrows, scales, target, decomposition) = (None, None, None, None);
        CircuitOptions {
            preset: Preset::Auto,
            logrows,
            scales,
            target,
            decomposition,
            visibility: Visibility::Private,
        }
    }
}

/// The `logrows` of the original ZKLoRA, and EZKL's default scale.
const PAPER_LOGROWS: u32 = 20;
const DEFAULT_SCALE: u32 = 7;

impl CircuitOptions {
    /// EZKL's run arguments, with every symbolic dimension 1.
    pub(super) fn run_args<'a>(&self, symbols: impl Iterator<Item = &'a String>) -> Value {
        let mut args = json!({
            "input_visibility": "public",
            "output_visibility": "public",
            "param_visibility": self.visibility.name(),
            "variables": symbols.map(|symbol| json!([symbol, 1])).collect::<Vec<_>>(),
        });
        let (input, param) = self.scales.unwrap_or((DEFAULT_SCALE, DEFAULT_SCALE));
        args["input_scale"] = input.into();
        args["param_scale"] = param.into();
        if let Some(logrows) =
            self.logrows.or((self.preset == Preset::ZkloraPaper).then_some(PAPER_LOGROWS))
        {
            args["logrows"] = logrows.into();
        }
        if let Some((base, legs)) = self.decomposition {
            args["decomp_base"] = base.into();
            args["decomp_legs"] = legs.into();
        }
        args
    }

    /// EZKL's name of the calibration target. `None` without calibration.
    pub(super) fn calibration(&self) -> Option<&'static str> {
        let by_itself = self.preset == Preset::Auto && self.scales.is_none();
        match self.target.or(by_itself.then_some(Target::Resources))? {
            Target::Resources => Some("resources"),
            Target::Accuracy => Some("accuracy"),
        }
    }
}
