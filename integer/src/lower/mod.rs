//! Reads a language model's ONNX file as a [`Graph`] of the integer model's operators.
//!
//! ```text
//! model.onnx ─ zklora_models::LayerGraph → tract's graph, a mark behind every layer
//!   tensors without tokens ─ positional → masks, positions, constants
//!   tensors of one token   ─ view, interpreter → what every number is → operators
//! operators and tract's graph ─ compare → the same logits, in floats
//! ```
//!
//! Nothing is recognised by a name: an operator is what its numbers are. A graph with anything else
//! is refused with the node's name and operator.

mod attention;
mod compare;
mod expression;
mod functions;
mod heads;
mod interpreter;
mod linear;
mod meaning;
mod norms;
mod positional;
mod shapes;
mod sums;
mod view;

use std::path::Path;

use zklora_models::{
    language_model::{InjectionPoint, LayerGraph},
    panics,
};

use self::meaning::Refusal;
use crate::{
    Error, calibration,
    graph::{Graph, MAX_TOKENS, Operator},
};

/// Tokens on which operators are compared with the file's own graph.
const COMPARED: usize = 48;

/// A language model as operators, and what the file says besides.
#[derive(Debug)]
pub struct Lowered {
    /// The operators, without roundings.
    pub graph: Graph,
    /// For each requested point, the index of its layer.
    pub points: Vec<usize>,
    /// `metadata_props` of the ONNX file.
    pub metadata: std::collections::BTreeMap<String, String>,
}

/// Reads an ONNX file, and finds the layers of `points` in it.
///
/// # Errors
/// The file is no language model ([`zklora_models::Error`]), or does something that is no operator
/// of the integer model ([`Error::Unsupported`]).
pub fn lower(path: &Path, points: &[InjectionPoint]) -> Result<Lowered, Error> {
    let layers = LayerGraph::load(path, points)?;
    let graph = read(path, &layers)?;
    let LayerGraph { points, metadata, .. } = layers;
    Ok(Lowered { graph, points, metadata })
}

/// Reads an ONNX file, and compares its logits with those of the operators, in floats.
///
/// # Errors
/// Those of [`lower`], and [`Error::Unsupported`] for operators that compute something else.
pub fn lower_and_compare(path: &Path) -> Result<Graph, Error> {
    let layers = LayerGraph::load(path, &[])?;
    let graph = read(path, &layers)?;
    let units = calibration::from_numbers(graph.vocabulary, COMPARED.min(longest(&layers)));
    let ids = units.first().map_or(&[][..], Vec::as_slice);
    panics::catch(|| compare::compare(&layers, &graph, ids))
        .unwrap_or_else(|| Err("tract panicked, because the file is damaged".into()))
        .map_err(|why| unsupported(path, Refusal::of_graph(why)))?;
    Ok(graph)
}

/// Most tokens of a unit of this graph.
fn longest(layers: &LayerGraph) -> usize {
    layers.positions.unwrap_or(MAX_TOKENS).min(MAX_TOKENS)
}

fn unsupported(path: &Path, refusal: Refusal) -> Error {
    let Refusal { node, operator, why } = refusal;
    Error::Unsupported { path: path.to_owned(), node, operator, why }
}

fn read(path: &Path, layers: &LayerGraph) -> Result<Graph, Error> {
    let longest = longest(layers);
    let graph = panics::catch(|| interpreter::interpret(layers, longest))
        .unwrap_or_else(|| {
            let why = "tract panicked, because the file is damaged".into();
            Err(Refusal::of_graph(why))
        })
        .map_err(|refusal| unsupported(path, refusal))?;
    let graph = graph.canonical();
    for operator in &graph.operators {
        let (table, entries) = match operator {
            Operator::Embedding { table } => (table, graph.vocabulary),
            Operator::Positions { table } => (table, graph.longest_unit()),
            _ => continue,
        };
        let found = graph.weights[*table].outputs();
        if found < entries {
            let why = format!("a table of {found} entries where {entries} are looked up");
            let (node, operator) = ("?".into(), "Gather".into());
            return Err(unsupported(path, Refusal { node, operator, why }));
        }
    }
    Ok(graph)
}
