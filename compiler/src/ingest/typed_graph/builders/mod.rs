//! Builds ONNX operators that tract reads wrongly, or not in all their forms: one file each.
//!
//! A builder turns a node of the file into tract's operator. It knows tract's inference, not linear
//! maps; the effect of an operator on a map is in `affine::operators`.

pub(in crate::ingest) mod cast;
mod pad;
mod squeeze;

use tract_onnx::Onnx;

/// tract's ONNX reader with the operators of this folder.
pub(in crate::ingest) fn onnx() -> Onnx {
    let mut onnx = tract_onnx::onnx().with_ignore_output_types(true).with_ignore_value_info(true);
    onnx.op_register.insert("Cast", cast::build);
    onnx.op_register.insert("Pad", pad::build);
    onnx.op_register.insert("Squeeze", squeeze::build);
    onnx
}
