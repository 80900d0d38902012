//! Converts NumPy arrays to slices of floats, and floats to arrays.

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::error::Failure;

/// Rows of one input: float32, `[rows, features]`.
pub type Rows<'py> = PyReadonlyArray2<'py, f32>;

/// The values, without a copy.
///
/// # Errors
/// [`Failure::Input`] if the array is not contiguous in row-major order.
pub fn values<'a>(module: &str, rows: &'a Rows<'_>) -> Result<&'a [f32], Failure> {
    rows.as_slice().map_err(|_| {
        Failure::Input(format!(
            "module `{module}`: the array is not contiguous: pass numpy.ascontiguousarray(x)"
        ))
    })
}

/// Checks that the arrays have the shapes of a module's inputs.
///
/// # Errors
/// [`Failure::Input`] names module, input and dimensions.
pub fn check(module: &zklora_proof::manifest::Module, inputs: &[Rows<'_>]) -> Result<(), Failure> {
    let refuse = |why: String| Err(Failure::Input(format!("module `{}`: {why}", module.name)));
    if inputs.len() != module.inputs.len() {
        let names: Vec<&str> = module.inputs.iter().map(|input| input.name.as_str()).collect();
        return refuse(format!(
            "{} arrays, but it takes {}: {}",
            inputs.len(),
            names.len(),
            names.join(", ")
        ));
    }
    for (array, input) in inputs.iter().zip(&module.inputs) {
        if array.shape()[1] != input.dim {
            return refuse(format!(
                "rows of {} features, but its input `{}` has {}",
                array.shape()[1],
                input.name,
                input.dim
            ));
        }
    }
    Ok(())
}

/// Values as an array of rows.
pub fn to_python(
    py: Python<'_>,
    values: Vec<f32>,
    width: usize,
) -> PyResult<Bound<'_, PyArray2<f32>>> {
    let rows = values.len().checked_div(width).unwrap_or(0);
    PyArray1::from_vec(py, values).reshape([rows, width])
}
