//! Applies an operator of the typed graph by its family, and lists what each family supports.

use tract_onnx::tract_core::{
    internal::{AxisOp, TypedOp},
    ops::{
        array::{Gather, MultiBroadcastTo, Pad, Slice, StridedSlice, TypedConcat},
        binary::TypedBinOp,
        cast::Cast,
        cnn::Conv,
        einsum::EinSum,
        element_wise::ElementWiseOp,
        identity::Identity,
        logic::Iff,
        nn::Reduce,
    },
};

use super::{
    arity::{single, unsupported},
    axes, choose, concat, conv, einsum, elementwise, gather, pad, reduce, slice, strided,
    supported::Supported,
};
use crate::ingest::{affine::value::Value, error::Reason};

/// The operators that may be between an input and the output of a graph.
pub fn supported_operators() -> impl Iterator<Item = Supported> {
    let families = [
        einsum::SUPPORTED,
        conv::SUPPORTED,
        elementwise::SUPPORTED,
        reduce::SUPPORTED,
        axes::SUPPORTED,
        slice::SUPPORTED,
        gather::SUPPORTED,
        concat::SUPPORTED,
        pad::SUPPORTED,
        choose::SUPPORTED,
        SUPPORTED,
    ];
    families.into_iter().flatten().copied()
}

const SUPPORTED: &[Supported] = &[
    Supported { operators: "Identity", when: "always", becomes: "nothing" },
    Supported {
        operators: "Dropout",
        when: "not in training mode",
        becomes: "nothing; a live one is refused",
    },
    Supported {
        operators: "Constant, ConstantOfShape, Shape, Range, any other operator of ONNX that tract knows",
        when: "it does not depend on the values of the input, and neither its result (2^26 elements) nor the work is too large",
        becomes: "a constant",
    },
    Supported {
        operators: "functions of the model",
        when: "they are not recursive, and their operators mean the same in the model's operator set",
        becomes: "their nodes",
    },
];

/// Applies one operator whose inputs are not all constant.
pub(in crate::ingest) fn apply(op: &dyn TypedOp, inputs: &[Value]) -> Result<Value, Reason> {
    if inputs.iter().any(|input| matches!(input, Value::Filled(..))) && !op.is::<TypedConcat>() {
        return Err(Reason::new(
            "it takes a constant whose shape depends on a symbolic size; such a constant can only be joined to features, so export with \
             fixed sizes",
        ));
    }
    if op.is::<Identity>() {
        single(inputs).cloned()
    } else if let Some(cast) = op.downcast_ref::<Cast>() {
        elementwise::cast(cast.to, single(inputs)?)
    } else if let Some(change) = op.downcast_ref::<AxisOp>() {
        axes::change(change, single(inputs)?)
    } else if let Some(einsum) = op.downcast_ref::<EinSum>() {
        einsum::contract(einsum, inputs)
    } else if let Some(binary) = op.downcast_ref::<TypedBinOp>() {
        elementwise::binary(binary.0.name(), inputs)
    } else if let Some(unary) = op.downcast_ref::<ElementWiseOp>() {
        elementwise::unary(&unary.0.name(), single(inputs)?)
    } else if let Some(reduce) = op.downcast_ref::<Reduce>() {
        reduce::sum(reduce, single(inputs)?)
    } else if let Some(gather) = op.downcast_ref::<Gather>() {
        gather::gather(gather.axis, inputs)
    } else if let Some(pad) = op.downcast_ref::<Pad>() {
        pad::pad(pad, single(inputs)?)
    } else if let Some(slice) = op.downcast_ref::<Slice>() {
        slice::slice(slice, single(inputs)?)
    } else if let Some(strided) = op.downcast_ref::<StridedSlice>() {
        strided::slice(strided, inputs)
    } else if op.is::<Iff>() {
        choose::choose(inputs)
    } else if let Some(concat) = op.downcast_ref::<TypedConcat>() {
        concat::concat(concat.axis, inputs)
    } else if let Some(conv) = op.downcast_ref::<Conv>() {
        conv::convolve(conv, inputs)
    } else if let Some(broadcast) = op.downcast_ref::<MultiBroadcastTo>() {
        axes::broadcast(&broadcast.shape, single(inputs)?)
    } else {
        Err(unsupported())
    }
}
