//! Limits on what a graph may make tract compute while it folds constants.
//!
//! A few bytes can ask for terabytes (`ConstantOfShape`, `Expand`, an outer product), and tract
//! evaluates an operator before it looks at how large the result is. So inference runs here one
//! node at a time: shapes first, then a check, then values.

use super::{
    bounds::{castable, readable},
    error::IngestError,
    formula::{check_sizes, check_tensor},
    graph::Origins,
    graph::brief,
};
use std::sync::Arc;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_hir::internal::{
    Factoid, InferenceFact, InferenceModel, TDim, TVec, Tensor, TypedOp,
};
use tract_onnx::tract_hir::ops::unimpl::UnimplementedOp;
use zklora_models::quiet;

/// The most elements of one constant that the graph computes.
const MAX_FOLDED: usize = 1 << 26;
/// The most elements of all constants that the graph computes: so many, so many more for each
/// element that the file stores, and not more than the last.
const FREE_FOLDED: usize = 1 << 25;
const PER_STORED: usize = 8;
const MAX_FOLDED_TOTAL: usize = 1 << 28;
/// The most multiplications for computing constants: seconds.
const MAX_WORK: usize = 1 << 34;
/// The most elements of a value that depends on the input, as far as its shape is fixed.
const MAX_INFERRED: usize = 1 << 32;
/// Rounds of inference: facts flow forwards in one and backwards in the next.
const MAX_ROUNDS: usize = 8;

/// Why a constant cannot be paid for.
pub(super) const UNKNOWN_SIZE: &str = "how many elements its result has is not known beforehand: that depends on a symbolic dimension or on \
     values, or is far too many; export with fixed sizes, or store the result instead";

/// What is left to be computed.
pub(super) struct Budget {
    limit: usize,
    elements: usize,
    work: usize,
}

impl Budget {
    /// For a file that stores so many elements of tensors.
    pub fn new(stored: usize) -> Self {
        let limit =
            stored.saturating_mul(PER_STORED).saturating_add(FREE_FOLDED).min(MAX_FOLDED_TOTAL);
        Self { limit, elements: limit, work: MAX_WORK }
    }

    /// Pays for constants of `elements` elements computed with `work` multiplications, or says what
    /// is too much.
    pub fn pay(&mut self, elements: Option<usize>, work: Option<usize>) -> Result<(), String> {
        let elements = elements.ok_or(UNKNOWN_SIZE)?;
        if elements > MAX_FOLDED {
            return Err(format!("it makes a constant of more than {MAX_FOLDED} elements"));
        }
        self.elements = self.elements.checked_sub(elements).ok_or_else(|| {
            format!("the constants computed up to here have more than {} elements", self.limit)
        })?;
        self.work = work.and_then(|work| self.work.checked_sub(work)).ok_or(
            "computing the constants of this graph takes too long; store the result instead",
        )?;
        Ok(())
    }
}

/// Infers all facts of the model and evaluates constant nodes, never a node whose result is too
/// large.
pub(super) fn infer_within_limits(
    model: &mut InferenceModel,
    order: &[usize],
    origins: &Origins,
    mut budget: Budget,
    name: &str,
) -> Result<(), IngestError> {
    let analysis = |what: String| IngestError::Analysis { name: name.into(), what };
    let mut paid = vec![false; model.nodes().len()];
    for _ in 0..MAX_ROUNDS {
        let mut changed = false;
        for id in order {
            // tract panics on some nodes that are not in order, and on some that are: the node is
            // named either way.
            let inferred = quiet::catch(|| infer_node(model, *id, &mut budget, &mut paid[*id]));
            changed |= inferred.unwrap_or_else(|| Err(Stop::Panicked)).map_err(|stop| {
                let typed = &model.nodes()[*id].name;
                let (node, operator) = origins.of_node(typed, "constant");
                let (name, node, operator) = (name.into(), node.into(), operator.into());
                match stop {
                    Stop::Panicked => analysis(format!(
                        "tract cannot analyse node `{typed}`; its attributes or constants do not fit its input, or are of a \
                         kind that it does not know"
                    )),
                    Stop::Refused(reason) => IngestError::NotLinear { name, node, operator, reason },
                    Stop::TooMuch(reason) => IngestError::TooMuch { name, node, operator, reason },
                    Stop::Failed(error) => analysis(format!("node `{typed}`: {}", brief(&format!("{error:#}")))),
                }
            })?;
        }
        if !changed {
            return Ok(());
        }
    }
    Err(analysis("its shapes do not settle".into()))
}

enum Stop {
    Panicked,
    Refused(String),
    TooMuch(String),
    Failed(tract_onnx::prelude::TractError),
}

