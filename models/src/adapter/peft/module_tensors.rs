//! Sorts the tensors of an adapter file into modules by their names, and reads them with their
//! shapes checked.
//!
//! The name alone states the role and the orientation of a tensor. Must not know what is computed
//! with it.

use std::collections::{BTreeMap, BTreeSet};

use super::tensor_names::{PREFIX, is_of_adapter, remedy};
use crate::{
    Error,
    adapter::{module_name, weights::Weights},
};

/// Most numbers that all modules together may have beyond those of the file. LoHa, LoKr and VeRA
/// write out more numbers than the file holds, so a small file could ask for any amount of memory.
const MAX_DERIVED: usize = 1 << 30;

/// Most such numbers of one module; a larger matrix cannot be compiled.
const MAX_DERIVED_OF_MODULE: usize = 1 << 28;

/// Most dimensions of a convolution.
const MAX_KERNEL: usize = 3;

/// Names of the tensors of one module, by the end of the name.
pub(super) type TensorsBySuffix = BTreeMap<&'static str, String>;

/// The tensors of a file.
pub(super) struct Sorted {
    /// By module.
    pub(super) modules: BTreeMap<String, TensorsBySuffix>,
    /// Of layers that were trained whole, with none of the known ends, by layer.
    pub(super) others: BTreeMap<String, Vec<String>>,
}

/// An adapter file that is being read, with the number of further numbers that modules may have.
pub(super) struct AdapterTensors<'a> {
    file: &'a mut Weights,
    left: usize,
}

