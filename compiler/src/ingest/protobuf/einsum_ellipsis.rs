//! Rewrites Einsum equations with an ellipsis so that every operand has one.
//!
//! tract 0.23 assigns one axis of the ellipsis to an operand without one, which shifts the axes of
//! the output. An ellipsis may stand for no axes, so adding it does not change the result. Knows
//! equations, not operands.

use tract_onnx::pb;

/// Completes the equation of every Einsum.
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

/// The equation with an ellipsis in every operand, if any operand has one.
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