impl From<tract_onnx::prelude::TractError> for Stop {
    fn from(error: tract_onnx::prelude::TractError) -> Self {
        Self::Failed(error)
    }
}

/// One step of inference at one node. Did it find out anything?
fn infer_node(
    model: &mut InferenceModel,
    id: usize,
    budget: &mut Budget,
    paid: &mut bool,
) -> Result<bool, Stop> {
    let facts =
        |model: &InferenceModel| -> Result<(TVec<InferenceFact>, TVec<InferenceFact>), Stop> {
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
        return Err(Stop::Refused(
            "the compiler does not know this operator; export with others, or compute it beforehand".into(),
        ));
    }
    // These compute their value along with their shape, from the shape of their input.
    let like = operator.ends_with("Like").then(|| inputs.first().and_then(elements)).flatten();
    if !*paid && let Some(elements) = like {
        budget.pay(Some(elements), Some(elements)).map_err(Stop::TooMuch)?;
    }
    let op = &mut model.node_mut(id).op;
    let (shaped_in, shaped_out, _) = op.infer_facts(
        inputs.iter().collect(),
        outputs.iter().collect(),
        observed.iter().collect(),
    )?;
    if shaped_out.iter().any(|fact| elements(fact).is_some_and(|elements| elements > MAX_INFERRED))
    {
        return Err(Stop::TooMuch(format!("its result has more than {MAX_INFERRED} elements")));
    }
    let sizes: Vec<TDim> = shaped_out
        .iter()
        .flat_map(|fact| fact.shape.dims())
        .filter_map(Factoid::concretize)
        .collect();
    check_sizes(&sizes).map_err(Stop::TooMuch)?;
    let values: Vec<Option<_>> = shaped_in.iter().map(|fact| fact.value.concretize()).collect();
    readable(&operator, &values).map_err(Stop::Refused)?;
    if let ([Some(value)], Some(to)) =
        (&values[..], shaped_out.first().and_then(|fact| fact.datum_type.concretize()))
    {
        castable(&operator, value, to).map_err(Stop::Refused)?;
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
            .map_err(Stop::TooMuch)?;
        *paid = true;
    }
    let (new_in, new_out, new_observed) =
        op.infer(inputs.iter().collect(), outputs.iter().collect(), observed.iter().collect())?;
    for value in new_out.iter().filter_map(|fact| fact.value.concretize()) {
        check_tensor(&value).map_err(Stop::TooMuch)?;
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

/// A bound on the multiplications of an operator on constants, given the elements of its result.
fn work(operator: &str, values: &[Arc<Tensor>], out: usize) -> Option<usize> {
    let inputs = values
        .iter()
        .try_fold(0usize, |sum, value| sum.checked_add(value.shape().iter().product()))?;
    let per_element = match operator {
        // The inner dimension is the last of the left factor; Gemm may have it transposed.
        name if name.contains("MatMul") || name.contains("Gemm") => {
            values.first()?.shape().iter().copied().max()?
        }
        name if is_elementwise(name) => 1,
        _ => inputs,
    };
    out.checked_mul(per_element)?.checked_add(inputs)
}

/// As [`work`], for an operator of the typed graph, whose contractions are exactly as long as their
/// axes.
pub(super) fn work_of(op: &dyn TypedOp, values: &[Arc<Tensor>], out: usize) -> Option<usize> {
    let Some(einsum) = op.downcast_ref::<EinSum>() else { return work(&op.name(), values, out) };
    einsum.axes.iter_all_axes().try_fold(1usize, |all, axis| {
        let extents = axis.inputs.iter().zip(values).flat_map(|(positions, value)| {
            positions.iter().filter_map(|position| value.shape().get(*position).copied())
        });
        all.checked_mul(extents.max().unwrap_or(1))
    })
}

/// Operators that look at a bounded number of elements for each element that they make.
fn is_elementwise(operator: &str) -> bool {
    const NAMES: [&str; 35] = [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Neg",
        "Cast",
        "Identity",
        "Reshape",
        "Transpose",
        "PermuteAxes",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "AddDims",
        "RmDims",
        "Concat",
        "Slice",
        "StridedSlice",
        "Split",
        "Gather",
        "Expand",
        "MultiBroadcastTo",
        "Tile",
        "Pad",
        "ConstantOfShape",
        "Range",
        "Shape",
        "Size",
        "Sqrt",
        "Pow",
        "Recip",
        "Abs",
        "Min",
        "Max",
        "Where",
    ];
    NAMES.iter().any(|name| operator.contains(name))
}
