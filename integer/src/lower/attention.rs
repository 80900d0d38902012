//! Attention: from the product of queries and keys to the product with the values.

use tract_onnx::{
    prelude::*,
    tract_core::{
        axes::Axis as Label,
        ops::{
            binary::TypedBinOp,
            element_wise::ElementWiseOp,
            logic::Iff,
            nn::{Softmax, SoftmaxKind},
        },
    },
    tract_hir::internal::{AxesMapping, InOut},
};

use super::{
    expression::Binary,
    heads::{self, HeadCells, Heads},
    meaning::{Entry, Interpreter, Meaning, Outcome, Scores, UNKNOWN, tract},
    positional::MASKED,
    view::{Axis, Source, View},
};
use crate::graph::Operator;

/// What an operator makes of scores or weights. Its result has their shape.
pub(super) fn step(node: &TypedNode, inputs: &[Meaning]) -> Outcome<Meaning> {
    let unsupported =
        || "the integer model has no such operator for attention's scores".to_string();
    if let Some(softmax) = node.op_as::<Softmax>() {
        return self::softmax(softmax, node.outputs[0].fact.rank(), inputs);
    }
    if node.op_is::<Iff>() {
        return choice(inputs);
    }
    if let (Some(function), [Meaning::Weights(_)]) = (node.op_as::<ElementWiseOp>(), inputs)
        && function.0.name() == "IsNan"
    {
        // Every query has a key that is not masked: its own. So a softmax gives numbers.
        return Ok(Meaning::Never);
    }
    let operator = node.op_as::<TypedBinOp>().and_then(|binary| Binary::named(binary.0.name()));
    let operator = operator.ok_or_else(unsupported)?;
    match (operator, inputs) {
        (
            Binary::Add,
            [Meaning::Scores(scores), Meaning::CausalSum]
            | [Meaning::CausalSum, Meaning::Scores(scores)],
        ) => Ok(Meaning::Scores(Scores { masked: true, ..*scores })),
        (Binary::Multiply, [Meaning::Scores(scores), Meaning::Constant(factor)])
        | (Binary::Multiply, [Meaning::Constant(factor), Meaning::Scores(scores)]) => {
            scores.times(uniform(factor)?).map(Meaning::Scores)
        }
        (Binary::Divide, [Meaning::Scores(scores), Meaning::Constant(divisor)]) => {
            scores.times(1.0 / uniform(divisor)?).map(Meaning::Scores)
        }
        (_, [Meaning::Unknown, _] | [_, Meaning::Unknown]) => Err(UNKNOWN.into()),
        _ => Err("attention's scores are changed by something unknown".into()),
    }
}

impl Scores {
    /// Scores times a factor. Those that are masked are not scaled: a factor could lift the mask.
    fn times(self, factor: f64) -> Outcome<Scores> {
        if self.masked {
            return Err("attention's scores are scaled after they are masked".into());
        }
        let factor = self.factor * factor;
        if !factor.is_finite() || factor <= 0.0 {
            return Err(format!("attention's scores are scaled by {factor}"));
        }
        Ok(Scores { factor, ..self })
    }
}

fn softmax(softmax: &Softmax, rank: usize, inputs: &[Meaning]) -> Outcome<Meaning> {
    let [Meaning::Scores(scores)] = inputs else {
        return Err("a softmax of something else than attention's scores".into());
    };
    if softmax.axes[..] != [rank - 1] {
        return Err("attention's softmax is not over the keys".into());
    }
    if softmax.kind != SoftmaxKind::Softmax || softmax.quant_output_dt.is_some() {
        return Err("the logarithm of a softmax, or a rounded one".into());
    }
    if !scores.masked {
        return Err("attention that is not causal".into());
    }
    Ok(Meaning::Weights(*scores))
}

fn choice(inputs: &[Meaning]) -> Outcome<Meaning> {
    let what = || "a choice that is not a causal mask".to_string();
    let (scores, other) = match inputs {
        [Meaning::Never, Meaning::Constant(_), Meaning::Weights(weights)] => {
            return Ok(Meaning::Weights(*weights));
        }
        [Meaning::CausalChoice, Meaning::Scores(scores), Meaning::Constant(other)]
        | [Meaning::LaterChoice, Meaning::Constant(other), Meaning::Scores(scores)] => {
            (scores, other)
        }
        _ => return Err(what()),
    };
    let other = other.cast_to::<f32>().map_err(tract)?;
    let values = other.try_as_plain_ram().map_err(tract)?;
    let values = values.as_slice::<f32>().map_err(tract)?;
    let masks = values.iter().all(|value| *value <= MASKED);
    masks.then(|| Meaning::Scores(Scores { masked: true, ..*scores })).ok_or_else(what)
}

