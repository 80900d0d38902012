//! Walks tract's graph and says of every tensor what it means.

use std::collections::HashMap;

use tract_onnx::{
    prelude::*,
    tract_core::ops::{
        array::{Gather, GatherNd, MultiBroadcastTo, Slice, StridedSlice, TypedConcat},
        binary::TypedBinOp,
        cast::Cast,
        change_axes::AxisOp,
        einsum::EinSum,
        element_wise::ElementWiseOp,
        konst::Const,
        logic::Iff,
        nn::{Reduce, RmsNorm, Softmax},
        source::TypedSource,
    },
};
use zklora_models::language_model::{Input, LayerGraph, Pass};

use super::{
    expression::Binary,
    meaning::{Entry, Interpreter, Meaning, Outcome, Refusal, UNKNOWN, tract},
    positional::{Evaluator, Positional},
    shapes,
    view::{Axis, Source, Term, View},
};
use crate::graph::{Graph, Operator};

/// The operators of a graph whose units have at most `longest` tokens.
pub(super) fn interpret(layers: &LayerGraph, longest: usize) -> Result<Graph, Refusal> {
    let model = &layers.model;
    let mut interpreter = Interpreter {
        layers,
        evaluator: Evaluator::new(layers, longest),
        entries: Vec::new(),
        scores: Vec::new(),
        operators: Vec::new(),
        widths: Vec::new(),
        weights: Vec::new(),
    };
    let output = model.output_outlets().map_err(|error| Refusal::of_graph(tract(error)))?;
    let [output] = output[..] else {
        return Err(Refusal::of_graph("the model has another number of outputs than one".into()));
    };
    let meaning = interpreter.walk(output)?;
    let refuse = |why: String| Refusal::of_node(model.node(output.node), why);
    let no_logits = || refuse("the logits are not the result of a linear layer".into());
    let Some(Meaning::View(view)) = meaning else { return Err(no_logits()) };
    let logits = interpreter.value(&view).map_err(refuse)?;
    let Operator::Linear { weight, .. } = interpreter.operators[logits] else {
        return Err(no_logits());
    };
    let vocabulary = interpreter.weights[weight].outputs();
    if view.axes[..] != [Axis::Size(1), Axis::Tokens, Axis::Size(vocabulary)] {
        return Err(refuse("the logits are not [1, tokens, vocabulary]".into()));
    }
    let rows = interpreter.operators.iter().filter_map(|operator| match operator {
        Operator::Positions { table } => Some(interpreter.weights[*table].outputs()),
        _ => None,
    });
    Ok(Graph {
        vocabulary,
        positions: rows.chain(layers.positions).min(),
        layers: layers.layers.clone(),
        operators: interpreter.operators,
        weights: interpreter.weights,
        logits,
    })
}

