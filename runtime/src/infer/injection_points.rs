//! Finds the layers of the base model that the modules of manifests belong to.

use std::collections::BTreeMap;

use zklora_models::{
    AppliesTo,
    language_model::{Activations, InjectionCall, InjectionPoint},
};
use zklora_proof::{
    checked_manifest::CheckedManifest,
    manifest::{Module, TermKind},
};

use crate::Error;

/// Where the values of a module's input come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputSource {
    /// The input of the base layer.
    LayerInput,
    /// The output of the base layer.
    LayerOutput,
}

/// One contributor's module at a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PointModule {
    /// Index of the contributor.
    pub contributor: usize,
    /// Index in its manifest.
    pub module: usize,
    /// Where the values of each of the module's inputs come from.
    pub inputs: Vec<InputSource>,
}

/// A layer of the base model, and the modules whose deltas are added to it.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub injection: InjectionPoint,
    pub modules: Vec<PointModule>,
}

/// The points of all contributors; adapters on the same layer share one.
///
/// # Errors
/// [`zklora_session::Error::Contributor`] names a module that fits no layer, or that does not fit
/// the module of another adapter.
pub(crate) fn points(
    contributors: &[(&str, &CheckedManifest)],
    maps: &[(String, String)],
) -> Result<Vec<Point>, Error> {
    let mut points: Vec<Point> = Vec::new();
    let mut known_points: BTreeMap<(String, bool), usize> = BTreeMap::new();
    for (contributor, (url, manifest)) in contributors.iter().enumerate() {
        for (index, module) in manifest.modules().iter().enumerate() {
            let refuse = |why: String| zklora_session::Error::Contributor {
                url: (*url).to_string(),
                why: format!("module `{}`: {why}", module.name),
            };
            let inputs = input_sources(module).map_err(refuse)?;
            let applies_to = applies_to(module, &inputs);
            let point_module = PointModule { contributor, module: index, inputs };
            let x_dim = point_module.dim(module, InputSource::LayerInput);
            if point_module
                .dim(module, InputSource::LayerOutput)
                .is_some_and(|dim| dim != module.d_out)
            {
                return Err(
                    refuse("its input `base` has other features than its output".into()).into()
                );
            }
            let key = (module.name.clone(), applies_to == AppliesTo::Input);
            match known_points.get(&key) {
                None => {
                    known_points.insert(key, points.len());
                    let tensor = maps
                        .iter()
                        .find(|(name, _)| *name == module.name)
                        .map(|(_, tensor)| tensor.clone());
                    let injection = InjectionPoint {
                        module: module.name.clone(),
                        applies_to,
                        x_dim,
                        base_dim: module.d_out,
                        tensor,
                    };
                    points.push(Point { injection, modules: vec![point_module] });
                }
                Some(at) => {
                    let point = &mut points[*at];
                    let known = &mut point.injection;
                    let same_x = known.x_dim.is_none() || x_dim.is_none() || known.x_dim == x_dim;
                    if known.base_dim != module.d_out || !same_x {
                        return Err(refuse(
                            "another contributor's module of this name has other dimensions".into(),
                        )
                        .into());
                    }
                    known.x_dim = known.x_dim.or(x_dim);
                    point.modules.push(point_module);
                }
            }
        }
    }
    let names = |name: &String| points.iter().any(|point| point.injection.module == *name);
    match maps.iter().find(|(name, _)| !names(name)) {
        Some((name, _)) => {
            Err(Error::input(format!("--map {name}=…: no contributor has a module of this name")))
        }
        None => Ok(points),
    }
}

impl PointModule {
    fn dim(&self, module: &Module, source: InputSource) -> Option<usize> {
        self.inputs
            .iter()
            .zip(&module.inputs)
            .find(|(found, _)| **found == source)
            .map(|(_, input)| input.dim)
    }
}

/// Where the values of each input come from. Inputs are known by the names that `zklora export`
/// gives them. A single input with another name is the layer's input.
///
/// # Errors
/// Names an input that is neither.
pub fn input_sources(module: &Module) -> Result<Vec<InputSource>, String> {
    let source = |name: &str| match name {
        "base" => Some(InputSource::LayerOutput),
        "x" => Some(InputSource::LayerInput),
        _ if module.inputs.len() == 1 => Some(InputSource::LayerInput),
        _ => None,
    };
    let named = module.inputs.iter().map(|input| {
        source(&input.name).ok_or_else(|| {
            format!(
                "it has an input `{}`: with more than one, inputs are called `x` and `base`",
                input.name
            )
        })
    });
    let sources: Vec<InputSource> = named.collect::<Result<_, _>>()?;
    if sources.is_empty() {
        return Err("it takes no inputs: there is nothing to send".into());
    }
    Ok(sources)
}

/// Where the deltas go; `inputs` are the module's [`input_sources`]. A module that only scales the
/// layer's input, feature by feature, changes that input (IA3 on feedforward layers). All others
/// add to the layer's output.
pub fn applies_to(module: &Module, inputs: &[InputSource]) -> AppliesTo {
    let scales_x = module.terms.iter().all(|term| {
        term.kind == TermKind::Scale
            && term.input.and_then(|input| inputs.get(input)) == Some(&InputSource::LayerInput)
    });
    if scales_x { AppliesTo::Input } else { AppliesTo::Output }
}

/// Rows that each select one entry of an embedding. Empty for other layers.
pub(crate) fn one_hot(call: &InjectionCall<'_>, dim: usize) -> Vec<f32> {
    let Activations::Ids(ids) = call.x else { return Vec::new() };
    let mut rows = vec![0f32; ids.len() * dim];
    for (row, id) in ids.iter().enumerate() {
        // The base model has refused tokens that are out of range.
        if let Some(cell) =
            usize::try_from(*id).ok().filter(|id| *id < dim).map(|id| &mut rows[row * dim + id])
        {
            *cell = 1.0;
        }
    }
    rows
}
