//! Splits an Einsum of more than two operands into a chain of Einsums of two, the only form that
//! the compiler's operators support.
//!
//! A label is summed over as soon as neither another operand nor the output has it, so the chain
//! computes the same. It starts with the operand that depends on the graph's input and continues
//! with operands that share a label, so the factors of a low-rank product stay factors. Constants
//! that only scale another constant are multiplied into it first. Knows equations and names, not
//! values.

use std::collections::HashSet;

use tract_onnx::pb;

use super::screen::MAX_NODES;

/// Most operands of an Einsum. Ordering them takes time with the cube of their number.
const MAX_OPERANDS: usize = 16;

/// The label that stands for `...`.
const ELLIPSIS: char = '.';

/// Splits every Einsum of more than two operands.
pub(in crate::ingest) fn split_into_pairs(proto: &mut pb::ModelProto) {
    let Some(graph) = proto.graph.as_mut() else { return };
    if !graph.node.iter().any(is_long) {
        return;
    }
    let given: HashSet<String> =
        graph.initializer.iter().map(|tensor| tensor.name.clone()).collect();
    let inputs =
        graph.input.iter().map(|input| input.name.clone()).filter(|name| !given.contains(name));
    // Nodes in the order of the file. In another order a chain may start with another operand,
    // which is also correct.
    let mut dependent: HashSet<String> = inputs.collect();
    let mut taken: HashSet<String> = given.iter().chain(&dependent).cloned().collect();
    for node in &graph.node {
        taken.insert(node.name.clone());
        taken.extend(node.output.iter().cloned());
        if node.input.iter().any(|input| dependent.contains(input)) {
            dependent.extend(node.output.iter().cloned());
        }
    }
    let mut nodes = Vec::with_capacity(graph.node.len());
    for node in graph.node.drain(..) {
        match pairs(&node, &dependent, &mut taken) {
            Some(pairs) if nodes.len() + pairs.len() <= MAX_NODES => nodes.extend(pairs),
            _ => nodes.push(node),
        }
    }
    graph.node = nodes;
}

fn is_long(node: &pb::NodeProto) -> bool {
    node.op_type == "Einsum" && (3..=MAX_OPERANDS).contains(&node.input.len())
}

/// One operand of an equation.
struct Operand {
    value: String,
    labels: Vec<char>,
    constant: bool,
}

/// The nodes that compute a long Einsum; none if the node is not one, or its equation is not
/// understood.
fn pairs(
    node: &pb::NodeProto,
    dependent: &HashSet<String>,
    taken: &mut HashSet<String>,
) -> Option<Vec<pb::NodeProto>> {
    let given = node
        .attribute
        .iter()
        .find(|attribute| attribute.name == "equation")
        .filter(|_| is_long(node))?;
    let (operands, output) = parsed(std::str::from_utf8(&given.s).ok()?)?;
    if operands.len() != node.input.len() || node.output.len() != 1 {
        return None;
    }
    let operands = operands.into_iter().zip(&node.input);
    let mut left: Vec<Operand> = operands
        .map(|(labels, value)| Operand {
            value: value.clone(),
            labels,
            constant: !dependent.contains(value),
        })
        .collect();
    let mut made = vec![];
    while left.len() > 1 {
        let (first, second) = next_pair(&left)?;
        let later = left.remove(first.max(second));
        let earlier = left.remove(first.min(second));
        let (one, two) = if first < second { (earlier, later) } else { (later, earlier) };
        let is_needed = |label: &char| {
            output.contains(label) || left.iter().any(|other| other.labels.contains(label))
        };
        let mut labels: Vec<char> = vec![];
        for label in one.labels.iter().chain(&two.labels).filter(|label| is_needed(label)) {
            if !labels.contains(label) {
                labels.push(*label);
            }
        }
        let last = left.is_empty();
        let result = if last { output.clone() } else { labels };
        let equation =
            format!("{},{}->{}", written(&one.labels), written(&two.labels), written(&result));
        let mut pair =
            pb::NodeProto { input: vec![one.value, two.value], attribute: vec![], ..node.clone() };
        pair.attribute.push(pb::AttributeProto { s: equation.into_bytes(), ..given.clone() });
        if !last {
            let mut name = format!("{}.pair{}", node.name, made.len());
            while !taken.insert(name.clone()) {
                name.push('_');
            }
            pair.output = vec![name.clone()];
            pair.name = name;
        }
        let value = pair.output.first()?.clone();
        left.insert(0, Operand { value, labels: result, constant: one.constant && two.constant });
        made.push(pair);
    }
    Some(made)
}

