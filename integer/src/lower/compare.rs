//! Compares operators with the graph that they were read from: a check of the lowering itself.
//!
//! The lowering says what every number is. Here both are run on one unit of tokens, in floats, and
//! the logits are compared, so that a graph that was read wrongly is refused, not made into another
//! function.

use tract_onnx::{prelude::*, tract_core::plan::SimplePlan};
use zklora_models::language_model::LayerGraph;

use crate::{calibrate, graph::Graph};

/// Largest difference of a logit, as a share of the range of its row. Floats of 32 bits differ by
/// far less, and another function by far more.
const TOLERANCE: f64 = 0.005;

/// Runs both on `ids`. The error says how far apart they are.
pub(super) fn compare(layers: &LayerGraph, graph: &Graph, ids: &[u32]) -> Result<(), String> {
    let expected =
        of_graph(layers, ids).map_err(|error| format!("tract cannot run it: {error:#}"))?;
    let found = calibrate::logits(graph, ids);
    if found.len() != expected.len() || found.len() != ids.len() * graph.vocabulary {
        return Err("its logits are not those of the vocabulary".into());
    }
    let rows = expected.chunks(graph.vocabulary).zip(found.chunks(graph.vocabulary));
    for (token, (expected, found)) in rows.enumerate() {
        let least = expected.iter().copied().fold(f32::INFINITY, f32::min);
        let most = expected.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let limit = TOLERANCE * f64::from(most - least).max(f64::from(f32::EPSILON));
        let pairs = expected.iter().zip(found);
        let differences: Vec<f64> = pairs.map(|(a, b)| (f64::from(*a) - b).abs()).collect();
        let difference = differences.iter().copied().fold(0.0, f64::max);
        if difference > limit || differences.iter().any(|difference| difference.is_nan()) {
            return Err(format!(
                "read as operators, it gives other logits: at token {token} they differ by \
                 {difference:.4} in a range of {:.4}",
                most - least
            ));
        }
    }
    Ok(())
}

/// The logits of tract's own graph.
fn of_graph(layers: &LayerGraph, ids: &[u32]) -> TractResult<Vec<f32>> {
    let plan = SimplePlan::new(layers.model.clone())?;
    let outputs = plan.run(layers.values(ids)?)?;
    let logits = outputs.first().ok_or_else(|| TractError::msg("there are no logits"))?;
    Ok(logits.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use super::*;
    use crate::graph::Operator;

    /// Every operator of a graph, changed a little, is noticed.
    #[test]
    fn operators_that_compute_something_else_are_noticed() {
        let base = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures/base");
        for name in ["tiny-llama", "tiny-gpt2", "tiny-qwen2"] {
            let layers = LayerGraph::load(&base.join(name).join("dynamo.onnx"), &[]).unwrap();
            let graph = crate::lower::read(&base, &layers).unwrap();
            let ids: Vec<u32> = (0..32).map(|at| at * 37 % graph.vocabulary as u32).collect();
            assert_eq!(compare(&layers, &graph, &ids), Ok(()));
            for at in 0..graph.operators.len() {
                let mut changed = graph.clone();
                match &mut changed.operators[at] {
                    Operator::Attention { scale, .. } => *scale *= 1.5,
                    Operator::Norm { epsilon, .. } => *epsilon += 1.0,
                    Operator::Rotary { rotations, .. } => rotations[0].negative ^= true,
                    Operator::Linear { bias: Some(bias), .. } => {
                        let each = bias.iter_mut().enumerate();
                        each.for_each(|(at, bias)| *bias += (at % 7) as f32 / 3.0);
                    }
                    Operator::Linear { affine, .. } => match &mut affine.gain {
                        Some(gain) => gain.iter_mut().for_each(|gain| *gain *= 1.2),
                        None => continue,
                    },
                    Operator::Activation { function, .. } => {
                        *function = crate::graph::Function::Relu;
                    }
                    _ => continue,
                }
                let found = compare(&layers, &changed, &ids);
                assert!(found.is_err(), "{name}: operator {at}, {}", graph.operators[at].name());
            }
        }
    }
}
