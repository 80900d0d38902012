//! Reads EZKL's witness file: the integers of inputs and output, and the public values of the
//! parameters.

use serde::Deserialize;

use super::{EzklError, circuit_options::Visibility, felt};

/// Largest witness that is read, in bytes: 2^20 features in and out, and EZKL's readable copies of
/// them.
pub const MAX_BYTES: u64 = 1 << 30;

#[derive(Deserialize)]
struct File {
    inputs: Vec<Vec<String>>,
    outputs: Vec<Vec<String>>,
    #[serde(default)]
    processed_params: Option<Processed>,
    /// Unused fields are parsed, too, so that a number such as NaN makes the file invalid.
    #[serde(flatten)]
    _rest: std::collections::BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Processed {
    #[serde(default)]
    poseidon_hash: Option<Vec<String>>,
    #[serde(default)]
    polycommit: Option<Vec<Vec<String>>>,
}

/// The witness of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// The integers of each input.
    pub inputs: Vec<Vec<i64>>,
    /// The integers of the output.
    pub output: Vec<i64>,
    /// The public values of the parameters: a hash, or commitments.
    pub weights: Vec<String>,
}

/// Most commitments to the parameters of a module.
const MAX_COMMITMENTS: usize = 4096;

impl Witness {
    /// Reads what EZKL wrote.
    pub fn parse(bytes: &[u8], visibility: Visibility) -> Result<Witness, String> {
        let file: File =
            serde_json::from_slice(bytes).map_err(|e| format!("not a witness: {e}"))?;
        let integers = |felts: &Vec<String>| {
            felts.iter().map(|f| felt::parse(f)).collect::<Result<Vec<_>, _>>()
        };
        let inputs = file.inputs.iter().map(integers).collect::<Result<Vec<_>, _>>()?;
        let [output] = file.outputs.as_slice() else {
            return Err(format!("it has {} outputs instead of one", file.outputs.len()));
        };
        let processed = file.processed_params;
        let weights = match visibility {
            Visibility::Private | Visibility::Fixed => Vec::new(),
            Visibility::Hashed => processed.and_then(|p| p.poseidon_hash).unwrap_or_default(),
            Visibility::Polycommit => {
                processed.and_then(|p| p.polycommit).unwrap_or_default().concat()
            }
        };
        check_weights(&weights, visibility)?;
        Ok(Witness { inputs, output: integers(output)?, weights })
    }

    /// Checks that this is the witness of a row: its inputs, and `d_out` outputs.
    pub(super) fn check_row(
        &self,
        row: &[&[i32]],
        d_out: usize,
        what: &str,
    ) -> Result<(), EzklError> {
        let refuse = |why: String| Err(EzklError::answer(format!("EZKL's witness of {what}"), why));
        let same = self.inputs.len() == row.len()
            && self.inputs.iter().zip(row).all(|(found, expected)| {
                found.iter().copied().eq(expected.iter().map(|v| i64::from(*v)))
            });
        if !same {
            return refuse("its inputs are not those of the row".into());
        }
        if self.output.len() != d_out {
            let found = self.output.len();
            return refuse(format!("{found} output values, the manifest has {d_out}"));
        }
        Ok(())
    }
}

/// Checks that these can be the public values of parameters: field elements, or compressed points.
pub fn check_weights(weights: &[String], visibility: Visibility) -> Result<(), String> {
    let point = |text: &String| {
        text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let fits = match visibility {
        Visibility::Private | Visibility::Fixed => weights.is_empty(),
        Visibility::Hashed => weights.len() == 1 && felt::is_element(&weights[0]),
        Visibility::Polycommit => {
            (1..=MAX_COMMITMENTS).contains(&weights.len()) && weights.iter().all(point)
        }
    };
    if fits {
        return Ok(());
    }
    Err(format!(
        "parameters that are {} have {} values that fix them, which does not fit",
        visibility.name(),
        weights.len()
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_with_something_else_than_integers_is_refused() {
        let one = felt::encode(1);
        let good = format!(
            "{{\"inputs\": [[\"{one}\"]], \"outputs\": [[\"{one}\"]], \"max_range_size\": 3}}"
        );
        let witness = Witness::parse(good.as_bytes(), Visibility::Private).unwrap();
        assert_eq!((witness.inputs, witness.output), (vec![vec![1]], vec![1]));
        for (from, to) in [
            ("3", "NaN"),
            ("3", "1e999"),
            (&format!("\"{one}\"]],"), "\"NaN\"]],"),
            (&format!("[[\"{one}\"]],"), "[[NaN]],"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert!(
                bad != good && Witness::parse(bad.as_bytes(), Visibility::Private).is_err(),
                "{bad}"
            );
        }
        assert!(
            Witness::parse(good.as_bytes(), Visibility::Hashed).unwrap_err().contains("hashed")
        );
    }
}
