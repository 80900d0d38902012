//! Einsum equations with an ellipsis are written so that every operand has one.
//!
//! tract 0.23 gives an operand without an ellipsis one axis of it, which shifts the axes of the
//! output. An ellipsis may stand for no axis at all, so adding it changes nothing. Knows equations,
//! not operands.

use tract_onnx::pb;

pub(in crate::ingest) fn complete_ellipses(proto: &mut pb::ModelProto) {
    let nodes = proto
        .graph
        .iter_mut()
        .flat_map(|graph| &mut graph.node)
        .filter(|node| node.op_type == "Einsum");
    for equation in
        nodes.flat_map(|node| &mut node.attribute).filter(|attribute| attribute.name == "equation")
    {
        if let Some(completed) = std::str::from_utf8(&equation.s).ok().and_then(completed) {
            equation.s = completed.into_bytes();
        }
    }
}

/// The equation with an ellipsis in every operand, if there is one in any.
fn completed(equation: &str) -> Option<String> {
    let (operands, output) = equation.split_once("->")?;
    if !operands.contains("...") {
        return None;
    }
    let with_ellipsis = |operand: &str| match operand.trim() {
        operand if operand.contains("...") => operand.to_string(),
        operand => format!("...{operand}"),
    };
    let operands: Vec<String> = operands.split(',').map(with_ellipsis).collect();
    Some(format!("{}->{}", operands.join(","), output.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_operands_without_an_ellipsis_get_one() {
        assert_eq!(completed("...r, or -> ...o").as_deref(), Some("...r,...or->...o"));
        assert_eq!(completed("...r,...or->...o").as_deref(), Some("...r,...or->...o"));
        assert_eq!(completed("bsr,or->bso"), None);
    }
}
