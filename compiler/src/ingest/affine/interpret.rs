//! Evaluates the typed graph over abstract values, in evaluation order.
//!
//! Knows the graph and its values; the effect of each operator is in `operators`.

use std::{collections::HashMap, sync::Arc};

use tract_onnx::{
    prelude::{
        Datum, IntoArcTensor, IntoTValue, OutletId, TValue, Tensor, TractResult, TypedFact,
        TypedModel, TypedNode, TypedOp,
    },
    tract_core::{
        internal::{EvalOp, TDim, TVec, format_err},
        ops::{array::MultiBroadcastTo, einsum::EinSum, source::TypedSource},
    },
};

use super::{
    axes::{Axes, broadcasts, concrete, extent},
    constant::Constant,
    describe::describe,
    expression::Affine,
    expression_size::ExpressionSize,
    operators,
    undivided_input::UndividedInput,
    value::Value,
};
use crate::ingest::{
    error::{IngestError, PRODUCT, Reason},
    typed_graph::{
        budget::{FoldingBudget, UNKNOWN_SIZE, work_of},
        graph::Graph,
        integer_ranges::check_cast,
        origins::{NodeOutcome, Origins},
        symbolic_sizes::check_tensor,
        withheld::Withheld,
    },
};

/// The values that later nodes need, each with its number of uses.
struct Values {
    known: HashMap<OutletId, Value>,
    uses: HashMap<OutletId, usize>,
}

/// The rows of an image, where both readings are possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingest) enum Images {
    /// Every position is a row, and its channels are the features.
    PositionsAsRows,
    /// The whole image is one row.
    AsOneRow,
}

/// The value of a graph, and the outcome of each node.
pub(in crate::ingest) struct Interpretation {
    pub affine: Affine,
    pub steps: Vec<NodeOutcome>,
}

/// The value of the only output of `model`, which is the graph's model or its decluttered form, as
/// an affine expression.
pub(in crate::ingest) fn interpret(
    model: &TypedModel,
    Graph { origins, withheld, stored, .. }: &Graph,
    name: &str,
    images: Images,
) -> Result<Interpretation, IngestError> {
    let graph = |what: String| IngestError::Graph { name: name.into(), what };
    let outlets = model.output_outlets().map_err(|error| graph(format!("{error:#}")))?;
    let [output] = outlets else {
        return Err(graph(format!(
            "it has {} outputs; export one module with one output",
            outlets.len()
        )));
    };
    let order = model.eval_order().map_err(|error| graph(format!("{error:#}")))?;
    let mut values = Values::new(model, &order);
    let mut steps = vec![];
    let mut budget = FoldingBudget::new(*stored);
    let mut size = ExpressionSize::default();
    for id in order {
        let node = model.node(id);
        let outputs = values
            .take_all(&node.inputs)
            .and_then(|inputs| {
                let outputs = evaluate(model, node, withheld, &inputs, images, &mut budget)?;
                size.add(&outputs, &inputs)?;
                Ok(outputs)
            })
            .map_err(|reason| explain(reason, model, node, origins, name))?;
        let (origin, operator) = origins.of_node(&node.name, "");
        if let Some(value) = outputs.first().filter(|_| !operator.is_empty()) {
            let became = describe(value);
            steps.push(NodeOutcome { node: origin.into(), operator: operator.into(), became });
        }
        values.add(id, outputs);
    }
    let affine = match values.known.remove(output) {
        Some(Value::Affine(affine)) => affine,
        Some(Value::Input(view)) => view
            .divided_by_last_axis()
            .map_err(|reason| explain(reason, model, model.node(output.node), origins, name))?,
        Some(Value::Constant(_) | Value::Filled(..)) => {
            return Err(graph("its output does not depend on any input".into()));
        }
        None => {
            let what = "the output was not computed".into();
            return Err(IngestError::Internal { name: name.into(), what });
        }
    };
    Ok(Interpretation { affine, steps })
}

impl Values {
    fn new(model: &TypedModel, order: &[usize]) -> Self {
        let mut uses = HashMap::new();
        let needed = order.iter().flat_map(|id| &model.node(*id).inputs).chain(&model.outputs);
        needed.for_each(|outlet| *uses.entry(*outlet).or_default() += 1);
        Self { known: HashMap::new(), uses }
    }

    /// The values of a node's inputs, which are dropped after their last use.
    fn take_all(&mut self, outlets: &[OutletId]) -> Result<Vec<Value>, Reason> {
        let take = |outlet: &OutletId| match self.uses.get_mut(outlet) {
            Some(uses) if *uses > 1 => {
                *uses -= 1;
                self.known.get(outlet).cloned()
            }
            _ => self.known.remove(outlet),
        };
        outlets
            .iter()
            .map(take)
            .collect::<Option<_>>()
            .ok_or_else(|| Reason::Internal("an input of a node was not computed".into()))
    }

