//! Where the activations of a session come from: read in pieces, so that they need not fit into
//! memory.

use std::{borrow::Cow, fmt, ops::Range};

use zklora_proof::manifest::Module;

use crate::{Error, row_quantizer::RowError};

/// The activations of a session.
pub trait ActivationSource: fmt::Debug + Send + Sync {
    /// Rows of a module; none if it was not called.
    ///
    /// # Errors
    /// [`Error::Input`]: its inputs are not the same number of whole rows each.
    fn rows(&self, module: &Module) -> Result<usize, Error>;

    /// Some of these rows of an input: `[rows, dim]`, row-major.
    ///
    /// # Errors
    /// [`Error::File`]: the file can no longer be read.
    fn read(
        &self,
        module: &Module,
        input: usize,
        rows: Range<usize>,
    ) -> Result<Cow<'_, [f32]>, Error>;
}

/// Some rows of all inputs of a module.
///
/// # Errors
/// Those of [`ActivationSource::read`].
pub fn read_inputs<'s>(
    source: &'s dyn ActivationSource,
    module: &Module,
    rows: &Range<usize>,
) -> Result<Vec<Cow<'s, [f32]>>, Error> {
    (0..module.inputs.len()).map(|input| source.read(module, input, rows.clone())).collect()
}

/// The number of rows of a module whose inputs have these numbers of values.
pub(crate) fn whole_rows(
    module: &Module,
    values: impl ExactSizeIterator<Item = usize> + Clone,
) -> Result<usize, Error> {
    let refuse = |why: String| Err(Error::Input(format!("module `{}`: {why}", module.name)));
    let Some((first, input)) = values.clone().next().zip(module.inputs.first()) else {
        return refuse("it takes no inputs, so it has no rows".into());
    };
    if values.len() != module.inputs.len() {
        return refuse(format!(
            "its inputs are not the {} that it takes, but {}",
            module.inputs.len(),
            values.len()
        ));
    }
    let rows = first.checked_div(input.dim).unwrap_or(0);
    match values.zip(&module.inputs).find(|(values, input)| *values != rows * input.dim) {
        None => Ok(rows),
        Some((values, input)) => {
            refuse(RowError::Length { values, rows, dim: input.dim }.to_string())
        }
    }
}
