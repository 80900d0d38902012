//! Commitments to activations, byte for byte like those of the original ZKLoRA.

use std::path::PathBuf;

use pyo3::prelude::*;
use zklora_artifacts::activation_commitment::{Commitment, Values};

use crate::{error::Failure, worker};

/// A hiding commitment to the values of a JSON file.
#[pyfunction]
pub fn commit_activations(py: Python<'_>, path: PathBuf) -> Result<String, Failure> {
    worker::run(py, None, move |_| Ok(Commitment::new(&Values::read(&path)?)?.to_string()))
}

/// Whether `commitment` is to exactly the values of a JSON file. False for text that is not a
/// commitment.
#[pyfunction]
pub fn verify_commitment(
    py: Python<'_>,
    path: PathBuf,
    commitment: String,
) -> Result<bool, Failure> {
    worker::run(py, None, move |_| {
        let values = Values::read(&path)?;
        match Commitment::parse(commitment.as_bytes()) {
            Ok(commitment) => Ok(commitment.is_to(&values)?),
            Err(_) => Ok(false),
        }
    })
}
