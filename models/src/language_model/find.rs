//! Finds the layer of the graph that each injection point names.
//!
//! A module's name is compared with the module names that the exporter wrote into the file; a
//! prefix from a wrapper (`m.model.layers…`) is ignored. Where the exporter wrote none, the name of
//! the layer's matrix is used. That is less reliable, because tied matrices share one name. Must
//! not change the graph.

use std::collections::HashSet;

use super::{
    layers::{GraphTensors, Layer},
    point::InjectionPoint,
};
use crate::{AppliesTo, Error, similar_names::similar_names};

/// The layer of a point.
#[derive(Debug, Clone)]
pub(super) struct FoundLayer {
    pub layer: Layer,
    /// The output that the delta is added to; for a point at the input, the layer's output, too.
    pub output: String,
}

/// The layer of each point, in their order.
pub(super) fn find(
    points: &[InjectionPoint],
    tensors: &GraphTensors<'_>,
    layers: &[Layer],
) -> Result<Vec<FoundLayer>, Error> {
    let mut taken = HashSet::new();
    let mut found = Vec::with_capacity(points.len());
    for point in points {
        let this = match &point.tensor {
            Some(tensor) => by_tensor(point, tensor, tensors, layers)?,
            None => by_name(point, layers)?,
        };
        check_sizes(point, &this)?;
        if !taken.insert((this.layer.node, point.applies_to == AppliesTo::Input)) {
            let (module, output) = (point.module.clone(), this.layer.output);
            return Err(Error::LayerTaken { module, output });
        }
        found.push(this);
    }
    Ok(found)
}

fn by_tensor(
    point: &InjectionPoint,
    tensor: &str,
    tensors: &GraphTensors<'_>,
    layers: &[Layer],
) -> Result<FoundLayer, Error> {
    let refuse = |reason: String| Error::MappedTensor {
        module: point.module.clone(),
        tensor: tensor.to_owned(),
        reason,
    };
    if tensors.producer(tensor).is_none() {
        let similar: Vec<String> = similar_names(tensor, tensors.names())
            .iter()
            .map(|name| crate::error::quoted(name))
            .collect();
        return Err(refuse(format!(
            "which no node of the model produces; similar names: {}",
            similar.join(", ")
        )));
    }
    let layer = tensors.layer_of(tensor, layers).ok_or_else(|| {
        refuse(
            "which is not the output of a linear layer (MatMul or Gemm with a stored matrix) or of an embedding (Gather); \
             name the output of such a node"
                .into(),
        )
    })?;
    Ok(FoundLayer { layer: layer.clone(), output: tensor.to_owned() })
}

fn by_name(point: &InjectionPoint, layers: &[Layer]) -> Result<FoundLayer, Error> {
    let called =
        |name: &Option<String>| name.as_deref().is_some_and(|name| ends_with(name, &point.module));
    let mut candidates: Vec<&Layer> = layers.iter().filter(|layer| called(&layer.scope)).collect();
    if candidates.is_empty() {
        candidates = layers.iter().filter(|layer| called(&layer.weight)).collect();
    }
    if let [_, _, ..] = candidates.as_slice() {
        // One matrix may be the embedding and the last linear layer; the sizes tell the two apart.
        let fitting: Vec<&Layer> =
            candidates.iter().copied().filter(|layer| fits(point, layer)).collect();
        if !fitting.is_empty() {
            candidates = fitting;
        }
    }
    match candidates.as_slice() {
        [layer] => Ok(FoundLayer { layer: (*layer).clone(), output: layer.output.clone() }),
        [] => Err(Error::NoSuchLayer {
            module: point.module.clone(),
            similar: similar_names(&point.module, layers.iter().map(Layer::name)),
        }),
        several => {
            let layers = several
                .iter()
                .map(|layer| format!("{} ({})", layer.name(), layer.output))
                .collect();
            Err(Error::AmbiguousLayer { module: point.module.clone(), layers })
        }
    }
}

/// Whether `module` is `name`, or the last of its parts between dots.
fn ends_with(name: &str, module: &str) -> bool {
    name.strip_suffix(module).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The first size that does not fit: whether it is the input's, the wanted size, the found size.
fn misfit(point: &InjectionPoint, layer: &Layer) -> Option<(bool, usize, usize)> {
    let [d_in, d_out] = layer.size;
    let base = match point.applies_to {
        AppliesTo::Output => (false, point.base_dim, d_out),
        AppliesTo::Input => (true, point.base_dim, d_in),
    };
    let x = point.x_dim.map(|x_dim| (true, x_dim, d_in));
    [Some(base), x].into_iter().flatten().find(|(_, wanted, found)| wanted != found)
}

fn fits(point: &InjectionPoint, layer: &Layer) -> bool {
    misfit(point, layer).is_none()
}

fn check_sizes(point: &InjectionPoint, layer: &FoundLayer) -> Result<(), Error> {
    let Some((of_input, expected, found)) = misfit(point, &layer.layer) else { return Ok(()) };
    let tensor = if of_input { &layer.layer.x } else { &layer.output };
    Err(Error::LayerSize { module: point.module.clone(), tensor: tensor.clone(), expected, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_the_end_of_a_name_at_a_dot() {
        for (name, module, expected) in [
            ("m.model.layers.1.q_proj", "model.layers.1.q_proj", true),
            ("model.layers.1.q_proj", "model.layers.1.q_proj", true),
            ("m.model.layers.11.q_proj", "model.layers.1.q_proj", false),
            ("xmodel.layers.1.q_proj", "model.layers.1.q_proj", false),
            ("m.model.layers.1.q_proj.base_layer", "model.layers.1.q_proj", false),
        ] {
            assert_eq!(ends_with(name, module), expected, "{name} {module}");
        }
    }
}