/// The two operands to contract next.
fn next_pair(left: &[Operand]) -> Option<(usize, usize)> {
    let pairs = || {
        (0..left.len())
            .flat_map(|one| (0..left.len()).map(move |two| (one, two)))
            .filter(|(one, two)| one != two)
    };
    let scales = |(one, two): &(usize, usize)| {
        left[*one].constant
            && left[*two].constant
            && left[*two].labels.iter().all(|label| left[*one].labels.contains(label))
    };
    let start = left.iter().position(|operand| !operand.constant).unwrap_or(0);
    let is_neighbour = |(one, two): &(usize, usize)| {
        let shares = |label: &&char| **label != ELLIPSIS && left[*two].labels.contains(label);
        *one == start && left[*one].labels.iter().any(|label| shares(&label))
    };
    pairs()
        .find(scales)
        .or_else(|| pairs().find(is_neighbour))
        .or_else(|| pairs().find(|(one, _)| *one == start))
}

/// The labels of the operands and of the output.
fn parsed(equation: &str) -> Option<(Vec<Vec<char>>, Vec<char>)> {
    let equation: String =
        equation.split_whitespace().collect::<String>().replace("...", "\u{2026}");
    let labels = |text: &str| -> Option<Vec<char>> {
        let label = |letter: char| match letter {
            '\u{2026}' => Some(ELLIPSIS),
            letter => letter.is_ascii_alphabetic().then_some(letter),
        };
        text.chars().map(label).collect()
    };
    let (operands, output) = match equation.split_once("->") {
        Some((operands, output)) => (operands, Some(labels(output)?)),
        None => (equation.as_str(), None),
    };
    let operands: Vec<Vec<char>> = operands.split(',').map(labels).collect::<Option<_>>()?;
    let all = || operands.iter().flatten().copied();
    let output = output.unwrap_or_else(|| {
        let mut once: Vec<char> =
            all().filter(|label| all().filter(|other| other == label).count() == 1).collect();
        once.sort_unstable();
        once
    });
    // Equations with an ellipsis that is summed over, or that only some operands have, stay as they
    // are; a later stage reads or refuses them.
    let with_ellipsis = operands.iter().filter(|labels| labels.contains(&ELLIPSIS)).count();
    let consistent = if output.contains(&ELLIPSIS) {
        with_ellipsis == operands.len()
    } else {
        with_ellipsis == 0
    };
    consistent.then_some((operands, output))
}

fn written(labels: &[char]) -> String {
    labels.iter().collect::<String>().replace(ELLIPSIS, "...")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn equations(equation: &str, inputs: &[&str]) -> Vec<String> {
        let attribute = pb::AttributeProto {
            name: "equation".into(),
            s: equation.into(),
            ..Default::default()
        };
        let node = pb::NodeProto {
            op_type: "Einsum".into(),
            name: "e".into(),
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec!["y".into()],
            attribute: vec![attribute],
            ..Default::default()
        };
        let pairs = pairs(&node, &HashSet::from(["x".to_string()]), &mut HashSet::new())
            .unwrap_or_default();
        pairs.iter().map(|pair| String::from_utf8(pair.attribute[0].s.clone()).unwrap()).collect()
    }

    #[test]
    fn a_low_rank_product_keeps_its_factors_for_any_position_of_the_input() {
        assert_eq!(equations("bd,dr,ro->bo", &["x", "a", "b"]), ["bd,dr->br", "br,ro->bo"]);
        assert_eq!(equations("ro,dr,bd->bo", &["b", "a", "x"]), ["bd,dr->br", "br,ro->bo"]);
        assert_eq!(
            equations("...d,...dr,...ro->...o", &["x", "a", "b"]),
            ["...d,...dr->...r", "...r,...ro->...o"]
        );
    }

    #[test]
    fn constants_that_scale_others_are_multiplied_into_them() {
        assert_eq!(equations("bd,dr,r,ro->bo", &["x", "a", "s", "b"])[0], "dr,r->dr");
        assert_eq!(equations("bd,dr,,ro", &["x", "a", "s", "b"])[0], "dr,->dr");
    }

    #[test]
    fn equations_that_are_not_understood_stay() {
        assert!(equations("bd,dr->br", &["x", "a"]).is_empty());
        assert!(equations("...d,dr,ro->...o", &["x", "a", "b"]).is_empty());
        assert!(equations("b1,dr,ro->bo", &["x", "a", "b"]).is_empty());
    }
}