/// The expected size of a dimension.
#[derive(Clone, Copy)]
pub(super) enum Dim {
    /// This size.
    Is(usize),
    /// Any size; the text names the dimension.
    Any(&'static str),
}

impl Dim {
    /// Whether a dimension has this size.
    fn fits(self, size: usize) -> bool {
        match self {
            Dim::Is(wanted) => size == wanted,
            Dim::Any(_) => size > 0,
        }
    }
}

impl<'a> AdapterTensors<'a> {
    pub(super) fn of(file: &'a mut Weights) -> AdapterTensors<'a> {
        AdapterTensors { file, left: MAX_DERIVED }
    }

    /// Sorts all tensors except `shared` and `duplicates` into modules. Every tensor must have one
    /// of the suffixes, or be of a base layer, if its name is none of an adapter's; `hint`
    /// describes a tensor that is neither.
    pub(super) fn sort(
        &self,
        suffixes: &[&'static str],
        of_base: &[&'static str],
        duplicates: &BTreeSet<String>,
        shared: &[&str],
        hint: impl Fn(&str) -> Option<&'static str>,
    ) -> Result<Sorted, Error> {
        let mut modules: BTreeMap<String, TensorsBySuffix> = BTreeMap::new();
        let mut others: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for tensor in self.file.names().into_iter().filter(|name| !shared.contains(&name.as_str()))
        {
            let refuse = |reason: &str| Err(self.file.error(&tensor, reason));
            if let Some(remedy) = remedy(&tensor) {
                return refuse(&remedy.to_string());
            }
            if duplicates.contains(&tensor) {
                continue;
            }
            let Some(name) = tensor.strip_prefix(PREFIX) else {
                return refuse(
                    "does not begin with `base_model.model.`, as tensors from peft's save_pretrained do: it may be a weight \
                     of a whole model, which is no adapter; save the adapter with peft",
                );
            };
            let hint = hint(name);
            let of_base = match hint.is_none() && !is_of_adapter(&tensor) {
                true => of_base,
                false => &[],
            };
            let found = suffixes
                .iter()
                .chain(of_base)
                .find_map(|suffix| Some((name.strip_suffix(suffix)?, *suffix)));
            let Some((module, suffix)) = found else {
                // Statistics of norms, packed projections: tensors of layers trained whole.
                if !of_base.is_empty() {
                    let (module, _) = name.rsplit_once('.').unwrap_or((name, ""));
                    others.entry(module.to_owned()).or_default().push(tensor.clone());
                    continue;
                }
                let known: Vec<&str> =
                    suffixes.iter().map(|suffix| suffix.trim_start_matches('.')).collect();
                let of_type = format!(
                    "is none of {} of a module; only those can be proven",
                    known.join(", ")
                );
                return refuse(hint.unwrap_or(&of_type));
            };
            modules.entry(module.to_owned()).or_default().insert(suffix, tensor.clone());
        }
        if modules.is_empty() {
            let reason = "holds no tensor, so there is no adapter in it (with ZeRO-3, weights must be gathered before they \
                          are saved: stage3_gather_16bit_weights_on_model_save)"
                .into();
            return Err(Error::Safetensors { path: self.file.path().to_owned(), reason });
        }
        for name in modules.keys().chain(others.keys()) {
            module_name::check(name)?;
        }
        Ok(Sorted { modules, others })
    }

    /// An error about one tensor.
    pub(super) fn error(&self, tensor: &str, reason: impl Into<String>) -> Error {
        self.file.error(tensor, reason)
    }

    /// BLAKE3 of type, shape and content of a tensor.
    pub(super) fn digest(&mut self, tensor: &str) -> Result<blake3::Hash, Error> {
        self.file.digest(tensor)
    }

    /// The shape of a tensor.
    pub(super) fn shape(&self, tensor: &str) -> Result<Vec<usize>, Error> {
        self.file.shape(tensor)
    }

    /// Names of all tensors.
    pub(super) fn names(&self) -> Vec<String> {
        self.file.names()
    }

    /// Whether the file has a tensor.
    pub(super) fn has(&self, tensor: &str) -> bool {
        self.file.has(tensor)
    }

    /// The dimensions of a tensor, which must be `expected` and not zero.
    pub(super) fn dims<const N: usize>(
        &self,
        tensor: &str,
        expected: [Dim; N],
    ) -> Result<[usize; N], Error> {
        let found = self.file.shape(tensor)?;
        let fits =
            |found: &[usize; N]| found.iter().zip(expected).all(|(&size, dim)| dim.fits(size));
        if found.contains(&0) {
            return Err(self.error(
                tensor,
                format!("has no elements: its shape is {found:?}; save the adapter again"),
            ));
        }
        if let Some(dims) = <[usize; N]>::try_from(found.as_slice()).ok().filter(fits) {
            return Ok(dims);
        }
        let expected: Vec<String> = expected
            .iter()
            .map(|dim| match dim {
                Dim::Is(size) => size.to_string(),
                Dim::Any(what) => (*what).to_owned(),
            })
            .collect();
        let reason = format!(
            "has the shape {found:?} where [{}] is expected by the config and the other tensors; the two files may be \
             of different adapters",
            expected.join(", ")
        );
        Err(self.error(tensor, reason))
    }

    /// A tensor's values, all finite.
    pub(super) fn values(&mut self, module: &str, tensor: &str) -> Result<Vec<f32>, Error> {
        let values = self.file.read_f32(tensor)?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(position) => Err(Error::NotFinite {
                path: self.file.path().to_owned(),
                module: module.to_owned(),
                tensor: tensor.to_owned(),
                position,
                value: f64::from(values[position]),
            }),
        }
    }

    /// Reserves `numbers` more numbers for a module.
    ///
    /// # Errors
    /// [`Error::ModuleTooLarge`] if they exceed the limit of a module or of all modules together.
    pub(super) fn reserve(&mut self, module: &str, numbers: Option<usize>) -> Result<(), Error> {
        let allowed = numbers.filter(|&numbers| numbers <= MAX_DERIVED_OF_MODULE);
        self.left = allowed.and_then(|numbers| self.left.checked_sub(numbers)).ok_or_else(|| Error::ModuleTooLarge {
            module: module.to_owned(),
            reason: format!(
                "its matrices have more than {MAX_DERIVED_OF_MODULE} numbers when written out, or those of all modules have \
                 more than {MAX_DERIVED}; train with lower ranks"
            ),
        })?;
        Ok(())
    }
}

/// One module's tensors.
pub(super) struct ModuleTensors<'t, 'f> {
    pub(super) file: &'t mut AdapterTensors<'f>,
    /// Name of the module.
    pub(super) name: String,
    pub(super) by_suffix: TensorsBySuffix,
}

impl ModuleTensors<'_, '_> {
    /// Whether the module has a tensor.
    pub(super) fn has(&self, suffix: &str) -> bool {
        self.by_suffix.contains_key(suffix)
    }

    /// Name of a tensor that the module must have.
    fn tensor(&self, suffix: &str) -> Result<&str, Error> {
        self.by_suffix.get(suffix).map(String::as_str).ok_or_else(|| {
            self.error(
                suffix,
                "is missing, although the module or the config needs it; save the adapter again",
            )
        })
    }

    /// Dimensions of a tensor, see [`AdapterTensors::dims`].
    pub(super) fn dims<const N: usize>(
        &self,
        suffix: &str,
        expected: [Dim; N],
    ) -> Result<[usize; N], Error> {
        self.file.dims(self.tensor(suffix)?, expected)
    }

    /// A tensor's values, all finite. Call [`ModuleTensors::dims`] first.
    pub(super) fn values(&mut self, suffix: &str) -> Result<Vec<f32>, Error> {
        let tensor = self.tensor(suffix)?.to_owned();
        self.file.values(&self.name, &tensor)
    }

    /// A matrix `[rows, cols]` with its dimensions.
    pub(super) fn matrix(&mut self, suffix: &str, expected: [Dim; 2]) -> Result<Matrix, Error> {
        let [rows, cols] = self.dims(suffix, expected)?;
        Ok(Matrix { rows, cols, values: self.values(suffix)? })
    }

    /// How many dimensions a tensor has.
    pub(super) fn dimensions(&self, suffix: &str) -> Result<usize, Error> {
        Ok(self.file.shape(self.tensor(suffix)?)?.len())
    }

    /// A matrix `[rows, cols]`, or the kernel `[rows, channels, …]` of a convolution as the matrix
    /// `[rows, channels · …]`, with the sizes of the kernel (none for a matrix).
    pub(super) fn kernel(
        &mut self,
        suffix: &str,
        expected: [Dim; 2],
    ) -> Result<(Matrix, Vec<usize>), Error> {
        let shape = self.file.shape(self.tensor(suffix)?)?;
        let Some((&[rows, channels], kernel)) = shape
            .split_first_chunk()
            .filter(|(_, kernel)| (1..=MAX_KERNEL).contains(&kernel.len()))
        else {
            return Ok((self.matrix(suffix, expected)?, Vec::new()));
        };
        let cols = kernel.iter().try_fold(channels, |cols, &size| cols.checked_mul(size));
        match cols {
            Some(cols) if expected[0].fits(rows) && expected[1].fits(cols) => {
                let matrix = Matrix { rows, cols, values: self.values(suffix)? };
                Ok((matrix, kernel.to_vec()))
            }
            _ => Err(self.error(
                suffix,
                format!(
                    "has the shape {shape:?}, which does not fit the config and the other tensors; the two files \
                     may be of different adapters"
                ),
            )),
        }
    }

    /// A vector of `size` numbers; dimensions of size 1 do not matter.
    pub(super) fn vector(&mut self, suffix: &str, size: usize) -> Result<Vec<f32>, Error> {
        let shape = self.file.shape(self.tensor(suffix)?)?;
        if shape.iter().any(|&dim| dim != 1 && dim != size) || !shape.contains(&size) {
            self.dims(suffix, [Dim::Is(size)])?;
        }
        let values = self.values(suffix)?;
        match values.len() == size {
            true => Ok(values),
            false => {
                Err(self
                    .error(suffix, format!("has the shape {shape:?} where [{size}] is expected")))
            }
        }
    }

    /// Reserves numbers that are not in the file, see [`AdapterTensors::reserve`].
    pub(super) fn reserve(&mut self, numbers: Option<usize>) -> Result<(), Error> {
        self.file.reserve(&self.name, numbers)
    }

    /// An error about one tensor of the module.
    pub(super) fn error(&self, suffix: &str, reason: impl Into<String>) -> Error {
        self.file.error(&format!("{PREFIX}{}{suffix}", self.name), reason)
    }
}

/// A matrix, row-major.
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) values: Vec<f32>,
}

impl Matrix {
    pub(super) fn transposed(&self) -> Matrix {
        let columns =
            (0..self.cols).flat_map(|col| self.values.iter().skip(col).step_by(self.cols));
        Matrix { rows: self.cols, cols: self.rows, values: columns.copied().collect() }
    }

    /// The row with this index.
    pub(super) fn row(&self, at: usize) -> &[f32] {
        &self.values[at * self.cols..][..self.cols]
    }
}