/// The one number of a tensor whose elements are all equal.
fn uniform(tensor: &Tensor) -> Outcome<f64> {
    let numbers = tensor.cast_to::<f64>().map_err(tract)?;
    let numbers = numbers.try_as_plain_ram().map_err(tract)?;
    match numbers.as_slice::<f64>().map_err(tract)? {
        [first, rest @ ..] if rest.iter().all(|number| number == first) => Ok(*first),
        _ => Err("attention's scores are scaled head by head".into()),
    }
}

impl Interpreter<'_> {
    /// Scores: a product of queries and keys, whose result has an axis of tokens for each. Which of
    /// the two inputs is the queries, the order of the result's last two axes says.
    pub fn products(&mut self, axes: &AxesMapping, left: &View, right: &View) -> Outcome<Scores> {
        let cells = products(axes, [left, right])
            .ok_or_else(|| "a product of two values that is not attention".to_string())?;
        self.scores.push(cells);
        Ok(Scores { of: self.scores.len() - 1, factor: 1.0, masked: false })
    }

    /// The product of attention's weights, of the shape `weights`, with values.
    pub fn attention(
        &mut self,
        axes: &AxesMapping,
        scores: Scores,
        weights: &[Axis],
        values: &View,
        out_axes: Vec<Axis>,
    ) -> Outcome<View> {
        let application = Application::of(axes, weights, values, &out_axes)
            .ok_or_else(|| "attention's weights are not applied to values".to_string())?;
        let [query, key] = self.scores[scores.of].clone();
        let cells = application.values(values).ok_or("attention's values in an unknown order")?;
        let (query, key, values) = (self.heads(&query)?, self.heads(&key)?, self.heads(&cells)?);
        let in_order = query.groups.iter().enumerate().all(|(at, group)| at == *group);
        if !in_order || key.groups != values.groups || key.groups.len() != query.groups.len() {
            return Err("heads of attention that do not fit each other".into());
        }
        if values.rotations.is_some() || values.factor != 1.0 {
            return Err("attention's values are rotated or scaled".into());
        }
        let [q, k] = [&query, &key].map(|heads| match &heads.rotations {
            None => heads.value,
            Some(rotations) => {
                self.push(Operator::Rotary { x: heads.value, rotations: rotations.clone() })
            }
        });
        let scale = scores.factor * query.factor * key.factor;
        if !scale.is_finite() || scale <= 0.0 {
            return Err(format!("attention's scores are scaled by {scale}"));
        }
        let groups = key.groups;
        let value = self.push(Operator::Attention { q, k, v: values.value, groups, scale });
        let count = application.heads.iter().product::<usize>() * values.size;
        if self.width(value) != count {
            return Err("attention whose result has another width than its heads".into());
        }
        let entry = self.list(Entry::Value(value));
        application
            .result(Source::Listed(entry), values.size, out_axes)
            .ok_or_else(|| "attention's result in an unknown order".into())
    }

    /// What heads read, with the operator that has just these features.
    fn heads(&mut self, cells: &HeadCells) -> Outcome<Heads> {
        let heads = heads::heads(cells)?;
        let Some((_, Entry::Value(value))) = self.entry(heads.source) else {
            return Err("attention over something that is no operator's result".into());
        };
        let value = *value;
        let count = heads.size * (heads.groups.iter().max().unwrap_or(&0) + 1);
        let value = self.select(value, heads.from, count);
        Ok(Heads { value, ..heads })
    }
}

/// The place of a label in an input or output, if it has one.
fn place(places: &TVec<TVec<usize>>, slot: usize) -> Option<usize> {
    places.get(slot)?.first().copied()
}

/// The one label that a product sums over; both inputs have it.
pub(super) fn summed(axes: &AxesMapping) -> Option<&Label> {
    let mut summed = axes.iter_all_axes().filter(|label| place(&label.outputs, 0).is_none());
    let label = summed.next().filter(|label| (0..2).all(|at| place(&label.inputs, at).is_some()));
    label.filter(|_| summed.next().is_none())
}

