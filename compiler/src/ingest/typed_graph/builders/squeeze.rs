//! Squeeze without axes before operator set 13, and with axes in any order. tract 0.23 requires
//! axes, in ascending order.

use tract_onnx::{
    model::ParsingContext,
    pb::NodeProto,
    tract_core::internal::{OutletId, TypedModel},
    tract_hir::{internal::*, ops::array::RmDims},
};

pub(super) fn build(
    ctx: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let listed = match ctx.onnx_operator_set_version {
        ..13 => match node.get_attr_opt_vec::<i64>("axes")? {
            Some(axes) => Axes::These(axes),
            None => Axes::Units,
        },
        _ if node.input.get(1).is_some_and(|axes| !axes.is_empty()) => Axes::Input,
        _ => Axes::Units,
    };
    Ok((expand(Squeeze { axes: listed }), vec![]))
}

/// The axes to remove.
#[derive(Debug, Clone, Hash, PartialEq, Eq)]
enum Axes {
    These(Vec<i64>),
    /// Listed in the second input.
    Input,
    /// All axes of length 1.
    Units,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq)]
struct Squeeze {
    axes: Axes,
}

fn read(axes: &Tensor) -> TractResult<Vec<i64>> {
    Ok(axes.cast_to::<i64>()?.to_plain_array_view::<i64>()?.iter().copied().collect())
}

/// The axes to remove from a tensor of this shape, each once and of length 1, counted from the
/// first.
fn checked(axes: &[i64], shape: &[TDim]) -> TractResult<Vec<usize>> {
    let rank = i64::try_from(shape.len())?;
    let mut found = vec![];
    for axis in axes {
        let at = usize::try_from(if *axis < 0 { *axis + rank } else { *axis })?;
        ensure!(
            at < shape.len() && !found.contains(&at),
            "Squeeze of axis {axis} of a tensor of rank {rank}"
        );
        ensure!(shape[at].is_one(), "Squeeze of axis {axis}, whose length is {}, not 1", shape[at]);
        found.push(at);
    }
    Ok(found)
}

fn units(shape: &[TDim]) -> Vec<usize> {
    (0..shape.len()).filter(|at| shape[*at].is_one()).collect()
}

fn without(shape: &[TDim], axes: &[usize]) -> TVec<TDim> {
    shape
        .iter()
        .enumerate()
        .filter(|(at, _)| !axes.contains(at))
        .map(|(_, dim)| dim.clone())
        .collect()
}

impl Expansion for Squeeze {
    fn name(&self) -> StaticName {
        "Squeeze".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, if self.axes == Axes::Input { 2 } else { 1 })?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
        if self.axes == Axes::Input {
            return s.given_2(&inputs[0].shape, &inputs[1].value, move |s, shape, axes| {
                s.equals(&outputs[0].shape, without(&shape, &checked(&read(&axes)?, &shape)?))
            });
        }
        s.given(&inputs[0].shape, move |s, shape| {
            let axes = if let Axes::These(axes) = &self.axes {
                checked(axes, &shape)?
            } else {
                units(&shape)
            };
            s.equals(&outputs[0].shape, without(&shape, &axes))
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let shape: TVec<TDim> = model.outlet_fact(inputs[0])?.shape.iter().cloned().collect();
        let axes = match &self.axes {
            Axes::These(axes) => checked(axes, &shape)?,
            Axes::Units => units(&shape),
            Axes::Input => {
                let axes = model
                    .outlet_fact(inputs[1])?
                    .konst
                    .clone()
                    .context("its axes must be constant")?;
                checked(&read(&axes)?, &shape)?
            }
        };
        RmDims::new(axes.into_iter().map(|axis| axis as isize).collect()).wire(
            prefix,
            model,
            &inputs[..1],
        )
    }
}
