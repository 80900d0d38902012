//! Infers the facts of a graph node by node, and checks the cost of each constant before tract
//! folds it.
//!
//! A few bytes can ask for terabytes (`ConstantOfShape`, `Expand`, an outer product), and tract
//! evaluates an operator before it checks the size of the result. So inference handles one node at
//! a time: first shapes, then a check, then values.

use tract_onnx::tract_hir::{
    internal::{Factoid, InferenceFact, InferenceModel, TDim, TVec, Tensor},
    ops::unimpl::UnimplementedOp,
};
use zklora_files::text::condensed;
use zklora_models::panics;

use super::{
    budget::{FoldingBudget, work},
    integer_ranges::{check_cast, check_slice},
    origins::Origins,
    symbolic_sizes::{check_sizes, check_tensor},
};
use crate::ingest::error::IngestError;

/// Most elements of a value that depends on the input, counting its fixed dimensions.
const MAX_INFERRED: usize = 1 << 32;
/// Most rounds of inference. Facts flow forwards in one round and backwards in the next.
const MAX_ROUNDS: usize = 8;

/// Infers all facts of the model and evaluates constant nodes, except those whose result is too
/// large.
pub(in crate::ingest) fn infer_within_limits(
    model: &mut InferenceModel,
    order: &[usize],
    origins: &Origins,
    mut budget: FoldingBudget,
    name: &str,
) -> Result<(), IngestError> {
    let analysis = |what: String| IngestError::Analysis { name: name.into(), what };
    let mut paid = vec![false; model.nodes().len()];
    for _ in 0..MAX_ROUNDS {
        let mut changed = false;
        for id in order {
            // tract panics on some invalid nodes, and on some valid ones. The error names the node.
            let inferred = panics::catch(|| infer_node(model, *id, &mut budget, &mut paid[*id]));
            changed |= inferred.unwrap_or_else(|| Err(NodeError::Panicked)).map_err(|stop| {
                let typed = &model.nodes()[*id].name;
                let (node, operator) = origins.of_node(typed, "constant");
                let (name, node, operator) = (name.into(), node.into(), operator.into());
                match stop {
                    NodeError::Panicked => analysis(format!(
                        "tract cannot analyse node `{typed}`; its attributes or constants do not fit its input, or are of a \
                         kind that it does not know"
                    )),
                    NodeError::Refused(reason) => IngestError::NotLinear { name, node, operator, reason },
                    NodeError::TooMuch(reason) => IngestError::TooMuch { name, node, operator, reason },
                    NodeError::Failed(error) => analysis(format!("node `{typed}`: {}", condensed(format_args!("{error:#}")))),
                }
            })?;
        }
        if !changed {
            return Ok(());
        }
    }
    Err(analysis("its shapes do not settle".into()))
}

/// Why inference stopped at a node.
enum NodeError {
    Panicked,
    Refused(String),
    TooMuch(String),
    Failed(tract_onnx::prelude::TractError),
}

impl From<tract_onnx::prelude::TractError> for NodeError {
    fn from(error: tract_onnx::prelude::TractError) -> Self {
        Self::Failed(error)
    }
}