impl Interpreter<'_> {
    /// The meaning of a tensor, after those of all before it. A meaning is dropped after its last
    /// use.
    fn walk(&mut self, output: OutletId) -> Result<Option<Meaning>, Refusal> {
        let model = &self.layers.model;
        let order = model.eval_order().map_err(|error| Refusal::of_graph(tract(error)))?;
        let mut last_use: HashMap<OutletId, usize> = HashMap::new();
        for (at, node) in order.iter().enumerate() {
            for input in &model.node(*node).inputs {
                last_use.insert(*input, at);
            }
        }
        let mut meanings: HashMap<OutletId, Meaning> = HashMap::new();
        let mut with_tokens = vec![false; model.nodes().len()];
        for (at, id) in order.iter().enumerate() {
            let node = model.node(*id);
            with_tokens[*id] = self.input(node) == Some(Input::Ids)
                || node.inputs.iter().any(|input| with_tokens[input.node]);
            let inputs: Vec<Meaning> = node
                .inputs
                .iter()
                .map(|input| meanings.get(input).cloned().unwrap_or(Meaning::Unknown))
                .collect();
            let found = self
                .outputs(node, with_tokens[*id], inputs)
                .map_err(|why| Refusal::of_node(node, why))?;
            for (slot, meaning) in found.into_iter().enumerate() {
                meanings.insert(OutletId::new(*id, slot), meaning);
            }
            for input in &node.inputs {
                if last_use.get(input) == Some(&at) && *input != output {
                    meanings.remove(input);
                }
            }
        }
        Ok(meanings.remove(&output))
    }

    /// Which input of the model a node is.
    fn input(&self, node: &TypedNode) -> Option<Input> {
        let inputs = self.layers.model.inputs.iter().zip(&self.layers.inputs);
        let mut found = inputs.filter(|(outlet, _)| outlet.node == node.id);
        found.next().filter(|_| node.op_is::<TypedSource>()).map(|(_, input)| *input)
    }

    fn outputs(
        &mut self,
        node: &TypedNode,
        with_tokens: bool,
        inputs: Vec<Meaning>,
    ) -> Outcome<Vec<Meaning>> {
        if let Some(constant) = node.op_as::<Const>() {
            return Ok(vec![Meaning::Constant(constant.val().clone())]);
        }
        if !with_tokens {
            return Ok(self.without_tokens(node, inputs));
        }
        let meaning = match self.input(node) {
            Some(_) => Meaning::Ids,
            None => self.output(node, inputs)?,
        };
        self.check(OutletId::new(node.id, 0), &meaning)?;
        Ok(vec![meaning])
    }

    /// Tensors of constants and positions: what has no meaning may still be used by another such
    /// tensor.
    fn without_tokens(&mut self, node: &TypedNode, inputs: Vec<Meaning>) -> Vec<Meaning> {
        if let Some(constants) = computed(node, &inputs) {
            return constants;
        }
        let structural = match self.output(node, inputs) {
            Ok(Meaning::View(view)) => Some(view),
            _ => None,
        };
        (0..node.outputs.len())
            .map(|slot| {
                let outlet = OutletId::new(node.id, slot);
                let structural = structural.as_ref().filter(|_| slot == 0);
                self.positional(outlet, structural).unwrap_or(Meaning::Unknown)
            })
            .collect()
    }

    /// What a tensor of positions is by its numbers, or else by how it is computed.
    fn positional(&mut self, outlet: OutletId, structural: Option<&View>) -> Option<Meaning> {
        let cell = match self.evaluator.recognise(outlet) {
            Ok(Positional::Constant(tensor)) => return Some(Meaning::Constant(tensor)),
            Ok(Positional::CausalSum) => return Some(Meaning::CausalSum),
            Ok(Positional::CausalChoice) => return Some(Meaning::CausalChoice),
            Ok(Positional::LaterChoice) => return Some(Meaning::LaterChoice),
            Ok(Positional::Positions(from)) => {
                let mut cell = vec![Term::of(Source::Position, 0)];
                cell.extend((from != 0.0).then(|| Term::constant(from)));
                Some(cell)
            }
            Ok(Positional::Uniform(number)) => Some(vec![Term::constant(number)]),
            Ok(Positional::Other) | Err(_) => None,
        };
        if let Some(cell) = cell {
            let axes = self.axes(outlet).ok()?;
            return Some(Meaning::View(View { axes, cells: vec![cell] }));
        }
        let view = structural?;
        let meaning = Meaning::View(view.clone());
        self.check(outlet, &meaning).ok()?;
        // How an integer operator rounds, for one, only its numbers tell.
        let right = view.has_values() || self.evaluator.agrees(outlet, view).ok()?;
        right.then_some(meaning)
    }

    /// Refuses a meaning that does not fit the shape and type of its tensor.
    fn check(&self, outlet: OutletId, meaning: &Meaning) -> Outcome<()> {
        let datum_type = self.fact(outlet)?.datum_type;
        let float = datum_type == f32::datum_type() || datum_type == f64::datum_type();
        let rounded = || format!("a cast of values to {datum_type:?}, which rounds them");
        match meaning {
            Meaning::View(view) => {
                if view.has_values() && !float {
                    return Err(rounded());
                }
                if !view.is_sound() || view.axes != self.axes(outlet)? {
                    return Err("a tensor whose shape does not say what its numbers are".into());
                }
            }
            Meaning::Scores(_) | Meaning::Weights(_) if !float => return Err(rounded()),
            Meaning::Ids => {
                let exact = float
                    || datum_type == TDim::datum_type()
                    || datum_type.is_integer() && datum_type.size_of() >= 4;
                if !exact {
                    return Err(format!("a cast of token ids to {datum_type:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn output(&mut self, node: &TypedNode, mut inputs: Vec<Meaning>) -> Outcome<Meaning> {
        let outlet = OutletId::new(node.id, 0);
        if let Some(slot) = inputs.iter().position(Meaning::is_attention) {
            return self.of_attention(node, slot, &inputs);
        }
        if let Some(gather) = node.op_as::<Gather>() {
            return self.gather(gather, outlet, &inputs);
        }
        if let (Some(gather), [Meaning::View(view), Meaning::Constant(index)]) =
            (node.op_as::<GatherNd>(), &inputs[..])
        {
            return shapes::looked_up_nd(view, gather, index).map(Meaning::View);
        }
        if let Some(einsum) = node.op_as::<EinSum>() {
            return self.einsum(einsum, node, &inputs);
        }
        if let Some(binary) = node.op_as::<TypedBinOp>() {
            let [left, right] = <[Meaning; 2]>::try_from(inputs)
                .map_err(|_| "an operator of two operands has another number of them")?;
            return self.binary(binary.0.name(), left, right);
        }
        if node.op_is::<Iff>() {
            return Err("a choice that is not a causal mask".into());
        }
        if node.op_is::<Softmax>() {
            return Err("a softmax of something else than attention's scores".into());
        }
        let unsupported = || "the integer model has no such operator".to_string();
        let first = if inputs.is_empty() { Meaning::Unknown } else { inputs.remove(0) };
        let view = match first {
            Meaning::View(view) => view,
            Meaning::Ids if keeps(node) || node.op_is::<AxisOp>() => return Ok(Meaning::Ids),
            _ => return Err(unsupported()),
        };
        if let Some(layer) = node.op_as::<Pass>().and_then(|pass| pass.layer) {
            self.mark(&view, layer);
        }
        if keeps(node) {
            return Ok(Meaning::View(view));
        }
        let misshapen = || "a change of shape that mixes tokens and features".to_string();
        let moved = if let Some(axis) = node.op_as::<AxisOp>() {
            shapes::reshaped(&view, axis, self.axes(outlet)?)?
        } else if let Some(slice) = node.op_as::<Slice>() {
            shapes::sliced(&view, slice)?
        } else if let Some(slice) = node.op_as::<StridedSlice>() {
            shapes::strided(&view, slice, &inputs)?
        } else if let Some(concat) = node.op_as::<TypedConcat>() {
            let mut views = vec![view];
            for input in inputs {
                views.push(input.into_view().ok_or_else(misshapen)?);
            }
            View::concatenated(&views, concat.axis).ok_or_else(misshapen)?
        } else if let Some(broadcast) = node.op_as::<MultiBroadcastTo>() {
            let axes = self.axes_of(broadcast.shape.iter())?;
            view.broadcast(axes).ok_or_else(misshapen)?
        } else if let Some(reduce) = node.op_as::<Reduce>() {
            self.reduced(&view, reduce)?
        } else if let Some(norm) = node.op_as::<RmsNorm>() {
            self.rms_norm(&view, norm)?
        } else if let Some(function) = node.op_as::<ElementWiseOp>() {
            self.function(&view, &function.0.name())?
        } else {
            return Err(unsupported());
        };
        Ok(Meaning::View(moved))
    }

    /// Two views, or constants, joined number by number.
    fn binary(&mut self, name: &str, left: Meaning, right: Meaning) -> Outcome<Meaning> {
        let operator = Binary::named(name)
            .ok_or_else(|| "the integer model has no such operator".to_string())?;
        let what = || "operands that the integer model does not know".to_string();
        if [&left, &right].iter().any(|operand| matches!(operand, Meaning::Unknown)) {
            return Err(UNKNOWN.into());
        }
        let left = left.into_view().ok_or_else(what)?;
        let right = right.into_view().ok_or_else(what)?;
        let axes = View::joined_axes(&left.axes, &right.axes).ok_or_else(what)?;
        let left = left.broadcast(axes.clone()).ok_or_else(what)?;
        let right = right.broadcast(axes).ok_or_else(what)?;
        self.views(operator, &left, &right).map(Meaning::View)
    }

    fn einsum(
        &mut self,
        einsum: &EinSum,
        node: &TypedNode,
        inputs: &[Meaning],
    ) -> Outcome<Meaning> {
        let out_axes = self.axes(OutletId::new(node.id, 0))?;
        let float =
            einsum.operating_dt == f32::datum_type() || einsum.operating_dt == f64::datum_type();
        let diagonal = einsum
            .axes
            .iter_all_axes()
            .any(|label| label.inputs.iter().chain(&label.outputs).any(|places| places.len() > 1));
        if einsum.q_params.is_some() || !float || diagonal {
            return Err("a product of integers, or along a diagonal".into());
        }
        match inputs {
            [Meaning::View(x), Meaning::Constant(matrix)] => {
                self.linear(&einsum.axes, [0, 1], x, matrix, out_axes).map(Meaning::View)
            }
            [Meaning::Constant(matrix), Meaning::View(x)] => {
                self.linear(&einsum.axes, [1, 0], x, matrix, out_axes).map(Meaning::View)
            }
            [Meaning::View(left), Meaning::View(right)] => {
                self.products(&einsum.axes, left, right).map(Meaning::Scores)
            }
            [Meaning::Weights(scores), Meaning::View(values)] => {
                let weights = self.axes(node.inputs[0])?;
                self.attention(&einsum.axes, *scores, &weights, values, out_axes).map(Meaning::View)
            }
            _ => Err("a product of tensors that is neither a linear layer nor attention".into()),
        }
    }

    /// An operator that reads scores or weights of attention, at input `slot`.
    fn of_attention(
        &mut self,
        node: &TypedNode,
        slot: usize,
        inputs: &[Meaning],
    ) -> Outcome<Meaning> {
        if let Some(einsum) = node.op_as::<EinSum>() {
            return self.einsum(einsum, node, inputs);
        }
        let (before, after) =
            (self.axes(node.inputs[slot])?, self.axes(OutletId::new(node.id, 0))?);
        if let (Some(axis), [scores]) = (node.op_as::<AxisOp>(), inputs) {
            let keeps = shapes::keeps_scores(axis, &before, &after);
            return keeps
                .then(|| scores.clone())
                .ok_or_else(|| "attention's scores in another order".into());
        }
        if before != after {
            return Err("attention's scores are repeated".into());
        }
        if keeps(node)
            && let [scores] = inputs
        {
            return Ok(scores.clone());
        }
        super::attention::step(node, inputs)
    }

    /// Writes the index of a layer into its operator.
    fn mark(&mut self, view: &View, index: usize) {
        let Some((_, Entry::Value(value))) = self.whole(view) else { return };
        let value = *value;
        if let Operator::Linear { layer, .. } = &mut self.operators[value] {
            *layer = Some(index);
        }
    }
}

/// Whether an operator's result is its only input. What a cast does to its type is checked for
/// every result.
fn keeps(node: &TypedNode) -> bool {
    node.op_is::<Cast>() || node.op_is::<Pass>()
}

/// The outputs of an operator whose inputs are all constants.
fn computed(node: &TypedNode, inputs: &[Meaning]) -> Option<Vec<Meaning>> {
    let constants: Vec<TValue> = inputs
        .iter()
        .map(|input| match input {
            Meaning::Constant(tensor) => Some(tensor.clone().into_tvalue()),
            _ => None,
        })
        .collect::<Option<_>>()?;
    if constants.is_empty() {
        return None;
    }
    let values = node.op.eval_out_of_plan(constants.into()).ok()??;
    Some(values.into_iter().map(|value| Meaning::Constant(value.into_arc_tensor())).collect())
}
