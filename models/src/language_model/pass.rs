//! tract's operator of the nodes that zklora inserts and that change nothing: those of
//! `hide_ranges` and of `mark_layers`.
//!
//! tract knows nothing of the values behind it. Must not know why a node was inserted.

use tract_onnx::{tract_core::plan::EvalContext, tract_hir::internal::*};

/// The identity.
#[derive(Debug, Clone, Hash, PartialEq, Eq)]
pub struct Pass {
    /// For the output of a layer, its index among [`super::LayerGraph::layers`].
    pub layer: Option<usize>,
}

impl Expansion for Pass {
    fn name(&self) -> StaticName {
        "ZkloraPass".into()
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

impl Op for Pass {
    fn name(&self) -> StaticName {
        "ZkloraPass".into()
    }

    op_as_typed_op!();
}

impl TypedOp for Pass {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(inputs.iter().map(|input| input.datum_type.fact(input.shape.clone())).collect())
    }

    as_op!();
}

impl EvalOp for Pass {
    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(inputs)
    }

    op_out_of_plan!();
}
