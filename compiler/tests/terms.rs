//! A map has the fewest and smallest terms that its graph allows: ranks are those of the weights'
//! factors, however the graph moves features, and parts of one input become one term.

#![allow(clippy::unwrap_used)]

use tract_onnx::pb;
use zklora_compiler::{LinearMap, Term, explain};

mod models;
use models::{along, bytes, compiled, floats, ints, model, model_of, node, repeated, value};

fn weight(name: &str, rows: i64, cols: i64) -> pb::TensorProto {
    let values: Vec<f32> =
        (0..rows * cols).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    floats(name, &[rows, cols], &values)
}

/// Every term in short: rank by its shape, `scale`, `bias`.
fn shapes(map: &LinearMap) -> Vec<String> {
    let shape = |term: &Term| match term {
        Term::LowRank { a, b, .. } => format!("{}x{}x{}", a.rows, a.cols, b.cols),
        Term::ElementScale { g, .. } => format!("scale {}", g.len()),
        Term::Bias { b } => format!("bias {}", b.len()),
    };
    map.terms.iter().map(shape).collect()
}

#[test]
fn a_split_or_picked_input_of_real_width_keeps_the_rank_of_its_factors() {
    let wide = || vec![value("x", &[1, 8192])];
    let mut split = along(1, "Split", &["x"], "l");
    split.output.push("r".into());
    let nodes = vec![
        split,
        node("MatMul", &["l", "a"], "p"),
        node("MatMul", &["r", "a"], "q"),
        node("Add", &["p", "q"], "h"),
        node("MatMul", &["h", "b"], "y"),
    ];
    let halves = model_of(wide(), nodes, vec![weight("a", 4096, 4), weight("b", 4, 8192)]);
    assert_eq!(shapes(&compiled(&halves)), ["8192x4x8192", "8192x4x8192"]);
    let order: Vec<i64> = (0..4096).map(|i| 8191 - 2 * i).collect();
    let nodes = vec![
        along(1, "Gather", &["x", "i"], "g"),
        node("MatMul", &["g", "a"], "h"),
        node("MatMul", &["h", "b"], "y"),
    ];
    let picked = model_of(
        wide(),
        nodes,
        vec![ints("i", &order), weight("a", 4096, 4), weight("b", 4, 8192)],
    );
    assert_eq!(shapes(&compiled(&picked)), ["8192x4x8192"]);
}

#[test]
fn an_input_that_is_split_and_joined_is_one_term() {
    let mut split = along(1, "Split", &["base", "parts"], "q");
    split.output.extend(["k".into(), "v".into()]);
    let nodes = vec![
        split,
        node("MatMul", &["x", "a"], "h"),
        node("MatMul", &["h", "b"], "d"),
        node("Add", &["q", "d"], "q2"),
        node("Add", &["v", "d"], "v2"),
        along(1, "Concat", &["q2", "k", "v2"], "y"),
    ];
    let weights = vec![ints("parts", &[4096; 3]), weight("a", 4096, 8), weight("b", 8, 4096)];
    let fused = compiled(&model_of(
        vec![value("x", &[1, 4096]), value("base", &[1, 3 * 4096])],
        nodes,
        weights,
    ));
    assert_eq!(shapes(&fused), ["scale 12288", "4096x8x12288", "4096x8x12288"]);
    assert!(
        matches!(&fused.terms[0], Term::ElementScale { input: 1, g } if g.iter().all(|g| *g == 1.0))
    );
}

#[test]
fn features_that_are_only_moved_have_the_rank_of_those_that_are_used() {
    let mut map =
        compiled(&model(vec![along(1, "Gather", &["x", "i"], "y")], vec![ints("i", &[2, 2, 0])]));
    assert_eq!(shapes(&map), ["4x2x3"]);
    assert_eq!(map.apply(&[&[1.0, 2.0, 3.0, 4.0]]).unwrap(), [3.0, 3.0, 1.0]);
    map = compiled(&model(vec![along(1, "Concat", &["x", "x"], "y")], vec![]));
    assert_eq!(shapes(&map), ["4x4x8"]);
    assert_eq!(
        map.apply(&[&[1.0, 2.0, 3.0, 4.0]]).unwrap(),
        [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]
    );
}

#[test]
fn repeatedly_added_constants_are_one_row() {
    let row = floats("c", &[4], &[1.0, -2.0, 0.25, 4.0]);
    let sum = model(repeated("Add", "x", &["c"], 300), vec![row]);
    let map = compiled(&sum);
    assert_eq!(shapes(&map), ["scale 4", "bias 4"]);
    assert_eq!(map.apply(&[&[0.0; 4]]).unwrap(), [300.0, -600.0, 75.0, 1200.0]);
    let steps = explain(&bytes(&sum), "sum", None).unwrap().steps;
    assert_eq!(steps.last().unwrap().became, "rows of 4: input 0 (4) + [constant row of 4]");
}

#[test]
fn a_constant_added_to_every_output_in_two_steps_is_warned_about() {
    let nodes = vec![
        node("MatMul", &["x", "w"], "d"),
        node("Add", &["d", "s"], "e"),
        node("Add", &["e", "s"], "y"),
    ];
    let sums = model(nodes, vec![weight("w", 4, 3), floats("s", &[], &[0.5])]);
    let warnings = explain(&bytes(&sums), "sums", None).unwrap().warnings;
    assert!(warnings[0].contains("adds one constant to every output"), "{warnings:?}");
}

#[test]
fn thousands_of_negations_cancel() {
    for (count, scale) in [(9900, 1.0), (9899, -1.0)] {
        let negated = model(repeated("Neg", "x", &[], count), vec![]);
        let map = compiled(&negated);
        assert_eq!((shapes(&map), map.scale), (vec!["scale 4".to_string()], scale));
        let steps = explain(&bytes(&negated), "negated", None).unwrap().steps;
        assert!(steps.iter().all(|step| step.became.len() < 100), "{:?}", steps.last());
    }
}

#[test]
fn long_terms_are_explained_in_brief() {
    let mut nodes = vec![node("MatMul", &["x", "w"], "h")];
    nodes.extend(repeated("Mul", "h", &["f"], 500));
    let scaled = model(nodes, vec![floats("f", &[], &[0.99]), floats("w", &[4, 3], &[0.5; 12])]);
    let last = explain(&bytes(&scaled), "scaled", None).unwrap().steps.pop().unwrap().became;
    assert!(last.len() < 300 && last.ends_with("490 more"), "{last}");
}

#[test]
fn the_difference_of_a_single_feature_to_itself_has_no_matrix() {
    let nothing = model_of(vec![value("x", &[1, 1])], vec![node("Sub", &["x", "x"], "y")], vec![]);
    assert_eq!(shapes(&compiled(&nothing)), ["scale 1", "scale 1"]);
}
