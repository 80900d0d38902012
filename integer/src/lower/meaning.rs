//! What tensors can mean, and what the walk has found so far.

use std::sync::Arc;

use tract_onnx::prelude::*;
use zklora_models::language_model::LayerGraph;

use super::{
    expression::Expression,
    heads::HeadCells,
    positional::Evaluator,
    view::{Axis, Source, View},
};
use crate::{
    graph::{Operator, ValueId},
    weight::Weight,
};

/// Why a graph has no integer model.
#[derive(Debug)]
pub(super) struct Refusal {
    pub node: String,
    pub operator: String,
    pub why: String,
}

impl Refusal {
    /// A refusal that names no node.
    pub fn of_graph(why: String) -> Refusal {
        Refusal { node: "?".into(), operator: "?".into(), why }
    }

    pub fn of_node(node: &TypedNode, why: String) -> Refusal {
        Refusal { node: node.name.clone(), operator: node.op.name().into_owned(), why }
    }
}

/// What a tensor means.
#[derive(Debug, Clone)]
pub(super) enum Meaning {
    Constant(Arc<Tensor>),
    Ids,
    View(View),
    /// Scores of attention.
    Scores(Scores),
    /// Scores after the softmax.
    Weights(Scores),
    /// False everywhere.
    Never,
    /// 0 for keys up to the query, very negative for later ones.
    CausalSum,
    /// True for keys up to the query, false for later ones.
    CausalChoice,
    /// True for keys after the query, false for others.
    LaterChoice,
    /// A tensor of positions that has no meaning by itself.
    Unknown,
}

/// Where the features of a listed source come from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Entry {
    /// The result of an operator.
    Value(ValueId),
    /// A function of another entry, feature by feature.
    Function(usize, Expression),
    /// The sum over the features of another entry, or of their squares.
    Total { of: usize, squares: bool },
    /// Another entry minus the mean of its features.
    Centred(usize),
}

/// The walk, and what it has found.
pub(super) struct Interpreter<'a> {
    pub layers: &'a LayerGraph,
    pub evaluator: Evaluator<'a>,
    pub entries: Vec<Entry>,
    /// For each product of queries and keys, the cells of both.
    pub scores: Vec<[HeadCells; 2]>,
    pub operators: Vec<Operator>,
    /// Features of each operator's result.
    pub widths: Vec<usize>,
    pub weights: Vec<Weight>,
}

/// Why an operand that has no meaning is refused.
pub(super) const UNKNOWN: &str =
    "an operand of numbers that are no causal mask, no positions from 0 and no waves of them";

pub(super) type Outcome<T> = Result<T, String>;

/// Scores of attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scores {
    /// Index of the cells of queries and keys.
    pub of: usize,
    /// The factor of their product.
    pub factor: f64,
    /// Whether later keys are masked.
    pub masked: bool,
}

/// An error of tract as a reason.
pub(super) fn tract(error: TractError) -> String {
    format!("{error:#}")
}

impl Interpreter<'_> {
    pub fn fact(&self, outlet: OutletId) -> Outcome<&TypedFact> {
        self.layers.model.outlet_fact(outlet).map_err(tract)
    }

    /// The axes of a tensor.
    pub fn axes(&self, outlet: OutletId) -> Outcome<Vec<Axis>> {
        self.axes_of(self.fact(outlet)?.shape.iter())
    }

    pub fn axes_of<'d>(&self, dims: impl Iterator<Item = &'d TDim>) -> Outcome<Vec<Axis>> {
        dims.map(|dim| {
            let axis = self.evaluator.axis(dim);
            axis.ok_or_else(|| format!("a tensor has {dim} entries along an axis"))
        })
        .collect()
    }

    /// The index of an operator, which is added unless it is known: exporters repeat what both
    /// queries and keys need.
    pub fn push(&mut self, operator: Operator) -> ValueId {
        if let Some(known) = self.operators.iter().rposition(|known| *known == operator) {
            return known;
        }
        let width = operator.width(&self.widths, &self.weights);
        self.widths.push(width);
        self.operators.push(operator);
        self.operators.len() - 1
    }

    /// The index of an entry, which is added unless it is known.
    pub fn list(&mut self, entry: Entry) -> usize {
        if let Some(known) = self.entries.iter().rposition(|known| *known == entry) {
            return known;
        }
        self.entries.push(entry);
        self.entries.len() - 1
    }

    /// A view of an operator's result, feature by feature.
    pub fn whole_value(&mut self, axes: Vec<Axis>, value: ValueId) -> Outcome<View> {
        let entry = self.list(Entry::Value(value));
        let view = View::identity(axes, Source::Listed(entry));
        if view.cells.len() != self.width(value) {
            return Err("a result of another width than its shape".into());
        }
        Ok(view)
    }

    /// The entry of a listed source, and its index.
    pub fn entry(&self, source: Source) -> Option<(usize, &Entry)> {
        match source {
            Source::Listed(at) => self.entries.get(at).map(|entry| (at, entry)),
            _ => None,
        }
    }

    /// The entry whose features these cells are: all of them, in order, and nothing else.
    pub fn whole(&self, view: &View) -> Option<(usize, &Entry)> {
        let (at, entry) = self.entry(view.whole()?)?;
        (self.features(at) == view.cells.len()).then_some((at, entry))
    }

    /// Features of an entry.
    pub fn features(&self, entry: usize) -> usize {
        match self.entries[entry] {
            Entry::Value(value) => self.width(value),
            Entry::Function(of, _) | Entry::Centred(of) => self.features(of),
            Entry::Total { .. } => 1,
        }
    }

    /// Features of an operator's result.
    pub fn width(&self, value: ValueId) -> usize {
        self.widths.get(value).copied().unwrap_or(0)
    }
}

impl Meaning {
    /// A view, or the view of a constant.
    pub fn into_view(self) -> Option<View> {
        match self {
            Meaning::View(view) => Some(view),
            Meaning::Constant(tensor) => View::of_constants(&tensor),
            _ => None,
        }
    }

    pub fn is_attention(&self) -> bool {
        matches!(self, Meaning::Scores(_) | Meaning::Weights(_) | Meaning::Never)
    }
}
