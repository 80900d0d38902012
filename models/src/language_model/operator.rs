//! The operator that is put into tract's graph: it hands activations to the injector and its answer
//! to the graph.
//!
//! The injector is not part of the operator, so that operators stay values: it comes with each run,
//! see [`Turn`]. Must not know where in the graph it is.

use std::sync::Arc;

use tract_onnx::{
    model::ParsingContext, pb::NodeProto, tract_core::plan::EvalContext, tract_hir::internal::*,
};

use super::{
    injector::{Activations, InjectionCall, Injector},
    surgery,
};
use crate::panics;

/// What a run brings along.
pub(super) struct Turn {
    pub injector: Arc<dyn Injector>,
    /// Tokens, from the first; what follows is padding.
    pub rows: usize,
    /// Tokens and padding.
    pub padded: usize,
}

/// An injector's error on its way through tract.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Failed(pub Box<dyn std::error::Error + Send + Sync>);

/// tract's operator for a node of [`surgery`].
pub(super) fn build(
    _: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let points: Vec<i64> = node.get_attr_vec(surgery::POINTS)?;
    let points = points.into_iter().map(usize::try_from).collect::<Result<Vec<_>, _>>()?;
    ensure!(
        node.input.len() == points.len() + 1 && node.output.len() == points.len(),
        "an injection does not fit its points"
    );
    Ok((expand(Inject { points }), vec![]))
}

/// Inputs: what the layers read, then the base of each point. Outputs: what takes the place of each
/// base.
#[derive(Debug, Clone, Hash, PartialEq, Eq)]
pub(super) struct Inject {
    pub points: Vec<usize>,
}

impl Expansion for Inject {
    fn name(&self) -> StaticName {
        surgery::OPERATOR.into()
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
        surgery::OPERATOR.into()
    }

    op_as_typed_op!();
}

impl TypedOp for Inject {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        // Of the base, type and shape only: what is known about its values does not hold for the
        // result.
        Ok(inputs.iter().skip(1).map(|base| base.datum_type.fact(base.shape.clone())).collect())
    }

    as_op!();
}

impl EvalOp for Inject {
    fn eval(&self, ctx: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let turn = ctx.shared.and_then(|shared| shared.get::<Turn>()).context("no injector")?;
        let adapted = self.adapted(turn, &inputs)?;
        let mut outputs = tvec!();
        for (base, adapted) in inputs.into_iter().skip(1).zip(adapted) {
            let mut output = base.into_tensor();
            output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?[..adapted.len()]
                .copy_from_slice(&adapted);
            outputs.push(output.into_tvalue());
        }
        Ok(outputs)
    }

    // There is nothing to compute without an injector.
    not_out_of_plan!();
}

impl Inject {
    /// What the injector makes of the rows that are tokens.
    fn adapted(&self, turn: &Turn, inputs: &[TValue]) -> TractResult<Vec<Vec<f32>>> {
        let ids;
        let x = match inputs[0].datum_type() {
            DatumType::F32 => Activations::Dense {
                values: rows(&inputs[0], turn)?,
                dim: inputs[0].shape().last().copied().unwrap_or(0),
            },
            _ => {
                ids = inputs[0].cast_to::<i64>()?;
                let all = ids.try_as_plain_ram()?.as_slice::<i64>()?;
                ensure!(
                    all.len() == turn.padded,
                    "an embedding reads {} token numbers for {} tokens",
                    all.len(),
                    turn.padded
                );
                Activations::Ids(&all[..turn.rows])
            }
        };
        let base =
            inputs[1..].iter().map(|base| rows(base, turn)).collect::<TractResult<Vec<_>>>()?;
        let sizes: Vec<usize> = base.iter().map(|base| base.len()).collect();
        let call = InjectionCall { points: &self.points, x, base, rows: turn.rows };
        let adapted = panics::reported(|| turn.injector.inject(&call))
            .map_err(|error| TractError::new(Failed(error)))?;
        let returned: Vec<usize> = adapted.iter().map(Vec::len).collect();
        if returned != sizes {
            let what = format!(
                "the injector returned tensors of {returned:?} values where {sizes:?} are needed"
            );
            return Err(TractError::new(Failed(what.into())));
        }
        Ok(adapted)
    }
}

/// The part of a tensor `[…, features]` that belongs to tokens, of which there is one in each row.
fn rows<'a>(tensor: &'a Tensor, turn: &Turn) -> TractResult<&'a [f32]> {
    let features = tensor.shape().last().copied().unwrap_or(0);
    ensure!(
        tensor.len() == features * turn.padded,
        "a layer that is adapted works on a tensor {:?}, which has not one row for each of {} tokens; adapt layers of the whole sequence",
        tensor.shape(),
        turn.padded
    );
    Ok(&tensor.try_as_plain_ram()?.as_slice::<f32>()?[..features * turn.rows])
}
