//! Which layer of the graph each injection point means.
//!
//! A module's name is compared with what the exporter noted about the layers; what a wrapper put
//! before it (`m.model.layers…`) does not matter. Where the exporter noted nothing, the name of the
//! layer's matrix says it: less reliable, for tied matrices have one name. Must not change the
//! graph.

use std::collections::HashSet;

use super::{
    layers::{Layer, Tensors},
    point::InjectionPoint,
};
use crate::{AppliesTo, Error, near::near};

/// The layer of a point.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub layer: Layer,
    /// What the layer puts out where the delta is added; for a point at the input, the layer's
    /// output all the same.
    pub output: String,
}

/// The layer of each point, in their order.
pub(super) fn find(
    points: &[InjectionPoint],
    tensors: &Tensors<'_>,
    layers: &[Layer],
) -> Result<Vec<Found>, Error> {
    let mut taken = HashSet::new();
    let mut found = Vec::with_capacity(points.len());
    for point in points {
        let this = match &point.tensor {
            Some(tensor) => by_tensor(point, tensor, tensors, layers)?,
            None => by_name(point, layers)?,
        };
        check_sizes(point, &this)?;
        if !taken.insert((this.layer.node, point.applies_to == AppliesTo::Input)) {
            let reason = format!(
                "is the layer that puts out {}, which another module is, too; a layer can be adapted once",
                crate::error::quoted(&this.layer.output)
            );
            return Err(Error::Module { module: point.module.clone(), reason });
        }
        found.push(this);
    }
    Ok(found)
}

fn by_tensor(
    point: &InjectionPoint,
    tensor: &str,
    tensors: &Tensors<'_>,
    layers: &[Layer],
) -> Result<Found, Error> {
    let refuse = |reason: String| Error::Module { module: point.module.clone(), reason };
    let shown = crate::error::quoted(tensor);
    if tensors.producer(tensor).is_none() {
        let near: Vec<String> =
            near(tensor, tensors.names()).iter().map(|name| crate::error::quoted(name)).collect();
        return Err(refuse(format!(
            "--map names the tensor {shown}, which no node of the model makes; near it: {}",
            near.join(", ")
        )));
    }
    let layer = tensors.layer_of(tensor, layers).ok_or_else(|| {
        refuse(format!(
            "--map names the tensor {shown}, which is not what a linear layer (MatMul or Gemm with a stored matrix) or an embedding \
             (Gather) puts out; name the output of such a node"
        ))
    })?;
    Ok(Found { layer: layer.clone(), output: tensor.to_owned() })
}

fn by_name(point: &InjectionPoint, layers: &[Layer]) -> Result<Found, Error> {
    let called =
        |name: &Option<String>| name.as_deref().is_some_and(|name| ends_with(name, &point.module));
    let mut candidates: Vec<&Layer> = layers.iter().filter(|layer| called(&layer.scope)).collect();
    if candidates.is_empty() {
        candidates = layers.iter().filter(|layer| called(&layer.weight)).collect();
    }
    if let [_, _, ..] = candidates.as_slice() {
        // A matrix may be an embedding at one end of the model and a linear layer at the other; the
        // sizes tell them apart.
        let fitting: Vec<&Layer> =
            candidates.iter().copied().filter(|layer| fits(point, layer)).collect();
        if !fitting.is_empty() {
            candidates = fitting;
        }
    }
    match candidates.as_slice() {
        [layer] => Ok(Found { layer: (*layer).clone(), output: layer.output.clone() }),
        [] => Err(Error::NoSuchLayer {
            module: point.module.clone(),
            near: near(&point.module, layers.iter().map(Layer::name)),
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

/// Whether `module` is `name`, or its last parts.
fn ends_with(name: &str, module: &str) -> bool {
    name.strip_suffix(module).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The sizes that do not fit: whether it is the input, what is wanted, what is there.
fn misfit(point: &InjectionPoint, layer: &Layer) -> Option<(bool, usize, usize)> {
    let [d_in, d_out] = layer.size;
    let base = match point.applies_to {
        AppliesTo::Output => (false, point.base_dim, d_out),
        AppliesTo::Input => (true, point.base_dim, d_in),
    };
    let x = point.x_dim.map(|x_dim| (true, x_dim, d_in));
    [Some(base), x].into_iter().flatten().find(|(_, wanted, there)| wanted != there)
}

fn fits(point: &InjectionPoint, layer: &Layer) -> bool {
    misfit(point, layer).is_none()
}

fn check_sizes(point: &InjectionPoint, found: &Found) -> Result<(), Error> {
    let Some((of_input, expected, there)) = misfit(point, &found.layer) else { return Ok(()) };
    let tensor = if of_input { &found.layer.x } else { &found.output };
    Err(Error::LayerSize {
        module: point.module.clone(),
        tensor: tensor.clone(),
        expected,
        found: there,
    })
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
