//! Activations as floats, per module and input: the input of `trace record`.
//!
//! An [`ActivationSource`] is read in pieces, so the activations of a session need not fit into
//! memory. [`Activations`] has them in memory, [`crate::activation_file`] in a file, and
//! [`crate::synthetic`] makes them.

use std::{borrow::Cow, collections::BTreeMap, fmt, ops::Range, path::Path};

use zklora_proof::manifest::Module;

use crate::{Error, activation_file::ActivationFile, row_quantizer::RowError};

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

/// One module's inputs, in the order of its manifest entry: each `[rows, dim]`, row-major.
pub type ModuleInputs = Vec<Vec<f32>>;

/// Activations by module name. A module that is missing was not called.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Activations {
    /// The inputs.
    pub modules: BTreeMap<String, ModuleInputs>,
    /// Tensors of the file that belong to no input of the adapter.
    pub ignored: Vec<String>,
}

impl Activations {
    /// Reads a file that [`ActivationFile::open`] takes into memory.
    pub fn read(
        path: &Path,
        modules: &[Module],
        module: Option<&str>,
    ) -> Result<Activations, Error> {
        ActivationFile::open(path, modules, module)?.read_all(modules)
    }

    /// [`Activations::read`] of bytes in memory. The extension of `path` gives the format.
    pub fn parse(
        path: &Path,
        bytes: &[u8],
        modules: &[Module],
        module: Option<&str>,
    ) -> Result<Activations, Error> {
        ActivationFile::parse(path, bytes, modules, module)?.read_all(modules)
    }

    /// All activations of a source, in memory.
    ///
    /// # Errors
    /// Those of the source.
    pub fn of(source: &dyn ActivationSource, modules: &[Module]) -> Result<Activations, Error> {
        let mut all = Activations::default();
        for module in modules {
            let rows = source.rows(module)?;
            if rows > 0 {
                let inputs = read_inputs(source, module, &(0..rows))?;
                let inputs = inputs.into_iter().map(Cow::into_owned).collect();
                all.modules.insert(module.name.clone(), inputs);
            }
        }
        Ok(all)
    }
}

impl ActivationSource for Activations {
    fn rows(&self, module: &Module) -> Result<usize, Error> {
        match self.modules.get(&module.name) {
            None => Ok(0),
            Some(inputs) => whole_rows(module, inputs.iter().map(Vec::len)),
        }
    }

    fn read(
        &self,
        module: &Module,
        input: usize,
        rows: Range<usize>,
    ) -> Result<Cow<'_, [f32]>, Error> {
        let dim = module.inputs.get(input).map_or(0, |input| input.dim);
        let values = self.modules.get(&module.name).and_then(|inputs| inputs.get(input));
        let values = values.and_then(|values| values.get(rows.start * dim..rows.end * dim));
        values.map(Cow::Borrowed).ok_or_else(|| {
            Error::Input(format!("module `{}`: it has no rows {rows:?}", module.name))
        })
    }
}
