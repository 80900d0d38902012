//! Pad with negative pads, and with pads for some axes only.
//!
//! tract 0.23 reads negative pads as huge ones, infers the result's size only along the axes that
//! are listed, and pads with a constant in every mode if there is one. A negative pad is a crop: it
//! becomes a slice, so the remaining pads are not negative.

use tract_onnx::{
    model::{ParsingContext, optional_inputs},
    pb::NodeProto,
    tract_core::ops::array::{Pad as TypedPad, PadMode, Slice},
    tract_hir::internal::*,
};

pub(super) fn build(
    ctx: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let mode = match node.get_attr_opt("mode")? {
        None | Some("constant") => Mode::Constant,
        Some("edge") => Mode::Edge,
        Some("reflect") => Mode::Reflect,
        Some(other) => bail!("it pads in mode `{other}`; pad with a constant"),
    };
    let op = if ctx.onnx_operator_set_version < 11 {
        let value = tensor0(node.get_attr_opt::<f32>("value")?.unwrap_or(0.0)).into_arc_tensor();
        Pad {
            mode,
            pads: Some(node.get_attr_vec("pads")?),
            value: Value::Attribute(value),
            axes: None,
        }
    } else {
        let mut inputs = optional_inputs(node).skip(2);
        let value = inputs.next().flatten();
        Pad { mode, pads: None, value: Value::Input(value), axes: inputs.next().flatten() }
    };
    Ok((expand(op), vec![]))
}

#[derive(Debug, Clone, Hash, PartialEq, Eq)]
struct Pad {
    mode: Mode,
    /// The pads if they are an attribute of the node; otherwise they are the second input.
    pads: Option<Vec<i64>>,
    value: Value,
    /// Index of the input that lists the axes.
    axes: Option<usize>,
}

#[derive(Debug, Clone, Copy, Hash, PartialEq, Eq)]
enum Mode {
    Constant,
    Edge,
    Reflect,
}

/// The constant to pad with.
#[derive(Debug, Clone, Hash, PartialEq, Eq)]
enum Value {
    Attribute(Arc<Tensor>),
    /// Index of the input; without one the value is zero.
    Input(Option<usize>),
}

impl Pad {
    /// The number of inputs.
    fn arity(&self) -> usize {
        let value = matches!(self.value, Value::Input(Some(_)));
        1 + usize::from(self.pads.is_none()) + usize::from(value) + usize::from(self.axes.is_some())
    }
}

fn integers(tensor: &Tensor) -> TractResult<Vec<i64>> {
    Ok(tensor.cast_to::<i64>()?.to_plain_array_view::<i64>()?.iter().copied().collect())
}

/// The pads before and after every axis of a tensor of this rank.
fn along(rank: usize, pads: &[i64], axes: Option<&[i64]>) -> TractResult<Vec<(i64, i64)>> {
    let signed = i64::try_from(rank)?;
    let axes: Vec<i64> = axes.map_or_else(|| (0..signed).collect(), <[i64]>::to_vec);
    ensure!(pads.len() == 2 * axes.len(), "{} pads for {} axes", pads.len(), axes.len());
    let mut all = vec![(0, 0); rank];
    for (axis, (before, after)) in axes.iter().zip(pads.iter().zip(&pads[axes.len()..])) {
        let at = usize::try_from(if *axis < 0 { axis + signed } else { *axis })?;
        *all.get_mut(at)
            .with_context(|| format!("Pad of axis {axis} of a tensor of rank {rank}"))? =
            (*before, *after);
    }
    Ok(all)
}

impl Expansion for Pad {
    fn name(&self) -> StaticName {
        "Pad".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.arity())?;
        check_output_arity(outputs, 1)?;
        s.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        s.equals(&inputs[0].rank, &outputs[0].rank)?;
        if let Value::Input(Some(value)) = self.value {
            s.equals(&inputs[0].datum_type, &inputs[value].datum_type)?;
        }
        // The pads and axes must be known; the values of the tensor need not be.
        let known: Vec<_> = (1..inputs.len())
            .filter(|at| self.value != Value::Input(Some(*at)))
            .map(|at| &inputs[at].value)
            .collect();
        s.given(&inputs[0].shape, move |s, shape| {
            s.given_all(known.clone(), move |s, lists| {
                let mut lists = lists
                    .iter()
                    .map(|list| integers(list))
                    .collect::<TractResult<Vec<_>>>()?
                    .into_iter();
                let pads = match &self.pads {
                    Some(pads) => pads.clone(),
                    None => lists.next().context("no pads")?,
                };
                let pads = along(shape.len(), &pads, lists.next().as_deref())?;
                let padded = shape
                    .iter()
                    .zip(pads)
                    .map(|(dim, (before, after))| dim.clone() + before + after);
                let padded: TVec<TDim> = padded.collect();
                s.equals(&outputs[0].shape, padded)
            })
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let constant = |model: &TypedModel, input: usize, what: &str| -> TractResult<Arc<Tensor>> {
            let outlet = inputs.get(input).with_context(|| format!("it has no {what}"))?;
            model
                .outlet_fact(*outlet)?
                .konst
                .clone()
                .with_context(|| format!("its {what} must be constant"))
        };
        let fact = model.outlet_fact(inputs[0])?.clone();
        let value = match &self.value {
            Value::Attribute(value) => value.clone(),
            Value::Input(Some(input)) => constant(model, *input, "padding value")?,
            Value::Input(None) => Tensor::zero_scalar_dt(fact.datum_type)?.into_arc_tensor(),
        };
        let pads = match &self.pads {
            Some(pads) => pads.clone(),
            None => integers(&*constant(model, 1, "pads")?)?,
        };
        let axes =
            self.axes.map(|input| integers(&*constant(model, input, "axes")?)).transpose()?;
        let pads = along(fact.rank(), &pads, axes.as_deref())?;
        let crops = pads.iter().any(|(before, after)| *before < 0 || *after < 0);
        ensure!(
            !crops || self.mode == Mode::Constant,
            "it crops and repeats values at once; do one after the other"
        );
        let mut wire = inputs[0];
        for (axis, (before, after)) in
            pads.iter().enumerate().filter(|(_, (before, after))| *before < 0 || *after < 0)
        {
            let start = TDim::from(before.min(&0).saturating_neg());
            let end = fact.shape[axis].clone() + *after.min(&0);
            ensure!(
                (end.clone() - &start).as_i64().is_some_and(|left| left >= 0),
                "it crops more than the length of axis {axis}, or that length is symbolic"
            );
            wire = model.wire_node(
                format!("{prefix}.crop-{axis}"),
                Slice::new(axis, start, end),
                &[wire],
            )?[0];
        }
        let pads = pads.iter().map(|(before, after)| {
            Ok((usize::try_from(*before.max(&0))?, usize::try_from(*after.max(&0))?))
        });
        let pads = pads.collect::<TractResult<Vec<_>>>()?;
        if pads.iter().all(|pads| *pads == (0, 0)) && wire != inputs[0] {
            model.rename_node(wire.node, prefix)?;
            return Ok(tvec!(wire));
        }
        let mode = match self.mode {
            Mode::Constant => PadMode::Constant(value),
            Mode::Edge => PadMode::Edge,
            Mode::Reflect => PadMode::Reflect,
        };
        model.wire_node(prefix, TypedPad { pads, mode }, &[wire])
    }
}
