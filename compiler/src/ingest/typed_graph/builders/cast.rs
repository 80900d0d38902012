//! Cast to int64 without loss. tract 0.23 turns the numbers into dimensions, and keeps only 32
//! bits.
//!
//! Exporters write "to the end" of a slice as the largest int64, and cast it. Cut to 32 bits it is
//! -1, and the slice is too short by one.

use tract_onnx::{
    model::ParsingContext,
    pb::{NodeProto, tensor_proto::DataType},
    tract_core::ops::{
        cast::cast,
        element_wise::{ElementWiseMiniOp, ElementWiseOp},
    },
    tract_hir::internal::*,
};

/// The name of a cast to int64.
pub(in crate::ingest) const NAME: &str = "CastToDimension";

pub(super) fn build(
    ctx: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    if node.get_attr_opt::<i64>("to")? != Some(DataType::Int64 as i64) {
        let original =
            tract_onnx::onnx().op_register.0.remove("Cast").context("tract has no Cast")?;
        return original(ctx, node);
    }
    Ok((expand(ToDimension), vec![]))
}

#[derive(Debug, Clone, Hash, PartialEq, Eq)]
struct ToDimension;

impl Expansion for ToDimension {
    fn name(&self) -> StaticName {
        "Cast".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, TDim::datum_type())?;
        s.equals(&outputs[0].shape, &inputs[0].shape)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let from = model.outlet_fact(inputs[0])?.datum_type;
        if from == TDim::datum_type() {
            return model.wire_node(prefix, cast(from), inputs);
        }
        model.wire_node(prefix, ElementWiseOp(Box::new(Exactly), None), inputs)
    }
}

/// The cast of a tensor that holds numbers.
#[derive(Debug, Clone, Hash, PartialEq, Eq)]
struct Exactly;

impl ElementWiseMiniOp for Exactly {
    fn name(&self) -> String {
        NAME.into()
    }

    fn output_type(&self, _: DatumType) -> Option<DatumType> {
        Some(TDim::datum_type())
    }

    fn eval_out_of_place(&self, tensor: &Tensor, _: Option<DatumType>) -> TractResult<Tensor> {
        let integers = tensor.cast_to::<i64>()?;
        let dims = integers.to_plain_array_view::<i64>()?.mapv(TDim::from);
        Ok(dims.into_tensor())
    }
}