/// Cells of queries and of keys: heads in the order of the result's axes before the last two.
fn products(axes: &AxesMapping, views: [&View; 2]) -> Option<[HeadCells; 2]> {
    let inner = summed(axes)?;
    let labels: Vec<&Label> = axes.axes(InOut::Out(0)).collect();
    let (tokens, heads) = (labels.len().checked_sub(2)?, labels.len() - 2);
    let axis = |label: &Label, slot: usize| Some(views[slot].axes[place(&label.inputs, slot)?]);
    // The input that alone has a label, which is its axis of tokens.
    let only = |label: &Label| match [axis(label, 0), axis(label, 1)] {
        [Some(Axis::Tokens), None] => Some(0),
        [None, Some(Axis::Tokens)] => Some(1),
        _ => None,
    };
    let (query, key) = (only(labels[tokens])?, only(labels[tokens + 1])?);
    if query == key || axis(inner, 0) != axis(inner, 1) {
        return None;
    }
    let sizes: Vec<usize> = labels[..heads]
        .iter()
        .map(|label| (0..2).filter_map(|slot| axis(label, slot)).map(Axis::cells).max())
        .collect::<Option<_>>()?;
    let cells = |slot: usize| head_cells(views[slot], slot, &labels[..heads], &sizes, inner);
    Some([cells(query)?, cells(key)?])
}

/// The cells of input `slot`, head by head; along a head, those of the axis called `feature`. An
/// input without one of the labels of heads, or with an axis of size 1, is the same for all heads
/// along it.
fn head_cells(
    view: &View,
    slot: usize,
    labels: &[&Label],
    sizes: &[usize],
    feature: &Label,
) -> Option<HeadCells> {
    let feature = place(&feature.inputs, slot)?;
    let Axis::Size(size) = view.axes[feature] else { return None };
    for (label, size) in labels.iter().zip(sizes) {
        let own = place(&label.inputs, slot).map_or(Axis::Size(1), |at| view.axes[at]);
        if own != Axis::Size(1) && own != Axis::Size(*size) {
            return None;
        }
    }
    let shape = sizes.iter().copied().chain([size]).map(Axis::Size).collect();
    let flat = view.gathered(shape, |index| {
        let mut at = vec![0; view.axes.len()];
        for (label, index) in labels.iter().zip(index) {
            if let Some(own) = place(&label.inputs, slot) {
                at[own] = if view.axes[own].cells() == 1 { 0 } else { *index };
            }
        }
        at[feature] = index[labels.len()];
        at
    })?;
    Some(flat.cells.chunks(size.max(1)).map(<[_]>::to_vec).collect())
}

/// How a product applies attention's weights, its first input, to values, its second.
struct Application<'a> {
    /// The labels of heads, in the order of the weights' axes, and their sizes.
    labels: Vec<&'a Label>,
    heads: Vec<usize>,
    /// The label of a head's features.
    feature: &'a Label,
}

impl<'a> Application<'a> {
    fn of(
        axes: &'a AxesMapping,
        weights: &[Axis],
        values: &View,
        out_axes: &[Axis],
    ) -> Option<Application<'a>> {
        let key = summed(axes)?;
        let labels: Vec<&Label> = axes.axes(InOut::In(0)).collect();
        let heads = labels.len().checked_sub(2)?;
        let query = labels[heads];
        let over_keys = place(&key.inputs, 0) == Some(heads + 1)
            && values.axes[place(&key.inputs, 1)?] == Axis::Tokens;
        let for_queries = place(&query.inputs, 1).is_none()
            && out_axes[place(&query.outputs, 0)?] == Axis::Tokens;
        let mut own = axes.iter_all_axes().filter(|label| place(&label.inputs, 0).is_none());
        let feature = own.next().filter(|_| own.next().is_none())?;
        let sizes = weights[..heads].iter().map(|axis| match axis {
            Axis::Size(size) => Some(*size),
            Axis::Tokens => None,
        });
        let heads = sizes.collect::<Option<Vec<usize>>>()?;
        let labels = labels[..heads.len()].to_vec();
        let stay = labels.iter().zip(&heads).all(|(label, size)| {
            place(&label.outputs, 0).is_some_and(|at| out_axes[at] == Axis::Size(*size))
        });
        (over_keys && for_queries && stay).then_some(Application { labels, heads, feature })
    }

    fn values(&self, values: &View) -> Option<HeadCells> {
        head_cells(values, 1, &self.labels, &self.heads, self.feature)
    }

    /// The result: features lie head by head, in the order of the weights' axes.
    fn result(&self, source: Source, size: usize, out_axes: Vec<Axis>) -> Option<View> {
        let labels = self.labels.iter().chain([&self.feature]);
        let places: Vec<usize> =
            labels.map(|label| place(&label.outputs, 0)).collect::<Option<_>>()?;
        if out_axes[*places.last()?] != Axis::Size(size) {
            return None;
        }
        let shape = self.heads.iter().copied().chain([size]).map(Axis::Size).collect();
        let flat = View::identity(shape, source);
        flat.gathered(out_axes, |index| places.iter().map(|at| index[*at]).collect())
    }
}