    fn add(&mut self, id: usize, outputs: Vec<Value>) {
        let outlets =
            outputs.into_iter().enumerate().map(|(slot, value)| (OutletId::new(id, slot), value));
        self.known.extend(outlets.filter(|(outlet, _)| self.uses.contains_key(outlet)));
    }
}

fn evaluate(
    model: &TypedModel,
    node: &TypedNode,
    withheld: &Withheld,
    inputs: &[Value],
    images: Images,
    budget: &mut FoldingBudget,
) -> Result<Vec<Value>, Reason> {
    if let Some(tensor) = withheld.get(&node.name).filter(|_| node.op_is::<TypedSource>()) {
        return Ok(vec![Value::Constant(tensor.clone())]);
    }
    let facts: Vec<&TypedFact> = node.outputs.iter().map(|output| &output.fact).collect();
    let known: Option<Vec<Value>> =
        facts.iter().map(|fact| fact.konst.clone().map(Value::Constant)).collect();
    if let Some(known) = known.filter(|known| !known.is_empty()) {
        return Ok(known);
    }
    if let Some(input) = model.inputs.iter().position(|outlet| outlet.node == node.id) {
        let fact = facts.first().ok_or_else(|| Reason::Internal("an input has no type".into()))?;
        if !fact.datum_type.is_float() {
            return Err(Reason::new(format!(
                "an input of type {:?}; inputs must be floating-point numbers",
                fact.datum_type
            )));
        }
        return Ok(vec![Value::Input(UndividedInput {
            input,
            axes: Axes::buffer(fact.shape.dims()),
            factors: vec![],
            whole: images == Images::AsOneRow,
        })]);
    }
    if inputs.iter().all(|input| matches!(input, Value::Constant(_))) {
        if let Some(filled) = filled(node.op.as_ref(), inputs) {
            return Ok(vec![filled]);
        }
        return fold(node, &facts, inputs, budget);
    }
    if node.op.name() == "Dropout" {
        return dropout(model, node, inputs);
    }
    let value = operators::apply(node.op.as_ref(), inputs)?;
    if let [fact] = facts[..]
        && has_shape(&value, fact.shape.dims())
    {
        Ok(vec![value])
    } else {
        Err(Reason::new(
            "it repeats a value that depends on the input along an axis; export without broadcasting, and with a fixed number of \
             rows if a constant fixes it",
        ))
    }
}

/// One number in a shape that depends on a symbolic size (for example zeros for all rows), which no
/// tensor can hold.
fn filled(op: &dyn TypedOp, inputs: &[Value]) -> Option<Value> {
    let shape = &op.downcast_ref::<MultiBroadcastTo>()?.shape;
    let [Value::Constant(tensor)] = inputs else { return None };
    let number = Constant::read(tensor, 0).ok()?.uniform()?;
    shape
        .iter()
        .any(|dim| concrete(dim).is_none())
        .then(|| Value::Filled(number, shape.to_tvec().to_vec()))
}

/// Evaluates an operator on constants.
fn fold(
    node: &TypedNode,
    facts: &[&TypedFact],
    inputs: &[Value],
    budget: &mut FoldingBudget,
) -> Result<Vec<Value>, Reason> {
    let elements = |fact: &&TypedFact| {
        fact.shape.iter().try_fold(1usize, |product, dim| product.checked_mul(concrete(dim)?))
    };
    let made = facts.iter().try_fold(0usize, |sum, fact| sum.checked_add(elements(fact)?));
    if made.is_none() {
        return Err(Reason::new(UNKNOWN_SIZE));
    }
    let tensors: Vec<_> = inputs
        .iter()
        .filter_map(
            |input| if let Value::Constant(tensor) = input { Some(tensor.clone()) } else { None },
        )
        .collect();
    if let ([tensor], [fact]) = (&tensors[..], facts) {
        check_cast(&node.op.name(), tensor, fact.datum_type).map_err(Reason::new)?;
    }
    budget
        .pay(made, made.and_then(|made| work_of(node.op.as_ref(), &tensors, made)))
        .map_err(Reason::too_much)?;
    let narrow = |outputs: TVec<TValue>| -> TractResult<Vec<Arc<Tensor>>> {
        let outputs = outputs.into_iter().zip(facts);
        let narrow = outputs.map(|(output, fact)| {
            Ok(output.cast_to_dt(fact.datum_type)?.into_owned().into_arc_tensor())
        });
        narrow.collect()
    };
    let outputs = match in_double_precision(node.op.as_ref(), &tensors).and_then(narrow) {
        Ok(outputs) => outputs,
        // A few operators do not support f64.
        Err(_) => match node
            .op
            .eval_out_of_plan(tensors.into_iter().map(IntoTValue::into_tvalue).collect())
        {
            Ok(Some(outputs)) => outputs.into_iter().map(IntoArcTensor::into_arc_tensor).collect(),
            Ok(None) => return Err(Reason::new("it does not only depend on its inputs")),
            Err(error) => return Err(Reason::new(format!("it cannot be evaluated: {error:#}"))),
        },
    };
    outputs.iter().try_for_each(|output| check_tensor(output)).map_err(Reason::too_much)?;
    Ok(outputs.into_iter().map(Value::Constant).collect())
}

