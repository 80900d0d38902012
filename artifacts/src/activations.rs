//! Activations as floats in memory, per module and input.

use std::{borrow::Cow, collections::BTreeMap, ops::Range, path::Path};

use zklora_proof::manifest::Module;

use crate::{
    Error,
    activation_file::ActivationFile,
    activation_source::{ActivationSource, read_inputs, whole_rows},
};

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
        Activations::of_file(&ActivationFile::open(path, modules, module)?, modules)
    }

    /// [`Activations::read`] of bytes in memory. The extension of `path` gives the format.
    pub fn parse(
        path: &Path,
        bytes: &[u8],
        modules: &[Module],
        module: Option<&str>,
    ) -> Result<Activations, Error> {
        Activations::of_file(&ActivationFile::parse(path, bytes, modules, module)?, modules)
    }

    fn of_file(file: &ActivationFile<'_>, modules: &[Module]) -> Result<Activations, Error> {
        Ok(Activations { ignored: file.ignored.clone(), ..Activations::of(file, modules)? })
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
