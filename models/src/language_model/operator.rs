//! tract's operator of an injection: it passes activations to the injector and the answer to the
//! graph.
//!
//! tract compares operators by value, so the injector is not part of the operator: each run brings
//! it along in [`ForwardPass`]. Must not know its position in the graph.

use std::sync::Arc;

use tract_onnx::{
    model::ParsingContext, pb::NodeProto, tract_core::plan::EvalContext, tract_hir::internal::*,
};

use super::{
    injector::{Activations, InjectionCall, Injector},
    insert_nodes,
};
use crate::panics;

/// The data of one run of the model.
pub(super) struct ForwardPass {
    pub injector: Arc<dyn Injector>,
    /// Number of tokens; padding follows them.
    pub rows: usize,
    /// Number of tokens and padding together.
    pub padded: usize,
}

/// An injector's error on its way through tract.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct InjectorError(pub Box<dyn std::error::Error + Send + Sync>);

/// tract's operator for a node of [`insert_nodes`].
pub(super) fn build(
    _: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let points: Vec<i64> = node.get_attr_vec(insert_nodes::POINTS)?;
    let points = points.into_iter().map(usize::try_from).collect::<Result<Vec<_>, _>>()?;
    ensure!(
        node.input.len() == points.len() + 1 && node.output.len() == points.len(),
        "an injection does not fit its points"
    );
    Ok((expand(Inject { points }), vec![]))
}

/// Inputs: the tensor that the layers read, then the base of each point. Outputs: the tensors that
/// take the place of the bases.
#[derive(Debug, Clone, Hash, PartialEq, Eq)]
pub(super) struct Inject {
    pub points: Vec<usize>,
}

impl Expansion for Inject {
    fn name(&self) -> StaticName {
        insert_nodes::OPERATOR.into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.points.len())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.points.len() + 1)?;
        check_output_arity(outputs, self.points.len())?;
        for (base, output) in inputs[1..].iter().zip(outputs) {
            s.equals(&base.datum_type, &output.datum_type)?;
            s.equals(&base.shape, &output.shape)?;
        }
        Ok(())
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

impl Op for Inject {
    fn name(&self) -> StaticName {
        insert_nodes::OPERATOR.into()
    }

    op_as_typed_op!();
}

impl TypedOp for Inject {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        // Only the type and shape of the base: known values of the base are not those of the
        // result.
        Ok(inputs.iter().skip(1).map(|base| base.datum_type.fact(base.shape.clone())).collect())
    }

    as_op!();
}

impl EvalOp for Inject {
    fn eval(&self, ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let pass =
            ctx.shared.and_then(|shared| shared.get::<ForwardPass>()).context("no injector")?;
        let adapted = self.adapted(pass, &inputs)?;
        let mut outputs = tvec!();
        for (base, adapted) in inputs.into_iter().skip(1).zip(adapted) {
            let mut output = base.into_tensor();
            output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?[..adapted.len()]
                .copy_from_slice(&adapted);
            outputs.push(output.into_tvalue());
        }
        Ok(outputs)
    }

    // Without an injector there is no value.
    not_out_of_plan!();
}

impl Inject {
    /// The injector's answer for the rows that are tokens.
    fn adapted(&self, pass: &ForwardPass, inputs: &[TValue]) -> TractResult<Vec<Vec<f32>>> {
        let ids;
        let x = match inputs[0].datum_type() {
            DatumType::F32 => Activations::Dense {
                values: rows(&inputs[0], pass)?,
                dim: inputs[0].shape().last().copied().unwrap_or(0),
            },
            _ => {
                ids = inputs[0].cast_to::<i64>()?;
                let all = ids.try_as_plain_ram()?.as_slice::<i64>()?;
                ensure!(
                    all.len() == pass.padded,
                    "an embedding reads {} token numbers for {} tokens",
                    all.len(),
                    pass.padded
                );
                Activations::Ids(&all[..pass.rows])
            }
        };
        let base =
            inputs[1..].iter().map(|base| rows(base, pass)).collect::<TractResult<Vec<_>>>()?;
        let sizes: Vec<usize> = base.iter().map(|base| base.len()).collect();
        let call = InjectionCall { points: &self.points, x, base, rows: pass.rows };
        let adapted = panics::reported(|| pass.injector.inject(&call))
            .map_err(|error| TractError::new(InjectorError(error)))?;
        let returned: Vec<usize> = adapted.iter().map(Vec::len).collect();
        if returned != sizes {
            let what = format!(
                "the injector returned tensors of {returned:?} values where {sizes:?} are needed"
            );
            return Err(TractError::new(InjectorError(what.into())));
        }
        Ok(adapted)
    }
}

/// The rows of a tensor `[…, features]` that belong to tokens, one row for each.
fn rows<'a>(tensor: &'a Tensor, pass: &ForwardPass) -> TractResult<&'a [f32]> {
    let features = tensor.shape().last().copied().unwrap_or(0);
    ensure!(
        tensor.len() == features * pass.padded,
        "an adapted layer works on a tensor {:?}, which does not have one row for each of {} tokens; adapt layers of the whole sequence",
        tensor.shape(),
        pass.padded
    );
    Ok(&tensor.try_as_plain_ram()?.as_slice::<f32>()?[..features * pass.rows])
}
