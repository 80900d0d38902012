//! An identity operator that hides the values of its input from tract's optimiser.
//!
//! tract 0.23.9 follows the elements of a Range through comparisons up to the mask of causal
//! attention, and folds that mask into one constant of the wrong size (`FoldUniformMask` takes
//! `column <= row` for a boundary at one place). Hiding the output of every Range prevents this.
//! Must not know the use of the numbers.

use tract_onnx::{
    model::ParsingContext,
    pb::{GraphProto, NodeProto},
    tract_core::plan::EvalContext,
    tract_hir::internal::*,
};

use super::insert_nodes::{DOMAIN, Names};

/// The operator.
pub(super) const OPERATOR: &str = "ZkloraOpaque";

/// Hides the output of every Range.
pub(super) fn hide_ranges(graph: &mut GraphProto) {
    let mut names = Names::of(graph);
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        if node.op_type != "Range" {
            nodes.push(node);
            continue;
        }
        let (inner, name) = (names.fresh(), names.fresh());
        let output = std::mem::replace(&mut node.output, vec![inner.clone()]);
        nodes.push(node);
        nodes.push(NodeProto {
            op_type: OPERATOR.into(),
            domain: DOMAIN.into(),
            name,
            input: vec![inner],
            output,
            ..NodeProto::default()
        });
    }
    graph.node = nodes;
}

/// tract's operator for such a node.
pub(super) fn build(
    _: &ParsingContext,
    _: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    Ok((expand(Opaque), vec![]))
}

#[derive(Debug, Clone, Hash, PartialEq, Eq)]
struct Opaque;

impl Expansion for Opaque {
    fn name(&self) -> StaticName {
        OPERATOR.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        s.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        s.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Op for Opaque {
    fn name(&self) -> StaticName {
        OPERATOR.into()
    }

    op_as_typed_op!();
}

impl TypedOp for Opaque {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(inputs.iter().map(|input| input.datum_type.fact(input.shape.clone())).collect())
    }

    as_op!();
}

impl EvalOp for Opaque {
    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(inputs)
    }

    op_out_of_plan!();
}