/// Evaluates an operator on constants in f64; see `typed_graph::withheld`.
fn in_double_precision(op: &dyn TypedOp, tensors: &[Arc<Tensor>]) -> TractResult<TVec<TValue>> {
    let wide = tensors.iter().map(|tensor| match tensor.datum_type().is_float() {
        true => Ok(tensor.cast_to::<f64>()?.into_owned().into_tvalue()),
        false => Ok(tensor.clone().into_tvalue()),
    });
    let wide = wide.collect::<TractResult<TVec<TValue>>>()?;
    let outputs = match op.downcast_ref::<EinSum>() {
        Some(einsum) if einsum.operating_dt.is_float() => {
            EinSum { operating_dt: f64::datum_type(), ..einsum.clone() }.eval_out_of_plan(wide)?
        }
        _ => op.eval_out_of_plan(wide)?,
    };
    outputs.ok_or_else(|| format_err!("it does not only depend on its inputs"))
}

/// Dropout is the identity unless it is in training mode, which tract decides from its constant
/// inputs.
fn dropout(model: &TypedModel, node: &TypedNode, inputs: &[Value]) -> Result<Vec<Value>, Reason> {
    match node.op.declutter(model, node) {
        Ok(Some(_)) if !inputs.is_empty() => Ok(inputs[..1].to_vec()),
        _ => Err(Reason::new(
            "it is live (training mode) and drops values at random; export the model in eval mode",
        )),
    }
}

/// Whether the value has the inferred shape, as far as both are known.
fn has_shape(value: &Value, dims: &[TDim]) -> bool {
    let axes = match value {
        Value::Constant(_) | Value::Filled(..) => return true,
        Value::Input(view) => &view.axes,
        Value::Affine(affine) => &affine.axes,
    };
    // If a symbolic number of rows becomes a fixed one, or a broadcast one, rows are repeated.
    let agree = |(axis, dim): (&[_], &TDim)| match (concrete(&extent(axis)), concrete(dim)) {
        (Some(found), Some(inferred)) => found == inferred,
        (None, Some(_)) => false,
        _ => !broadcasts(dim),
    };
    axes.rank() == dims.len() && axes.iter().zip(dims).all(agree)
}

fn explain(
    reason: Reason,
    model: &TypedModel,
    node: &TypedNode,
    origins: &Origins,
    name: &str,
) -> IngestError {
    let typed_operator = node.op.name();
    let (origin, operator) = origins.of_node(&node.name, &typed_operator);
    let (name, origin, operator) = (name.into(), origin.into(), operator.into());
    match reason {
        Reason::NotLinear(reason) => {
            IngestError::NotLinear { name, node: origin, operator, reason }
        }
        Reason::Product => {
            let inputs: Vec<String> = model
                .inputs
                .iter()
                .map(|outlet| format!("`{}`", model.node(outlet.node).name))
                .collect();
            // Olive writes weights as inputs.
            let reason = match inputs.len() {
                1 => PRODUCT.into(),
                _ => format!(
                    "{PRODUCT}: {} are inputs of the graph; weights must be initialisers, with \
                     their values in the file",
                    inputs.join(", ")
                ),
            };
            IngestError::NotLinear { name, node: origin, operator, reason }
        }
        Reason::TooMuch(reason) => IngestError::TooMuch { name, node: origin, operator, reason },
        Reason::Internal(what) => {
            IngestError::Internal { name, what: format!("node `{origin}` ({operator}): {what}") }
        }
        Reason::NonFinite(slot) => {
            let tensor =
                node.inputs.get(slot).map_or(&node.name, |outlet| &model.node(outlet.node).name);
            IngestError::NonFinite { name, tensor: origins.of_constant(tensor).into() }
        }
    }
}
