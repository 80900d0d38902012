//! EZKL's proof file: public values and proof bytes. Other fields are informative and are ignored.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Check, EzklError, circuit_options::Visibility, felt, manifest::Module};

/// Largest proof file that is read, in bytes.
pub(super) const MAX_BYTES: u64 = 1 << 28;

/// Name of a row's proof in a folder of proofs.
pub(super) fn proof_name(module: &str, row: usize) -> String {
    format!("{module}.{row:06}.json")
}

#[derive(Deserialize)]
struct File {
    instances: Vec<Vec<String>>,
    proof: Vec<u8>,
    hex_proof: String,
    #[serde(default)]
    split: Option<Value>,
    #[serde(default)]
    protocol: Option<Value>,
    version: Option<String>,
}

/// A proof of one row.
pub(super) struct ProofFile {
    instances: Vec<Vec<String>>,
    proof: Vec<u8>,
}

/// The row that a proof must be about.
pub(super) struct Statement<'a> {
    pub module: &'a Module,
    /// The integers of each input.
    pub inputs: Vec<&'a [i32]>,
    /// The integers of the output.
    pub delta: &'a [i64],
}

impl ProofFile {
    pub fn parse(bytes: &[u8]) -> Result<ProofFile, String> {
        let file: File =
            serde_json::from_slice(bytes).map_err(|e| format!("not a proof of EZKL: {e}"))?;
        if file.version.as_deref() != Some(super::VERSION) {
            let version = file.version.unwrap_or("an unknown version".into());
            return Err(format!(
                "a proof of EZKL {version:.40}, this build verifies those of {}",
                super::VERSION
            ));
        }
        if file.split.is_some_and(|v| !v.is_null()) || file.protocol.is_some_and(|v| !v.is_null()) {
            return Err("a proof of an aggregation, which is not supported".into());
        }
        if file.hex_proof.strip_prefix("0x") != Some(hex::encode(&file.proof).as_str()) {
            return Err("`proof` and `hex_proof` are different".into());
        }
        Ok(ProofFile { instances: file.instances, proof: file.proof })
    }

    /// Compares the public values with the row, and the values that fix the weights with the
    /// manifest. Returns a new proof file for EZKL: the only part of this file in it is the proof's
    /// bytes.
    ///
    /// # Errors
    /// [`Check::PublicValues`] or [`Check::Weights`].
    pub fn for_row(&self, statement: &Statement<'_>) -> Result<Value, EzklError> {
        let module = statement.module;
        let [found] = self.instances.as_slice() else {
            let groups = self.instances.len();
            return Err(EzklError::refused(
                Check::PublicValues,
                format!("it has {groups} columns of public values, not one"),
            ));
        };
        let hash = if module.param_visibility == Visibility::Hashed {
            module.weights.as_slice()
        } else {
            &[]
        };
        let inputs =
            statement.inputs.iter().flat_map(|values| values.iter().map(|v| i64::from(*v)));
        let rows = inputs.chain(statement.delta.iter().copied()).map(felt::encode);
        let expected: Vec<String> = hash.iter().cloned().chain(rows).collect();
        if found.len() != expected.len() {
            let why =
                format!("it has {} public values, the row has {}", found.len(), expected.len());
            return Err(EzklError::refused(Check::PublicValues, why));
        }
        if let Some(index) = (0..expected.len()).find(|index| found[*index] != expected[*index]) {
            return Err(difference(statement, index, hash.len(), &found[index]));
        }
        if module.param_visibility == Visibility::Polycommit {
            self.check_commitments(&module.weights)?;
        }
        Ok(json!({
            "protocol": null,
            "instances": [expected],
            "proof": self.proof,
            "hex_proof": format!("0x{}", hex::encode(&self.proof)),
            "split": null,
            "pretty_public_inputs": null,
            "timestamp": null,
            "version": super::VERSION,
        }))
    }

    /// A proof begins with the commitments to the parameters: each is a point with 32 bytes for x
    /// and 32 for y, most significant first. The manifest has x, least significant first, with
    /// the parity of y in the highest bit.
    fn check_commitments(&self, weights: &[String]) -> Result<(), EzklError> {
        let other = || {
            EzklError::refused(
                Check::Weights,
                "it is about other weights than those that the manifest commits to",
            )
        };
        for (index, commitment) in weights.iter().enumerate() {
            let point = self.proof.get(index * 64..index * 64 + 64).ok_or_else(other)?;
            if compressed(point) != *commitment {
                return Err(other());
            }
        }
        Ok(())
    }
}

/// Converts a point of 64 bytes in a proof to the form that EZKL's witness has.
fn compressed(point: &[u8]) -> String {
    let (x, y) = point.split_at(32);
    let mut bytes: Vec<u8> = x.iter().rev().copied().collect();
    if let (Some(top), Some(last)) = (bytes.last_mut(), y.last())
        && last & 1 == 1
    {
        *top |= 0x80;
    }
    hex::encode(bytes)
}

fn difference(statement: &Statement<'_>, index: usize, hashes: usize, found: &str) -> EzklError {
    let module = statement.module;
    if index < hashes {
        return EzklError::refused(
            Check::Weights,
            "it is about other weights than those whose hash is in the manifest",
        );
    }
    let index = index - hashes;
    let features: usize = module.inputs.iter().map(|input| input.dim).sum();
    let number = |scale: u32| match felt::parse(found) {
        Ok(integer) => format!("{}", integer as f64 * (-f64::from(scale)).exp2()),
        Err(_) => "no number".into(),
    };
    let why = if index < features {
        format!(
            "feature {index} of the inputs is {} in the proof, another in your trace",
            number(module.input_scale)
        )
    } else {
        let index = index - features;
        let expected = statement.delta[index] as f64 * (-f64::from(module.output_scale)).exp2();
        format!(
            "feature {index} of the delta is {} in the proof, {expected} in your trace",
            number(module.output_scale)
        )
    };
    EzklError::refused(Check::PublicValues, why)
}
