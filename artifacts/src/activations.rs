//! Reads activations as floats, per module and input: the input of `trace record`.
//!
//! It reads safetensors with one tensor `<module>.<input>` each (f32, f16, bf16; any leading
//! dimensions are rows). For a single module it also reads `.npy`, and JSON `{"input_data": [[…]]}`
//! as EZKL and the original ZKLoRA write it.

use std::{collections::BTreeMap, path::Path};

use safetensors::{Dtype, SafeTensors};
use zklora_files::MAX_FILE;
use zklora_proof::manifest::Module;

use crate::{Error, npy};

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
    /// Reads a file for these modules. For `.npy` and JSON, `module` names the module unless the
    /// adapter has only one.
    pub fn read(
        path: &Path,
        modules: &[Module],
        module: Option<&str>,
    ) -> Result<Activations, Error> {
        Activations::parse(path, &zklora_files::read(path, MAX_FILE)?, modules, module)
    }

    /// [`Activations::read`] of bytes in memory. The extension of `path` gives the format.
    pub fn parse(
        path: &Path,
        bytes: &[u8],
        modules: &[Module],
        module: Option<&str>,
    ) -> Result<Activations, Error> {
        match path.extension().and_then(|e| e.to_str()) {
            Some("safetensors") => from_safetensors(path, bytes, modules),
            Some("npy") => {
                let (_, values) = npy::parse(path, bytes)?;
                single(path, modules, module, vec![values])
            }
            Some("json") => single(path, modules, module, from_json(path, bytes)?),
            _ => Err(Error::file(path, "activations are read from .safetensors, .npy or .json")),
        }
    }
}

fn from_safetensors(path: &Path, bytes: &[u8], modules: &[Module]) -> Result<Activations, Error> {
    let tensors = SafeTensors::deserialize(bytes)
        .map_err(|e| Error::file(path, format!("not a safetensors file: {e}")))?;
    let mut out = Activations::default();
    let mut used = std::collections::HashSet::new();
    for module in modules {
        let mut inputs = Vec::new();
        for input in &module.inputs {
            let name = format!("{}.{}", module.name, input.name);
            let Ok(tensor) = tensors.tensor(&name) else { continue };
            inputs.push(rows_of(
                path,
                &name,
                floats(path, &name, tensor.dtype(), tensor.data())?,
                tensor.shape(),
                input.dim,
            )?);
            used.insert(name);
        }
        if inputs.len() == module.inputs.len() && !inputs.is_empty() {
            out.modules.insert(module.name.clone(), inputs);
        } else if !inputs.is_empty() {
            return Err(Error::file(
                path,
                format!(
                    "module `{}` has {} of its {} inputs",
                    module.name,
                    inputs.len(),
                    module.inputs.len()
                ),
            ));
        }
    }
    if out.modules.is_empty() {
        return Err(Error::file(
            path,
            format!(
                "no tensor here is an input of the adapter: expected names such as `{}.x`",
                modules[0].name
            ),
        ));
    }
    out.ignored = tensors
        .names()
        .into_iter()
        .filter(|name| !used.contains(*name))
        .map(str::to_string)
        .collect();
    out.ignored.sort();
    Ok(out)
}

fn rows_of(
    path: &Path,
    name: &str,
    values: Vec<f32>,
    shape: &[usize],
    dim: usize,
) -> Result<Vec<f32>, Error> {
    if shape.last() != Some(&dim) {
        return Err(Error::file(
            path,
            format!("tensor `{name}` has shape {shape:?}: its last dimension must be {dim}"),
        ));
    }
    Ok(values)
}

fn floats(path: &Path, name: &str, dtype: Dtype, data: &[u8]) -> Result<Vec<f32>, Error> {
    Ok(match dtype {
        Dtype::F32 => {
            data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        Dtype::F16 => {
            data.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        }
        Dtype::BF16 => {
            data.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        }
        other => {
            return Err(Error::file(
                path,
                format!("tensor `{name}` is {other:?}: activations are F32, F16 or BF16"),
            ));
        }
    })
}

#[derive(serde::Deserialize)]
struct InputData {
    input_data: Vec<Vec<f32>>,
}

fn from_json(path: &Path, bytes: &[u8]) -> Result<Vec<Vec<f32>>, Error> {
    let data: InputData = serde_json::from_slice(bytes).map_err(|e| {
        Error::file(path, format!("not JSON of the form {{\"input_data\": [[1.0, …]]}}: {e}"))
    })?;
    Ok(data.input_data)
}

/// Inputs of one module, one flat list each.
fn single(
    path: &Path,
    modules: &[Module],
    name: Option<&str>,
    inputs: Vec<Vec<f32>>,
) -> Result<Activations, Error> {
    let module = match (name, modules) {
        (Some(name), _) => modules.iter().find(|m| m.name == name),
        (None, [only]) => Some(only),
        (None, _) => {
            return Err(Error::file(
                path,
                format!(
                    "the adapter has {} modules: name one with --module, or use a safetensors file",
                    modules.len()
                ),
            ));
        }
    }
    .ok_or_else(|| {
        Error::Input(format!("the adapter has no module `{}`", name.unwrap_or_default()))
    })?;
    if inputs.len() != module.inputs.len() {
        return Err(Error::file(
            path,
            format!(
                "{} inputs, module `{}` takes {}",
                inputs.len(),
                module.name,
                module.inputs.len()
            ),
        ));
    }
    for (values, input) in inputs.iter().zip(&module.inputs) {
        if values.is_empty() || values.len() % input.dim != 0 {
            return Err(Error::file(
                path,
                format!("{} values are not whole rows of {}", values.len(), input.dim),
            ));
        }
    }
    Ok(Activations { modules: [(module.name.clone(), inputs)].into(), ignored: Vec::new() })
}
