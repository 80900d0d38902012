//! ONNX operators that tract reads wrongly, or not in all their forms, are built here instead: one
//! file each.
//!
//! A builder makes tract's operator from a node of the file. It knows tract's inference, not linear
//! maps; what an operator does to a map is in `operators`.

pub(in crate::ingest) mod cast;
mod pad;
mod squeeze;

use tract_onnx::Onnx;

/// tract's reader of ONNX with the operators of this folder.
pub(in crate::ingest) fn onnx() -> Onnx {
    let mut onnx = tract_onnx::onnx().with_ignore_output_types(true).with_ignore_value_info(true);
    onnx.op_register.insert("Cast", cast::build);
    onnx.op_register.insert("Pad", pad::build);
    onnx.op_register.insert("Squeeze", squeeze::build);
    onnx
}