/// One step of inference at one node. Returns whether any fact changed.
fn infer_node(
    model: &mut InferenceModel,
    id: usize,
    budget: &mut FoldingBudget,
    paid: &mut bool,
) -> Result<bool, NodeError> {
    let facts =
        |model: &InferenceModel| -> Result<(TVec<InferenceFact>, TVec<InferenceFact>), NodeError> {
            let (inputs, outputs) = model.node_facts(id)?;
            Ok((inputs.into_iter().cloned().collect(), outputs.into_iter().cloned().collect()))
        };
    let (inputs, outputs) = facts(model)?;
    let observed_outlets = {
        let node = model.node(id);
        node.op.observe_outlets(model, node)?
    };
    let observed: Vec<InferenceFact> = observed_outlets
        .iter()
        .map(|outlet| model.outlet_fact(*outlet).cloned())
        .collect::<Result<_, _>>()?;
    let operator = model.node(id).op.name().to_string();
    if model.node(id).op_is::<UnimplementedOp>() {
        return Err(NodeError::Refused(
            "the compiler does not know this operator; export with others, or compute it beforehand".into(),
        ));
    }
    // These operators compute their value together with their shape.
    let like = operator.ends_with("Like").then(|| inputs.first().and_then(elements)).flatten();
    if !*paid && let Some(elements) = like {
        budget.pay(Some(elements), Some(elements)).map_err(NodeError::TooMuch)?;
    }
    let op = &mut model.node_mut(id).op;
    let (shaped_in, shaped_out, _) = op.infer_facts(
        inputs.iter().collect(),
        outputs.iter().collect(),
        observed.iter().collect(),
    )?;
    if shaped_out.iter().any(|fact| elements(fact).is_some_and(|elements| elements > MAX_INFERRED))
    {
        return Err(NodeError::TooMuch(format!(
            "its result has more than {MAX_INFERRED} elements"
        )));
    }
    let sizes: Vec<TDim> = shaped_out
        .iter()
        .flat_map(|fact| fact.shape.dims())
        .filter_map(Factoid::concretize)
        .collect();
    check_sizes(&sizes).map_err(NodeError::TooMuch)?;
    let values: Vec<Option<_>> = shaped_in.iter().map(|fact| fact.value.concretize()).collect();
    check_slice(&operator, &values).map_err(NodeError::Refused)?;
    if let ([Some(value)], Some(to)) =
        (&values[..], shaped_out.first().and_then(|fact| fact.datum_type.concretize()))
    {
        check_cast(&operator, value, to).map_err(NodeError::Refused)?;
    }
    let values: Option<Vec<_>> = values.into_iter().collect();
    if let Some(values) = values.filter(|values| !values.is_empty())
        && !*paid
    {
        let elements = if operator == "ConstantOfShape" {
            shape_given(&values[0]).or_else(|| total(&shaped_out))
        } else {
            total(&shaped_out)
        };
        budget
            .pay(elements, elements.and_then(|out| work(&operator, &values, out)))
            .map_err(NodeError::TooMuch)?;
        *paid = true;
    }
    let (new_in, new_out, new_observed) =
        op.infer(inputs.iter().collect(), outputs.iter().collect(), observed.iter().collect())?;
    for value in new_out.iter().filter_map(|fact| fact.value.concretize()) {
        check_tensor(&value).map_err(NodeError::TooMuch)?;
    }
    let node_inputs = model.node(id).inputs.clone();
    let mut changed = false;
    let outlets = node_inputs
        .into_iter()
        .chain((0..outputs.len()).map(|slot| (id, slot).into()))
        .chain(observed_outlets);
    for (outlet, fact) in outlets.zip(new_in.into_iter().chain(new_out).chain(new_observed)) {
        let old = model.outlet_fact(outlet)?;
        let unified = fact.unify(old)?;
        if unified != *old {
            changed = true;
            model.set_outlet_fact(outlet, unified)?;
        }
    }
    Ok(changed)
}

/// Elements of a tensor; symbolic dimensions, which nothing can be allocated for, count as one.
/// None if the rank is unknown.
fn elements(fact: &InferenceFact) -> Option<usize> {
    let dims = fact.shape.concretize()?;
    dims.iter().try_fold(1usize, |all, dim: &TDim| match dim.to_i64() {
        Ok(extent) => all.checked_mul(usize::try_from(extent).ok()?).or(Some(usize::MAX)),
        Err(_) => Some(all),
    })
}

fn total(facts: &[InferenceFact]) -> Option<usize> {
    facts.iter().try_fold(0usize, |sum, fact| sum.checked_add(elements(fact)?))
}

/// The number of elements of the shape that a tensor lists.
fn shape_given(shape: &Tensor) -> Option<usize> {
    let dims = shape.cast_to::<i64>().ok()?;
    let dims = dims.to_plain_array_view::<i64>().ok()?;
    // A negative size is none, and refused as too large.
    Some(
        dims.iter().fold(1usize, |all, dim| {
            all.saturating_mul(usize::try_from(*dim).unwrap_or(usize::MAX))
        }),
    )
}
